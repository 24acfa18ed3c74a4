"""`train`: one recipe from its first step, or from where an earlier launch ended, to its summary."""

import contextlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ddf_jax.data.pipeline import eval_batches, train_iterator
from ddf_jax.data.sources import describe
from ddf_jax.errors import NonFiniteError, RunError, StoppedError, one_line
from ddf_jax.training.checkpoint import Checkpoints
from ddf_jax.training.devices import (
    Devices,
    InFlight,
    check_batch_size,
    data_mesh,
    device_batches,
    global_batch,
    replicated,
)
from ddf_jax.training.evaluate import evaluate_batches
from ddf_jax.training.processes import StopRequest, check_same_in_all_processes
from ddf_jax.training.recipe import Recipe, recipe_key
from ddf_jax.training.reporting import (
    Reporter,
    RunTimer,
    check_variables,
    draw_curves,
    log_info,
    ornament,
    read_metrics,
)
from ddf_jax.training.resume import RunState, restore_run, save_run
from ddf_jax.training.schedules import learning_rate_schedule, make_optimizer, make_step_plan
from ddf_jax.training.step import (
    StepReport,
    abstract_state,
    compile_eval_step,
    compile_train_step,
    initial_variables,
    jit_predict,
    parameter_sizes,
)
from ddf_jax.training.tasks import DrawsPicture
from ddf_jax.training.workdir import RunFolder, RunLock, environment, versions


def train(recipe: Recipe, workdir: Path | str, *, devices: Devices | None = None) -> dict[str, Any]:
    """Trains and evaluates a recipe in the folder `workdir`, and returns what it writes to `summary.json` there.

    A folder that holds an unfinished run of the same recipe is resumed: parameters, statistics, momenta, random
    counters, the order of the data and the metrics end as if nothing had happened, to the last bit on devices of the
    same kind and number (on GPUs with `XLA_FLAGS=--xla_gpu_deterministic_ops=true`). A finished run is reported again,
    not trained again.

    Args:
        recipe: the run.
        workdir: the run's folder, `runs/<name>` by convention.
        devices: the devices to train on; default: all devices of all processes.

    Raises:
        RunError: the run cannot start or be resumed, or another launch trains in this folder; its subclasses are
            `NonFiniteError` (the last good checkpoint stays) and `StoppedError` (Ctrl-C or SIGTERM: saved, and the
            same call resumes it).
    """
    folder = RunFolder(Path(workdir))
    check_same_in_all_processes(
        {"recipe": recipe_key(recipe), "versions": str(versions()), "number of devices": str(jax.local_device_count())}
    )
    checkpoints = Checkpoints(folder.checkpoints, keep=recipe.keep_checkpoints)
    with RunLock(folder.path) as lock:
        lock.acquire()
        if (summary := folder.finished(recipe)) is not None:
            newest = checkpoints.newest()
            if newest is None:
                raise RunError(
                    f"The run in {folder.path} is finished, but its checkpoints are gone. Put them back, remove the "
                    f"folder to train again, or choose another --workdir."
                )
            if newest == summary["steps"]:
                log_info(
                    f"{folder.path} is done: {recipe.task.summary_line(summary)} after {newest} steps. "
                    f"To train again, remove the folder or choose another --workdir."
                )
                return summary
        return _train(recipe, folder, checkpoints, lock, devices)


