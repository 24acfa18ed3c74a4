"""Two real processes of two devices each compute the gradients that one device computes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.pallas_kernels import suite
from tests.pallas_kernels.ops.launch import ARGS, NAMES

ROOT = Path(__file__).parents[3]


def gradients_of_two_processes(implementation: str, out: Path):
    """Samples are split over one mesh axis and channels over the other."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    pair = [
        subprocess.Popen(
            [sys.executable, "-W", "error", Path(__file__).with_name("launch.py"), out, implementation],
            env=os.environ
            | {"PYTHONPATH": str(ROOT), "JAX_COORDINATOR_ADDRESS": address}
            | {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(index)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        for process in pair:
            _, err = process.communicate(timeout=300)
            assert process.returncode == 0, err
    finally:
        for process in pair:
            process.kill()
    return np.load(out)


@pytest.mark.parametrize("implementation", ["xla", pytest.param("triton", marks=pytest.mark.slow)])
def test_gradients_of_two_processes_are_those_of_one_device(implementation: str, tmp_path: Path):
    gradients, arg = gradients_of_two_processes(implementation, tmp_path / "gradients.npz"), ARGS[implementation]
    arrays = jax.device_put((*arg.arrays(), arg.cotangent()), jax.devices()[0])
    expected = jax.jit(suite.pull_back(suite.by_name("xla")(arg)))(*arrays)
    for which, value in zip(NAMES, expected, strict=True):
        np.testing.assert_allclose(gradients[which], value, rtol=1e-5, atol=1e-5)
