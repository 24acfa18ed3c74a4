"""All faults of `python -m tests.faults`, with a seed that differs each time."""

import secrets
import subprocess
import sys

import pytest

from tests.imports import ROOT


@pytest.mark.slow
@pytest.mark.timeout(3600)  # 15 minutes on two cores of its own
def test_a_run_survives_every_fault():
    seed = secrets.randbelow(10**6)
    command = [sys.executable, "-m", "tests.faults", "--seed", str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(done.stdout)  # the table, and how a failure is repeated
    assert done.returncode == 0, f"seed {seed}:\n{done.stdout[-4000:]}{done.stderr[-2000:]}"
