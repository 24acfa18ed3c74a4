"""Parts of a program that are timed in a process of their own, by turns with those of other processes.

The parent writes a line `VERB PART`, and the child answers with a line: a number, or nothing after `run`. A child needs
no package but those of its own parts, so that its Python may be another one.
"""

import contextlib
import ctypes
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

VERBS = ("run", "seconds", "bytes", "compile", "growth")


class Part(NamedTuple):
    """A part that is ready to run.

    Args:
        run: runs once, returns when the results are ready.
        peak_bytes: arguments, results and temporaries of one run.
        compile_seconds: from the function to the program; 0 where nothing is compiled.
    """

    run: Callable[[], Any]
    peak_bytes: Callable[[], int]
    compile_seconds: float = 0.0


def serve(parts: Mapping[str, Callable[[], Part]], versions: str) -> None:
    """Answers on standard output until standard input ends; everything else that is printed goes to standard error.

    Args:
        parts: what makes each part, at its first use.
        versions: of the packages that run.
    """
    answers, sys.stdout = sys.stdout, sys.stderr
    made: dict[str, Part] = {}
    start = resident_bytes()
    print(json.dumps({"versions": versions, "parts": list(parts)}), file=answers, flush=True)
    for line in sys.stdin:
        verb, name = line.split()
        if name not in made:
            made[name] = parts[name]()
        print(_answer(verb, made[name], start), file=answers, flush=True)


class Child:
    """A process that serves parts.

    Args:
        command: that starts it.
        environment: its environment variables; None for those of this process.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None):
        self.command = list(command)
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self.command, stdin=pipe, stdout=pipe, text=True, env=environment)
        hello = json.loads(self._line())
        self.versions: str = hello["versions"]
        self.parts: list[str] = hello["parts"]

    def ask(self, verb: str, part: str) -> float:
        """The answer to one of `VERBS`; 0 after `run`.

        run: runs once. seconds: of one run by the host's clock. bytes, compile: `peak_bytes` and `compile_seconds` of
        `Part`. growth: the largest resident memory during a run, minus the one before anything was made: to be asked
        first of a process.

        Raises:
            RuntimeError: the child has ended; its standard error is that of this process.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{verb} {part}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the missing answer is the error
        return float(self._line())

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise RuntimeError(f"expected an answer of {' '.join(self.command)}, but it ended with the status {code}")
        return line


def resident_bytes(which: str = "VmRSS") -> int:
    """The resident memory of this process: now, or the largest one so far with "VmHWM"."""
    try:
        with open("/proc/self/status") as file:
            fields = dict(line.split(":", 1) for line in file)
        return 1024 * int(fields[which].split()[0])
    except OSError:  # not on Linux: the largest one so far, in bytes on macOS
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _answer(verb: str, part: Part, start: int) -> float:
    if verb == "bytes":
        return part.peak_bytes()
    if verb == "compile":
        return part.compile_seconds
    if verb == "growth":
        part.run()  # allocates what stays
        _forget_peak()
        part.run()
        return resident_bytes("VmHWM") - start
    before = time.perf_counter()
    part.run()
    return time.perf_counter() - before if verb == "seconds" else 0


def _forget_peak() -> None:
    """From now on "VmHWM" is that of what follows, if the system can: compilation and initialisation do not count."""
    with contextlib.suppress(OSError, AttributeError):  # glibc's
        ctypes.CDLL(None).malloc_trim(0)  # what they have released goes back to the system
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")
