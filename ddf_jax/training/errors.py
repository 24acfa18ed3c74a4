"""How a run can end early. Each message is one line: what happened and what to do."""

from ddf_jax.errors import UserError


class RunError(UserError):
    """A run that cannot start, resume or be read."""


class NonFiniteError(RunError):
    """Training met a loss, gradient or parameter that is infinite or not a number."""

    exit_status = 1


class StoppedError(RunError):
    """Ctrl-C or SIGTERM ended the run after a checkpoint; the same command resumes it."""

    exit_status = 75  # EX_TEMPFAIL of sysexits.h, "try again": a scheduler can tell a preempted run from a failed one
