"""How a run can end early. Each message is one line, what happened and what to do, which the command line prints."""


class RunError(ValueError):
    """A run that cannot start, go on or be read."""

    exit_status = 1
    """What the process returns to the shell."""


class NonFiniteError(RunError):
    """Training met a loss, gradient or parameter that is infinite or not a number."""


class StoppedError(RunError):
    """Ctrl-C or SIGTERM ended the run after a checkpoint; the same command goes on from there."""

    exit_status = 75  # EX_TEMPFAIL of sysexits.h, "try again": a scheduler can tell a preempted run from a failed one
