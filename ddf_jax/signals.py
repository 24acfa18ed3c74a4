"""The signals that ask a run to stop."""

import signal

STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name)
)
"""Ctrl-C; the end of a job, or a notice of it that schedulers send; the end of the terminal. Windows lacks some."""
