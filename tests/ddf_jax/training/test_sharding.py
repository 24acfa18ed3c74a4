"""Every mesh of devices trains as one device does, and `fsdp` divides the parameters and the optimizer's state."""

import math
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from ddf_jax.data.info import DataInfo
from ddf_jax.errors import RunError, UserError
from ddf_jax.training.devices import check_batch_size, global_batch, make_mesh
from ddf_jax.training.leaves import leaf_names
from ddf_jax.training.mesh_config import MeshConfig
from ddf_jax.training.optimizers import make_optimizer
from ddf_jax.training.recipe import ModelConfig, OptimizerConfig, Recipe
from ddf_jax.training.schedules import learning_rate_schedule, make_step_plan
from ddf_jax.training.state import abstract_state, initial_variables
from ddf_jax.training.step import compile_train_step
from pallas_kernels.aot import program_summary

INFO = DataInfo(8, tuple("01234567"), channels=3, train_size=320, eval_size=8, image_size=8)
OPTIONS = {"stem": "small", "width": 32, "blocks": (1,)}
RECIPE = Recipe(
    "r",
    ModelConfig("ddf_resnet50", OPTIONS),
    optimizer=OptimizerConfig(learning_rate=0.2, warmup_epochs=0),
    epochs=1,
    batch_size=16,
)


def made(mesh: Any, recipe: Recipe = RECIPE) -> Any:
    plan = make_step_plan(recipe, INFO)
    rate = learning_rate_schedule(recipe.optimizer, plan, recipe.batch_size)
    tx = make_optimizer(recipe.optimizer, rate)
    abstract = abstract_state(recipe, INFO, tx, mesh)
    return abstract, compile_train_step(recipe, INFO, plan, mesh, abstract, rate), tx


def batch(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 8, 16).astype(np.int32)
    images = rng.normal(size=(16, 8, 8, 3)).astype(np.float32) + labels[:, None, None, None] / 4
    return {"image": images, "label": labels, "mask": np.ones(16, bool)}


def losses(shape: tuple[int, ...], steps: int) -> tuple[list[float], Any, Any]:
    mesh = make_mesh(MeshConfig(*shape), jax.devices()[: math.prod(shape)])
    abstract, step, tx = made(mesh)
    variables, found = initial_variables(RECIPE, INFO, tx, abstract), []
    for n in range(steps):
        variables, report = step(variables, global_batch(batch(n), mesh))
        found.append(float(report.loss))
    return found, variables, step


@pytest.fixture(scope="module")
def one_device() -> list[float]:
    return losses((1, 1, 1), 20)[0]


def check_as_one(shape: tuple[int, ...], one_device: list[float]) -> tuple[Any, Any]:
    found, variables, step = losses(shape, len(one_device))
    np.testing.assert_allclose(found[:5], one_device[:5], rtol=1e-5)
    np.testing.assert_allclose(found, one_device, rtol=1e-3)
    assert found[-1] < found[0]
    return variables, step


def bytes_per_device(tree: Any) -> float:
    shards = [leaf.addressable_shards[0].data for leaf in jax.tree.leaves(tree)]
    return sum(shard.size * shard.dtype.itemsize for shard in shards)


def test_devices_that_share_parameters_channels_and_rows_train_as_one(one_device: list[float]):
    variables, step = check_as_one((1, 2, 2, 2), one_device)
    collectives = program_summary(step)["collectives"]
    assert collectives["all_to_all"] == 0
    assert collectives["collective_permute"] > 0
    conv3 = variables["model"]["stages"][0][0]["conv3"]["kernel"]
    assert conv3.sharding.spec == PartitionSpec("tensor", "fsdp")  # C of the operator, 4·C


@pytest.mark.slow
def test_devices_that_share_the_rows_of_images_train_as_one(one_device: list[float]):
    _, step = check_as_one((2, 1, 1, 2), one_device)
    collectives = program_summary(step)["collectives"]
    assert collectives["collective_permute"] > 0
    assert collectives["all_gather"] + collectives["all_to_all"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 4, 1), (1, 8, 1), (4, 1, 2), (2, 2, 2)])
def test_any_mesh_trains_as_one_device(shape: tuple[int, ...], one_device: list[float]):
    check_as_one(shape, one_device)


@pytest.mark.parametrize("name", ["ddf_resnet50", pytest.param("ddf_resnet101", marks=pytest.mark.slow)])
def test_fsdp_over_eight_devices_leaves_a_seventh_of_parameters_and_momenta(name: str):
    recipe = Recipe("r", ModelConfig(name), batch_size=16)
    info = DataInfo(1000, tuple(map(str, range(1000))), channels=3, train_size=320, eval_size=8, image_size=224)
    tx = make_optimizer(recipe.optimizer, lambda step: 0.1)
    sizes = []
    for config in (MeshConfig(), MeshConfig(fsdp=8)):
        variables = abstract_state(recipe, info, tx, make_mesh(config)).variables
        leaves = [leaf for leaf in jax.tree.leaves(variables) if leaf.dtype == np.float32]
        sizes.append(sum(4 * np.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in leaves))
    assert sizes[1] <= sizes[0] / 7


def test_momenta_and_averages_lie_where_their_parameters_do():
    recipe = Recipe("r", RECIPE.model, ema_decay=0.99, batch_size=16)
    tx = make_optimizer(OptimizerConfig(method="adamw"), lambda step: 0.1)
    variables = abstract_state(recipe, INFO, tx, make_mesh(MeshConfig(fsdp=2, tensor=2))).variables
    specs = dict(zip(leaf_names(variables), [leaf.sharding.spec for leaf in jax.tree.leaves(variables)], strict=True))
    kernel = "stages.0.0.conv2.spatial_branch.conv.kernel"
    found = {spec for name, spec in specs.items() if name.endswith(kernel)}
    assert (found, sum(name.endswith(kernel) for name in specs)) == ({PartitionSpec("tensor")}, 4)
    # What shares no channels with an operator is not divided over `tensor`.
    assert specs["model.stages.0.0.shortcut.conv.kernel"] == PartitionSpec(None, "fsdp")
    assert specs["model.stages.0.0.norm2.mean"] == PartitionSpec("tensor")


def test_devices_that_cannot_be_arranged_are_refused():
    with pytest.raises(UserError, match=r"all 8 devices, but data the rest × fsdp 3 × tensor 1 × height 1 does not"):
        make_mesh(MeshConfig(fsdp=3))
    with pytest.raises(UserError, match=r"data 3 × fsdp 2 × tensor 1 × height 1 does not"):
        make_mesh(MeshConfig(data=3, fsdp=2))
    with pytest.raises(UserError, match=r"`mesh` must have `data` from 0 on"):
        MeshConfig(tensor=0)
    with pytest.raises(RunError, match=r"devices that share it, 4 times `microbatches`, 3, so that .* got 16"):
        check_batch_size(16, make_mesh(MeshConfig(fsdp=2, tensor=2)), 3)
