"""`ddf`: trains, evaluates and uses models from a shell."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ddf_jax.errors import UserError, how_to_install, one_line

if TYPE_CHECKING:
    from ddf_jax.cli.command import CommandResult

FAILED = 1
WRONG_USE = UserError.exit_status
INTERRUPTED = 130  # what shells give a program that Ctrl-C ended
UNREAD = 141  # and one that wrote on after its reader had gone, as in `ddf models | head -1`


@contextlib.contextmanager
def _dropping_no_interrupt() -> Iterator[None]:
    """Ends the process where Python drops the exception of Ctrl-C, as in a callback of the garbage collector."""
    previous = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        if unraisable.exc_type is KeyboardInterrupt:
            os.write(2, b"ddf: interrupted\n")
            os._exit(INTERRUPTED)
        else:
            previous(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        if sys.unraisablehook is hook:  # and none of a library that the command has used, which knows what to drop
            sys.unraisablehook = previous


@_dropping_no_interrupt()
def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the process's exit status.

    0: done. 1: training met numbers that are not finite, `verify` failed, a file could not be read or written, or there
    was an error that nobody expected, with its traceback. 2: wrong use, or a missing extra, in one line. 75: a signal
    stopped training after a checkpoint, and the same command resumes it. 130: interrupted. 141: the reader of the
    output has gone.

    With `--debug` among the words, every error has its traceback.

    Args:
        argv: the words after `ddf`; default: the process's own arguments.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        with _output():
            if words[:1] == ["--version"]:
                print("ddf-jax", _version())
                return 0
            from ddf_jax.cli.arguments import parse

            command = parse(words)
        with _nothing_printed() if command.json else contextlib.nullcontext():
            result = command.run()
        with _output():
            return _print(result, as_json=command.json)
    except KeyboardInterrupt:
        print("ddf: interrupted", file=sys.stderr)
        return INTERRUPTED
    except _UnreadError:
        return UNREAD
    except UserError as error:
        if debug:
            raise
        print("ddf:", *str(error).split(), file=sys.stderr)
        return error.exit_status
    except OSError as error:
        if debug:
            raise
        print(f"ddf: {one_line(error)}. `--debug` shows where.", file=sys.stderr)
        return FAILED
    except ModuleNotFoundError as error:
        if (command := how_to_install(error)) is None:
            raise
        print("ddf:", command, file=sys.stderr)
        return WRONG_USE


def _version() -> str:
    import importlib.metadata  # slow to import

    try:
        return importlib.metadata.version("ddf-jax")
    except importlib.metadata.PackageNotFoundError:
        return "(a checkout that is not installed)"


def _print(result: "CommandResult", *, as_json: bool) -> int:
    jax = sys.modules.get("jax")  # a command that did not need it has one process
    text = json.dumps(result.document, indent=2, allow_nan=False) if as_json else result.text
    if text and (jax is None or jax.process_index() == 0):
        print(text)
    return result.status


@contextlib.contextmanager
def _nothing_printed() -> Iterator[None]:
    """Sends to standard error whatever is printed, so that it cannot spoil the document of --json.

    Libraries in C++, as Gloo, do not ask Python: they write to descriptor 1.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # of descriptors that are closed
            standard = os.dup(1)
            stack.callback(os.close, standard)
            stack.callback(os.dup2, standard, 1)
            os.dup2(2, 1)
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield


class _UnreadError(Exception):
    """The reader of the output has gone."""


@contextlib.contextmanager
def _output() -> Iterator[None]:
    """Flushes standard output on exit; raises `_UnreadError` if the reader of the output has gone."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would fail again at exit
        raise _UnreadError from None
