"""`train`: one recipe from its first step, or from where an earlier launch ended, to its summary."""

import contextlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ddf_jax.data.pipeline import eval_batches, train_iterator
from ddf_jax.data.sources import DataInfo, describe
from ddf_jax.files import write_atomically
from ddf_jax.training.batches import device_batches
from ddf_jax.training.clock import Clock
from ddf_jax.training.errors import NonFiniteError, StoppedError
from ddf_jax.training.finite import check_variables
from ddf_jax.training.inflight import InFlight
from ddf_jax.training.mesh import Devices, check_batch_size, data_mesh, global_batch, replicated
from ddf_jax.training.metrics import evaluate_batches
from ddf_jax.training.plots import draw_curves
from ddf_jax.training.programs import answer_program, compile_eval_step, compile_train_step
from ddf_jax.training.recipe import Recipe
from ddf_jax.training.reporter import Reporter
from ddf_jax.training.run_folder import RunFolder
from ddf_jax.training.run_state import RunCheckpoints, RunState
from ddf_jax.training.schedules import learning_rate_schedule, make_optimizer, make_plan
from ddf_jax.training.signals import StopRequest
from ddf_jax.training.state import abstract_state, initial_variables, model_part, parameter_sizes
from ddf_jax.training.step import StepReport
from ddf_jax.training.summary import summarize
from ddf_jax.training.tasks import task_of
from ddf_jax.training.writers import read_metrics, say


def train(recipe: Recipe, workdir: Path | str, *, devices: Devices | None = None) -> dict[str, Any]:
    """Trains and evaluates a recipe in the folder `workdir`, and returns what it writes to `summary.json` there.

    A folder that holds an unfinished run of the same recipe is gone on with: parameters, statistics, momenta, random
    counters, the order of the data and the metrics end as if nothing had happened, to the last bit on devices of the
    same kind and number (on GPUs with `XLA_FLAGS=--xla_gpu_deterministic_ops=true`). A finished run is reported again,
    not trained again.

    Args:
        devices: the devices to train on; default: all devices of all processes.

    Raises:
        RunError: the run cannot start or go on; its subclasses are `NonFiniteError` (the last good checkpoint stays)
            and `StoppedError` (Ctrl-C or SIGTERM: saved, and the same call goes on).
    """
    folder = RunFolder(Path(workdir))
    summary = folder.finished(recipe)
    if summary is not None:
        say(
            f"{folder.path} is done: {task_of(recipe).headline(summary)} after {summary['steps']} steps. "
            f"To train again, remove the folder or choose another --workdir."
        )
        return summary
    clock = Clock()
    mesh = data_mesh(devices)
    check_batch_size(recipe.batch_size, mesh)
    info = describe(recipe.data)
    with StopRequest(mesh) as stop, contextlib.ExitStack() as stack:
        return _Launch(recipe, folder, info, mesh, clock, stop, stack).run()


