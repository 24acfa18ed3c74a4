"""Operations on files that fail: in the C library and so for every library, or without a compiler in Python alone."""

import atexit
import builtins
import ctypes
import errno
import io
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

OPERATIONS = ("open", "write", "fsync", "rename", "mkdir", "unlink")  # in the order of shim.c
_IN_PYTHON: dict[str, tuple[tuple[Any, str], ...]] = {
    "open": ((builtins, "open"), (io, "open")),
    "fsync": ((os, "fsync"),),
    "rename": ((os, "rename"), (os, "replace")),
    "mkdir": ((os, "mkdir"),),
    "unlink": ((os, "unlink"), (os, "rmdir")),
}
_NEVER = 2**62


def build_shim(folder: Path) -> Path | None:
    """The compiled library, or None where there is no compiler for it."""
    if not shutil.which("cc"):
        return None
    library = folder / "shim.so"
    command = ["cc", "-O1", "-shared", "-fPIC", "-o", library, Path(__file__).with_suffix(".c"), "-ldl"]
    return library if subprocess.run(command, capture_output=True).returncode == 0 else None


class Shim:
    """Fails operations of this process.

    Args:
        library: that this process was started with in LD_PRELOAD, or None.
    """

    def __init__(self, library: Path | None) -> None:
        self._library = ctypes.CDLL(str(library)) if library else None
        self._calls = dict.fromkeys(_IN_PYTHON, 0)
        self.level = "the C library" if library else "Python alone (no compiler was found)"

    def fail(self, folder: Path, operation: str, number: int, error: int, *, lasting: bool) -> None:
        """Makes the n-th operation from now on below `folder` fail, n = 1, 2, …, and, if `lasting`, all after it."""
        if self._library:
            index, path = OPERATIONS.index(operation), os.fsencode(folder)
            self._library.shim_fail(path, index, ctypes.c_long(number), ctypes.c_int(error), ctypes.c_int(lasting))
            return
        calls = itertools.count(1)

        def check(path: str) -> None:
            call = next(calls)
            if call == number or (lasting and call > number):
                raise OSError(error, os.strerror(error), path)

        _before(operation, folder, check)

    def count(self, folder: Path, file: Path) -> None:
        """Counts the operations of this process below `folder`, and writes the counts to a file when it ends."""
        if library := self._library:
            self.fail(folder, "open", _NEVER, errno.EIO, lasting=False)
            atexit.register(
                lambda: file.write_text(json.dumps({name: library.shim_count(i) for i, name in enumerate(OPERATIONS)}))
            )
            return

        def counting(operation: str) -> Callable[[str], None]:
            def count(path: str) -> None:
                self._calls[operation] += 1

            return count

        for operation in self._calls:
            _before(operation, folder, counting(operation))
        atexit.register(lambda: file.write_text(json.dumps(self._calls)))


def _before(operation: str, folder: Path, act: Callable[[str], None]) -> None:
    """Calls `act` with the path before each operation below a folder."""
    for module, name in _IN_PYTHON[operation]:
        function = getattr(module, name)

        def wrapped(target: Any, *arguments: Any, _function: Any = function, **options: Any) -> Any:
            directory = options.get("dir_fd")
            if isinstance(target, int):
                path = _of_descriptor(target)
            else:
                path = os.path.join(os.getcwd() if directory is None else _of_descriptor(directory), target)
            if path.startswith(f"{folder}/"):
                act(path)
            return _function(target, *arguments, **options)

        setattr(module, name, wrapped)


def _of_descriptor(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")
