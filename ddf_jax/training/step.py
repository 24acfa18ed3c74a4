"""The compiled steps of a run.

Under `jax.jit` with a batch split over the mesh a step sees the global batch: BatchNorm's statistics and every mean are
over all devices and processes, whatever their number.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from ddf_jax.data.info import DataInfo
from ddf_jax.functional.height import height_split
from ddf_jax.layers.activations import feature_maps_placed
from ddf_jax.layers.batch_norm import statistics_of_groups
from ddf_jax.layers.progress import training_progress
from ddf_jax.training.devices import (
    ChannelStatistics,
    batch_shares,
    batch_split,
    compiler_options,
    normalized,
    replicated,
    rows_split,
)
from ddf_jax.training.freezing import stop_statistics
from ddf_jax.training.gradients import loss_and_gradients
from ddf_jax.training.leaves import floating
from ddf_jax.training.loss_scale import next_loss_scale
from ddf_jax.training.norms import squared_norms
from ddf_jax.training.recipe import Recipe
from ddf_jax.training.schedules import StepPlan
from ddf_jax.training.shapes import AbstractBatch, abstract_batches, compile_each
from ddf_jax.training.sharding import shardings
from ddf_jax.training.state import ModelState, TrainState, Variables, eval_model, wrong_options
from ddf_jax.training.tasks import Batch, Task


class StepReport(NamedTuple):
    """Small facts about one training step, fetched a few steps later so that the devices never wait."""

    loss: jax.Array  # [], of this batch, before the update
    metric: jax.Array | None  # [], the task's metric of this batch, before the update
    learning_rate: jax.Array  # []
    gradient_squares: jax.Array  # [parameters], squared norm of each gradient, in the order of `trained_parameters`
    invalid: dict[str, jax.Array]  # what is wrong with the batch -> [] bool, whether it is
    losses: Mapping[str, jax.Array] = {}  # [] each, the parts of the loss
    loss_scale: jax.Array | None = None  # [], in float16: after the step, which a gradient that is not finite undoes


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    task: Task,
    learning_rate: optax.Schedule,
    total_steps: int,
    freeze: tuple[str, ...] = (),
    seed: int = 0,
    microbatches: int = 1,
    batch_norm_groups: int = 1,
    ema_decay: float = 0.0,
    mesh: Mesh | None = None,
) -> tuple[Variables, StepReport]:
    """One update of every parameter that the optimizer has, of every statistic that is not frozen and random counter.

    With averaged weights E = `variables["ema"]` and t updates before, E ← d·E + (1 - d)·w, where
    d = min(`ema_decay`, (1 + t) / (10 + t)). With a loss scale, a step whose gradients are not finite changes nothing
    but statistics, counters and the scale.

    Args:
        state: before the step.
        batch: of the task.
        task: the run's.
        learning_rate: the schedule inside the optimizer, here only to be reported.
        total_steps: of the run.
        freeze: a module with a statistic that one of these patterns matches is in evaluation mode.
        seed: of what the task draws for a batch.
        microbatches: parts of the batch that are computed one after the other.
        batch_norm_groups: parts of each of them, with statistics of their own.
        ema_decay: the most that d is.
        mesh: the devices, where they share more than the batch.
    """
    nodes = state.nodes()
    model, optimizer = nodes["model"], nodes["optimizer"]
    model.train()
    stop_statistics(model, freeze)
    step = optimizer.step[...]
    scale = state.variables.get("loss_scale")
    batch = task.augmented(batch, jax.random.fold_in(jax.random.key(seed), step))
    progress = step / total_steps
    with statistics_of_groups(batch_norm_groups), training_progress(progress), _images_placed(mesh):
        metrics, gradients = loss_and_gradients(
            model,
            optimizer.wrt,
            batch,
            task=task,
            progress=progress,
            scale=scale and scale["scale"],
            microbatches=microbatches,
            gathered=lambda parameters: _sharded(parameters, mesh, fsdp=False),
        )
    gradients = _sharded(gradients, mesh, fsdp=True)
    squares = squared_norms(
        jax.tree.leaves(gradients), whole=mesh is None or mesh.shape["fsdp"] * mesh.shape["tensor"] == 1
    )
    report = StepReport(
        loss=metrics.loss,
        metric=metrics.metric,
        learning_rate=jnp.asarray(learning_rate(step)),
        gradient_squares=squares,
        invalid=metrics.invalid,
        losses=dict(metrics.losses),
    )
    with_statistics = nnx.to_pure_dict(nnx.state(nodes))
    optimizer.update(model, gradients)
    variables, finite = nnx.to_pure_dict(nnx.state(nodes)), jnp.bool(True)
    if scale is not None:
        finite = jnp.isfinite(squares).all()
        variables = jax.tree.map(lambda new, old: jnp.where(finite, new, old), variables, with_statistics)
        variables["loss_scale"] = next_loss_scale(scale, finite)
        report = report._replace(loss_scale=variables["loss_scale"]["scale"])
    if "ema" in state.variables:
        decay = jnp.where(finite, jnp.minimum(ema_decay, (1 + step) / (10 + step)), 1)
        variables["ema"] = jax.tree.map(
            lambda mean, new: decay.astype(mean.dtype) * mean + (1 - decay).astype(mean.dtype) * new,
            state.variables["ema"],
            floating(variables["model"]),
        )
    return variables, report


def eval_step(state: ModelState, batch: Batch, *, task: Task, mesh: Mesh | None = None) -> Any:
    """The task's sums over the real examples of an evaluation batch. Padding counts for nothing."""
    with _images_placed(mesh):
        return task.eval_sums(eval_model(state), batch)