class _Launch:
    """One launch of a run in one process: what it is made of, and the loop.

    Args:
        stack: closes what the launch opens, however it ends.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        info: DataInfo,
        mesh: Mesh,
        clock: Clock,
        stop: StopRequest,
        stack: contextlib.ExitStack,
    ) -> None:
        self.recipe, self.folder, self.mesh, self.clock, self.stop = recipe, folder, mesh, clock, stop
        self.task = task_of(recipe)
        self.plan = make_plan(recipe, info)
        self.share = {
            "batch_size": recipe.batch_size,
            "process_index": jax.process_index(),
            "process_count": jax.process_count(),
        }
        data = stack.enter_context(contextlib.closing(train_iterator(recipe.data, seed=recipe.seed, **self.share)))
        learning_rate = learning_rate_schedule(recipe.optimizer, self.plan, recipe.batch_size)
        tx = make_optimizer(recipe.optimizer, learning_rate)
        abstract = abstract_state(recipe, info, tx, replicated(mesh))
        self.parameters = parameter_sizes(abstract)

        if jax.process_index() == 0:  # only now, so that a recipe that cannot run leaves no folder behind
            folder.create()
        self.checkpoints = RunCheckpoints(folder, recipe, info)
        state = self.checkpoints.restore(abstract.variables, clock)
        if state is None:
            state = RunState(0, initial_variables(recipe, info, tx, replicated(mesh)), data.get_state())
        else:
            say(f"Going on with {folder.path} from step {state.step} of {self.plan.total_steps}.")
            data.set_state(state.data)
        self.state = state
        self.batches = device_batches(data, mesh)
        self.train_step = compile_train_step(recipe, info, mesh, abstract, learning_rate)
        self.eval_step = compile_eval_step(recipe, info, mesh, model_part(abstract), recipe.batch_size)
        self.answer = answer_program(recipe, mesh, model_part(abstract))

        if jax.process_index() == 0:
            folder.write_recipe(recipe)
        reporter = Reporter(
            folder,
            recipe,
            clock,
            state.step,
            epoch_steps=info.train_size / recipe.batch_size,
            total_steps=self.plan.total_steps,
            parameter_names=list(self.parameters),
        )
        self.reporter = stack.enter_context(contextlib.closing(reporter))

    def run(self) -> dict[str, Any]:
        """Trains, evaluates and saves as planned, until the end or a signal."""
        try:
            return self._run()
        except NonFiniteError as error:
            saved = self.state.saved_step
            kept = "No checkpoint was written." if saved is None else f"The checkpoint of step {saved} stays."
            raise NonFiniteError(f"{error} {kept}") from None

    def _run(self) -> dict[str, Any]:
        state, plan = self.state, self.plan
        try:
            while True:
                if plan.evaluates_at(state.step) and state.evaluated_step != state.step:
                    self._evaluate()
                if plan.saves_at(state.step):
                    self._save()
                if state.step == plan.total_steps:
                    return self._finish()
                self._train_until(plan.next_pause(state.step))
        except _StopAskedError:
            self._save()
            raise StoppedError(
                f"Stopped at step {state.step} of {plan.total_steps}, saved in {self.folder.path}. "
                f"The same command goes on from there."
            ) from None

    def _train_until(self, end: int) -> None:
        """Starts steps up to `end`, reads each one's report a few steps later, and waits for the last."""
        state, in_flight, stopping = self.state, InFlight[StepReport](), self.stop.poll()
        with self.clock.training():
            while state.step < end and not stopping:
                batch = next(self.batches)
                with jax.transfer_guard("disallow"):  # nothing moves between host and devices unnoticed
                    state.variables, report = self.train_step(state.variables, batch.arrays)
                state.step, state.data = state.step + 1, batch.state_after
                self.reporter.steps(in_flight.push(report))
                stopping = self.stop.poll()
            self.reporter.steps(in_flight.drain())
        if stopping:
            raise _StopAskedError

    def _evaluate(self) -> None:
        state = self.state
        with contextlib.closing(eval_batches(self.recipe.data, **self.share)) as batches:
            scores = evaluate_batches(
                self.eval_step,
                state.variables["model"],
                batches,
                self.mesh,
                task=self.task,
                should_stop=self.stop.poll,
            )
        if scores is None:
            raise _StopAskedError
        state.evaluation, state.evaluated_step = scores, state.step
        self.reporter.evaluation(scores)
        self._draw()

    def _draw(self) -> None:
        """A picture of the model's answers to the first evaluation batch, where the task has one."""
        if not self.task.draws:
            return
        with contextlib.closing(eval_batches(self.recipe.data, **self.share)) as batches:
            batch = next(batches)
        answer = self.answer(self.state.variables["model"], global_batch(batch, self.mesh))
        if jax.process_index() == 0:
            self.folder.pictures.mkdir(exist_ok=True)
            picture = self.task.draw(batch, np.asarray(answer))
            write_atomically(self.folder.pictures / f"{self.state.step:06d}.png", picture)

    def _save(self) -> None:
        check_variables(self.state.step, self.state.variables)
        self.checkpoints.save(self.state, self.clock)

    def _finish(self) -> dict[str, Any]:
        summary = summarize(self.recipe, self.state, self.clock, sum(self.parameters.values()), self.mesh)
        if jax.process_index() == 0:
            draw_curves(
                read_metrics(self.folder.path), self.folder.curves, title=self.recipe.name, quality=self.task.quality
            )
            self.folder.write_summary(summary)
        return summary


class _StopAskedError(Exception):
    """A signal asks the loop to end here."""