def _train(
    recipe: Recipe, folder: RunFolder, checkpoints: Checkpoints, lock: RunLock, devices: Devices | None
) -> dict[str, Any]:
    task, is_main = recipe.task, jax.process_index() == 0

    # Devices and data.
    timer = RunTimer()
    mesh = data_mesh(devices)
    check_batch_size(recipe.batch_size, mesh)
    examples = task.examples()
    info = describe(recipe.data, examples)
    share = {
        "batch_size": recipe.batch_size,
        "process_index": jax.process_index(),
        "process_count": jax.process_count(),
    }

    with StopRequest(mesh) as stop, contextlib.ExitStack() as stack:
        data = stack.enter_context(contextlib.closing(train_iterator(recipe.data, examples, seed=recipe.seed, **share)))

        # Model and optimizer, without arrays so far.
        plan = make_step_plan(recipe, info)
        learning_rate = learning_rate_schedule(recipe.optimizer, plan, recipe.batch_size)
        tx = make_optimizer(recipe.optimizer, learning_rate)
        abstract = abstract_state(recipe, info, tx, replicated(mesh))
        abstract_model = abstract.model()
        parameters = parameter_sizes(abstract)

        # The state: of the newest checkpoint, or initial. A recipe that cannot run leaves no folder behind.
        if is_main:
            folder.create()
        lock.acquire()
        check_same_in_all_processes({"data": str(info)})
        restored = restore_run(checkpoints, folder.path, recipe, info, abstract.variables)
        if restored is not None:
            state, times = restored
            data.set_state(state.data)
            timer.add_earlier(**times)
            log_info(f"Resuming {folder.path} from step {state.step} of {plan.total_steps}.")
        else:
            state = RunState(0, initial_variables(recipe, info, tx, replicated(mesh)), data.get_state())
        batches = device_batches(data, mesh)

        # Programs, compiled before the first step so that their shapes and memory are known to fit.
        train_step = compile_train_step(recipe, info, plan, mesh, abstract, learning_rate)
        eval_step = compile_eval_step(task, info, mesh, abstract_model, recipe.batch_size)
        predict_step = jit_predict(task, mesh, abstract_model)

        # Reports.
        if is_main:
            folder.write_recipe(recipe)
        reporter = Reporter(
            folder.path,
            recipe,
            timer,
            state.step,
            epoch_steps=info.train_size / recipe.batch_size,
            total_steps=plan.total_steps,
            parameter_names=list(parameters),
        )
        stack.enter_context(contextlib.closing(reporter))
        draw = task.draw if isinstance(task, DrawsPicture) else None

        def save() -> None:
            check_variables(state.step, state.variables)
            reporter.sync()
            times = {"seconds": timer.seconds, "training_seconds": timer.training_seconds}
            save_run(checkpoints, state, recipe, info, times)

        stopping, in_flight = False, InFlight[StepReport]()
        try:
            while not stopping:
                # Evaluate.
                if plan.evaluates_at(state.step) and state.evaluated_step != state.step:
                    model = state.variables["model"]
                    with contextlib.closing(eval_batches(recipe.data, examples, **share)) as evaluation:
                        scores = evaluate_batches(eval_step, model, evaluation, mesh, task=task, should_stop=stop.poll)
                    if scores is None:
                        stopping = True
                        break
                    state.evaluation, state.evaluated_step = scores, state.step
                    reporter.evaluation(scores)
                    if draw is not None:
                        with contextlib.closing(eval_batches(recipe.data, examples, **share)) as evaluation:
                            batch = next(evaluation)
                        prediction = np.asarray(predict_step(model, global_batch(batch, mesh)))
                        if is_main:
                            with ornament("Cannot draw a picture of the evaluation"):
                                folder.write_picture(state.step, draw(batch, prediction))

                # Save, and end after the last step.
                if plan.saves_at(state.step):
                    save()
                if state.step == plan.total_steps:
                    break

                # Train up to the next pause, the host a few steps ahead of the devices.
                end, stopping = plan.next_pause(state.step), stop.poll()
                with timer.training():
                    while state.step < end and not stopping:
                        batch = next(batches)
                        with jax.transfer_guard("disallow"):  # nothing moves between host and devices unnoticed
                            state.variables, report = train_step(state.variables, batch.arrays)
                        state.step, state.data = state.step + 1, batch.state_after
                        reporter.steps(in_flight.push(report))
                        stopping = stop.poll()
                    reporter.steps(in_flight.drain())

            if stopping:
                save()
                raise StoppedError(
                    f"Stopped at step {state.step} of {plan.total_steps}, saved in {folder.path}. "
                    f"The same command resumes it."
                )
        except NonFiniteError as error:
            saved = state.saved_step
            kept = "No checkpoint was written." if saved is None else f"The checkpoint of step {saved} stays."
            raise NonFiniteError(f"{error} {kept}") from None
        except StoppedError:
            raise
        except Exception as error:
            # The data, a file or a disk failed: what was computed is good, and is kept where it can be.
            kept = f"The same command goes on from step {state.saved_step or 0}."
            if jax.process_count() == 1:
                with contextlib.suppress(Exception):
                    with timer.training():
                        reporter.steps(in_flight.drain())
                    save()
                    kept = f"Step {state.step} is saved; the same command goes on from there."
            if isinstance(error, OSError):
                raise RunError(f"Stopped at step {state.step}: {one_line(error)}. {kept}") from error
            log_info(kept)
            raise

    # Summary: `seconds` is all wall-clock time over all launches, without what a kill undid, `images_per_second` that
    # of training steps alone.
    summary = {
        "name": recipe.name,
        "model": recipe.model.name,
        "dataset": str(recipe.data.folder or recipe.data.dataset),
        "parameters": sum(parameters.values()),
        **(state.evaluation or {}),
        "steps": state.step,
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "dtype": recipe.dtype,
        "seconds": round(timer.seconds, 3),
        "images_per_second": round(state.step * recipe.batch_size / timer.training_seconds, 1),
        **environment(mesh),
    }
    if is_main:
        with ornament("Cannot draw the curves"):
            draw_curves(read_metrics(folder.path), folder.curves, title=recipe.name, metric=task.metric)
        folder.write_summary(summary)
    return summary