def predict_step(state: ModelState, batch: Batch, *, task: Task, mesh: Mesh | None = None) -> Any:
    """The task's predictions for a batch."""
    with _images_placed(mesh):
        return task.predict(eval_model(state), batch)


def compile_train_step(
    recipe: Recipe,
    info: DataInfo,
    plan: StepPlan,
    mesh: Mesh,
    abstract: TrainState,
    learning_rate: optax.Schedule,
    normalize: ChannelStatistics | None = None,
) -> Callable[[Variables, Batch], tuple[Variables, StepReport]]:
    """`(variables, batch) -> (variables, report)`; the memory of the old variables holds the new ones.

    Compiled for every shape of the task's batches. With `normalize` their images are uint8, and the step normalises
    them."""

    def step(variables: Variables, batch: Batch) -> tuple[Variables, StepReport]:
        state = TrainState(abstract.structure, variables)
        if normalize is not None:
            batch = {**batch, "image": normalized(batch["image"], normalize)}
        return train_step(
            state,
            batch,
            task=recipe.task,
            learning_rate=learning_rate,
            total_steps=plan.total_steps,
            freeze=recipe.freeze,
            seed=recipe.seed,
            microbatches=recipe.microbatches,
            batch_norm_groups=recipe.batch_norm_groups,
            ema_decay=recipe.ema_decay,
            mesh=_with_more(mesh),
        )

    kept = jax.tree.map(lambda leaf: leaf.sharding, abstract.variables)
    program = jax.jit(
        step,
        donate_argnums=0,
        out_shardings=(kept, replicated(mesh)),
        compiler_options=compiler_options(mesh),
    )

    def compile_for(batch: AbstractBatch) -> Callable[[Variables, Batch], tuple[Variables, StepReport]]:
        if normalize is not None:
            batch = {**batch, "image": batch["image"].update(dtype=jnp.uint8)}
        with wrong_options(recipe):
            lowered = program.lower(abstract.variables, batch)
        return lowered.compile()

    return compile_each(compile_for, abstract_batches(recipe.task, info, mesh, recipe.batch_size, training=True))


def compile_eval_step(
    task: Task, info: DataInfo, mesh: Mesh, abstract: ModelState, batch_size: int
) -> Callable[[Variables, Batch], Any]:
    """`(model's variables, batch) -> sums`, or results of each example, split over the devices as the batch is."""

    def step(variables: Variables, batch: Batch) -> Any:
        return eval_step(ModelState(abstract.structure, variables), batch, task=task, mesh=_with_more(mesh))

    shardings = batch_split(mesh) if task.per_example else replicated(mesh)
    program = jax.jit(step, out_shardings=shardings, compiler_options=compiler_options(mesh))
    batches = abstract_batches(task, info, mesh, batch_size, training=False)
    return compile_each(lambda batch: program.lower(abstract.variables, batch).compile(), batches)


def jit_predict(task: Task, mesh: Mesh, abstract: ModelState) -> Callable[[Variables, Batch], Any]:
    """`(model's variables, batch) -> predictions`, whole on every device; compiled at the first call."""

    def step(variables: Variables, batch: Batch) -> Any:
        return predict_step(ModelState(abstract.structure, variables), batch, task=task, mesh=_with_more(mesh))

    return jax.jit(step, out_shardings=replicated(mesh), compiler_options=compiler_options(mesh))


def _with_more(mesh: Mesh) -> Mesh | None:
    """The mesh whose devices share more than the batch; None where XLA needs no more than the batch's sharding."""
    return mesh if batch_shares(mesh) < mesh.size or mesh.shape["fsdp"] > 1 else None


@contextlib.contextmanager
def _images_placed(mesh: Mesh | None) -> Iterator[None]:
    """Within it feature maps are divided over the batch and, where `mesh.height` is more than 1, over their rows."""
    if mesh is None:
        yield
        return
    split = rows_split(mesh)
    with feature_maps_placed(lambda x: jax.lax.with_sharding_constraint(x, split)), height_split(split):
        yield


def _sharded(parameters: Any, mesh: Mesh | None, *, fsdp: bool) -> Any:
    """Parameters or their gradients, a state of Flax, as they are kept or, without `fsdp`, as they are used."""
    if mesh is None:
        return parameters
    leaves = jax.tree.leaves(shardings(nnx.to_pure_dict(parameters), mesh, fsdp=fsdp))
    return jax.tree.unflatten(
        jax.tree.structure(parameters),
        [jax.lax.with_sharding_constraint(*pair) for pair in zip(jax.tree.leaves(parameters), leaves, strict=True)],
    )
