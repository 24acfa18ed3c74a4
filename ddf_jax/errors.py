"""The base of errors that a user can mend, in contrast to defects."""


class UserError(ValueError):
    """A call, a file or a setting that cannot be used. The message states the rule, what was expected and what was
    given, and what to do; `ddf` prints it in one line, without a traceback."""

    exit_status = 2
    """What `ddf` returns to the shell: 2 is wrong use."""
