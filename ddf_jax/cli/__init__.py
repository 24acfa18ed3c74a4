"""`ddf`: trains, evaluates and uses models from a shell."""

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Iterator, Sequence

from ddf_jax.cli.arguments import parse
from ddf_jax.cli.command import Result

WRONG_USE = 2
INTERRUPTED = 130  # what shells give a program that Ctrl-C ended
UNREAD = 141  # and one that wrote on after its reader had gone, as in `ddf models | head -1`


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the process's exit status.

    0: done. 1: training met numbers that are not finite, `verify` failed, or there was an error that nobody expected,
    with its traceback. 2: wrong use, said in one line. 75: a signal stopped training after a checkpoint, and the same
    command goes on. 130: interrupted. 141: whoever read the output has gone.

    Args:
      argv: what follows `ddf`; default: the process's own arguments.
    """
    try:
        with _read():
            command = parse(sys.argv[1:] if argv is None else argv)
        # With --json, whatever is printed on the way goes where it cannot spoil the document.
        with contextlib.redirect_stdout(sys.stderr) if command.json else contextlib.nullcontext():
            result = command.run()
        with _read():
            return _print(result, as_json=command.json)
    except KeyboardInterrupt:
        print("ddf: interrupted", file=sys.stderr)
        return INTERRUPTED
    except _UnreadError:
        return UNREAD
    except (ValueError, NotImplementedError) as error:
        if not _is_for_user(error):
            raise
        print("ddf:", *str(error).split(), file=sys.stderr)
        return getattr(error, "exit_status", WRONG_USE)


def _print(result: Result, *, as_json: bool) -> int:
    import jax

    if jax.process_index() == 0:
        print(json.dumps(result.document, indent=2, allow_nan=False) if as_json else result.text)
    return result.status


class _UnreadError(Exception):
    """Whoever read the output has gone."""


@contextlib.contextmanager
def _read() -> Iterator[None]:
    """For what is printed within."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would fail again at exit
        raise _UnreadError from None


def _is_for_user(error: Exception) -> bool:
    """Whether code of this project raised it.

    By the project's rule its ValueErrors say what is wrong with a call, and its NotImplementedErrors what cannot be
    done here. The same from elsewhere is a surprise.
    """
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__", "").partition(".")[0] in ("ddf_jax", "pallas_kernels")
