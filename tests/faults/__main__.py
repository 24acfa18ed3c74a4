"""`python -m tests.faults`: compiles the shim, and runs the driver with it in a process of its own."""

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.faults.arguments import parse
from tests.faults.shim import build_shim


def main() -> int:
    """The exit status of the driver: 1 if a fault did more than it should."""
    words = sys.argv[1:]
    kept = parse(words).keep
    if kept:
        kept.mkdir(parents=True)
    with contextlib.nullcontext(kept) if kept else tempfile.TemporaryDirectory(prefix="faults-") as folder:
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}  # no thread before a fork
        if library := build_shim(Path(folder).absolute()):
            environment["LD_PRELOAD"] = str(library)
        command = [sys.executable, "-W", "error", "-m", "tests.faults.driver", Path(folder).absolute(), *words]
        return subprocess.run(command, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
