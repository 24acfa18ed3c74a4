import jax
import numpy as np
import pytest

from ddf_jax.training.errors import RunError
from ddf_jax.training.mesh import check_batch_size, data_mesh, global_batch, initialize_processes

ADDRESS = {"JAX_COORDINATOR_ADDRESS": "host:1234", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}


@pytest.mark.parametrize(
    ("environment", "calls"),
    [
        ({}, []),
        (ADDRESS, [(("host:1234",), {"num_processes": 4, "process_id": 3})]),
        ({"JAX_COORDINATOR_ADDRESS": "host:1234"}, []),
        ({"SLURM_STEP_NUM_TASKS": "8"}, [((), {})]),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "8"}, []),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, [((), {})]),
    ],
)
def test_the_environment_says_which_processes_to_join(
    environment: dict[str, str], calls: list[object], monkeypatch: pytest.MonkeyPatch
):
    made = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **kwargs: made.append((args, kwargs)))
    for name in (*ADDRESS, "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    initialize_processes()
    assert made == calls


def test_a_batch_is_split_evenly_over_the_devices():
    images = np.arange(16 * 3, dtype=np.float32).reshape(16, 3)
    batch = global_batch({"image": images}, data_mesh())
    assert [shard.data.shape for shard in batch["image"].addressable_shards] == [(2, 3)] * 8
    np.testing.assert_array_equal(batch["image"], images)


def test_a_batch_that_does_not_divide_is_refused():
    check_batch_size(24, data_mesh())
    with pytest.raises(
        RunError, match="multiple of the number of devices, 8, so that each holds equally many examples; g"
    ):
        check_batch_size(20, data_mesh())
