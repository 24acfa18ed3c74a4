"""`train`: one recipe from its first step, or from where an earlier launch ended, to its summary."""

import contextlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import jax

from ddf_jax.data.fingerprint import fingerprint
from ddf_jax.data.pipeline import train_iterator
from ddf_jax.data.sources import describe
from ddf_jax.errors import DataError, DiskError, NonFiniteError, RunError, StoppedError, one_line
from ddf_jax.training.checkpoint import Checkpoints
from ddf_jax.training.devices import Devices, InFlight, check_batch_size, device_batches, make_mesh
from ddf_jax.training.evaluator import Evaluator
from ddf_jax.training.initial_weights import check_init_from, initialize_from
from ddf_jax.training.metrics import draw_curves, ornament, read_metrics
from ddf_jax.training.optimizers import make_optimizer
from ddf_jax.training.processes import (
    StopRequest,
    check_same_in_all_processes,
    ending_together,
    wait_for_all_processes,
    wait_for_blame,
)
from ddf_jax.training.profiling import ProfilerWindow
from ddf_jax.training.recipe import Recipe, check_fields, recipe_file_record, recipe_key
from ddf_jax.training.reporting import Reporter, RunTimer, check_variables, log_info, rescue, summarize
from ddf_jax.training.resume import RunFacts, RunState, Saver, Start, event, find_start, restore_run
from ddf_jax.training.retention import Retention, Score
from ddf_jax.training.schedules import check_warmup, learning_rate_schedule, make_step_plan
from ddf_jax.training.state import abstract_state, initial_variables, parameter_sizes, trained_parameters
from ddf_jax.training.step import StepReport, compile_eval_step, compile_train_step, jit_predict
from ddf_jax.training.tasks import summary_line
from ddf_jax.training.trackers import check_trackers
from ddf_jax.training.workdir import RunFolder, RunLock, environment, versions


@ending_together()
def train(
    recipe: Recipe,
    workdir: Path | str,
    *,
    devices: Devices | None = None,
    resume_from_step: int | None = None,
    allow_change: Collection[str] = (),
    recipe_file: Path | str | None = None,
    profile: int = 0,
) -> dict[str, Any]:
    """Trains and evaluates a recipe in the folder `workdir`, and returns what it writes to `summary.json` there.

    A folder that holds an unfinished run of the same recipe is resumed: parameters, statistics, momenta, random
    counters, the order of the data and the metrics end as if nothing had happened, to the last bit on devices of the
    same kind and number (on GPUs with `XLA_FLAGS=--xla_gpu_deterministic_ops=true`). A finished run is reported again,
    not trained again.

    Args:
        recipe: the run.
        workdir: the run's folder, `runs/<name>` by convention.
        devices: the devices to train on; default: all devices of all processes.
        resume_from_step: the checkpoint to go back to. What came after it stays in the folder, under other names.
        allow_change: fields in which the recipe may differ from the run's so far, such as `optimizer.learning_rate`;
            with `epochs` a finished run is trained on. The run's history records them.
        recipe_file: the Python file that defines the recipe and registers its model, where it does: `load_run` executes
            it again.
        profile: steps of this launch to record with JAX's profiler, after its first ten, in the folder `profile`.

    Raises:
        RunError: the run cannot start or be resumed, or another launch trains in this folder; its subclasses are
            `NonFiniteError` (the last good checkpoint stays) and `StoppedError` (Ctrl-C or SIGTERM: saved, and the
            same call resumes it).
    """
    folder = RunFolder(Path(workdir))
    allowed = {name.replace("-", "_") for name in allow_change}
    check_fields(allowed)
    check_same_in_all_processes(
        {
            "recipe": recipe_key(recipe),
            "step and fields to resume with": f"{resume_from_step} {sorted(allowed)}",
            "versions": str(versions()),
            "number of devices": str(jax.local_device_count()),
        }
    )
    checkpoints = Checkpoints(folder.checkpoints)

    def start() -> Start | None:
        return find_start(checkpoints, folder.path, recipe, from_step=resume_from_step, allow_change=allowed)

    with RunLock(folder.path) as lock:
        lock.acquire()
        if (summary := folder.summary(recipe.task)) is not None:
            found = start()
            if found is None:
                raise RunError(
                    f"The run in {folder.path} is finished, but its checkpoints are gone. Put them back, remove the "
                    f"folder to train again, or choose another --workdir."
                )
            if found.step == summary["steps"] and not found.changes:
                log_info(
                    f"{folder.path} is done: {summary_line(recipe.task, summary)} after {found.step} steps. To train "
                    f"on, raise the epochs: --epochs N --allow-change epochs. To train again, remove the folder or "
                    f"choose another --workdir."
                )
                return summary
        file = None if recipe_file is None else recipe_file_record(recipe_file)
        return _train(recipe, folder, checkpoints, start, lock, devices, file, profile)


def _train(
    recipe: Recipe,
    folder: RunFolder,
    checkpoints: Checkpoints,
    start: Callable[[], Start | None],
    lock: RunLock,
    devices: Devices | None,
    recipe_file: dict[str, str] | None,
    profile: int,
) -> dict[str, Any]:
    task, is_main = recipe.task, jax.process_index() == 0
    task.check(training=True)
    check_trackers(recipe.trackers)
    check_warmup(recipe)

    # Devices and data.
    timer = RunTimer()
    mesh = make_mesh(recipe.mesh, devices)
    check_batch_size(recipe.batch_size, mesh, recipe.microbatches)
    if is_new := checkpoints.newest() is None:
        check_init_from(recipe)
    examples = task.examples()
    info = describe(recipe.data, examples)
    share = {
        "batch_size": recipe.batch_size,
        "process_index": jax.process_index(),
        "process_count": jax.process_count(),
    }

    with StopRequest(mesh, save_minutes=recipe.checkpoint_minutes) as stop, contextlib.ExitStack() as stack:
        iterator = train_iterator(recipe.data, examples, seed=recipe.seed, normalized=False, **share)
        data = stack.enter_context(contextlib.closing(iterator))

        # Model and optimizer, without arrays so far.
        plan = make_step_plan(recipe, info)
        learning_rate = learning_rate_schedule(recipe.optimizer, plan, recipe.batch_size)
        tx = make_optimizer(recipe.optimizer, learning_rate)
        abstract = abstract_state(recipe, info, tx, mesh)
        abstract_model = abstract.model()
        parameters = parameter_sizes(abstract)

        # The state: of the newest checkpoint, or initial. A recipe that cannot run leaves no folder behind.
        initial, history = None, []
        if recipe.init_from is not None and is_new:
            initial, source = initialize_from(recipe, initial_variables(recipe, info, tx, abstract))
            history = [event(0, initialized=source)]
        if is_main:
            folder.create()
        lock.acquire()
        facts, found = RunFacts(recipe, info, fingerprint(recipe.data, examples), recipe_file), start()
        check_same_in_all_processes({"data": f"{info} {facts.fingerprint}"})
        if found is not None:
            if found.step > plan.total_steps:
                raise RunError(
                    f"The run in {folder.path} is at step {found.step} already, but `epochs` {recipe.epochs} are "
                    f"{plan.total_steps} steps. Raise `epochs`, or go back with --resume-from-step."
                )
            state, times = restore_run(checkpoints, folder.path, found, facts, abstract.variables)
            data.set_state(state.data)
            timer.add_earlier(**times)
            under = f", with {'; '.join(found.changes)}" if found.changes else ""
            log_info(f"Resuming {folder.path} from step {state.step} of {plan.total_steps}{under}.")
        else:
            initial = initial or initial_variables(recipe, info, tx, abstract)
            state = RunState(0, initial, data.get_state(), history=history)
        batches = stack.enter_context(contextlib.closing(device_batches(data, mesh)))

        # Programs, compiled before the first step so that their shapes and memory are known to fit.
        log_info(
            f"Compiling {recipe.model.name}, {sum(parameters.values()):,} parameters, for {mesh.size} × "
            f"{mesh.devices.flat[0].platform}, to train from step {state.step} to {plan.total_steps}; "
            "Ctrl-C stops when this is done."
        )
        train_step = compile_train_step(recipe, info, plan, mesh, abstract, learning_rate, data.normalize)
        eval_step = compile_eval_step(task, info, mesh, abstract_model, recipe.batch_size)
        predict_step = jit_predict(task, mesh, abstract_model)
        wait_for_all_processes()

        # Reports.
        if is_main:
            folder.begin(recipe)
        reporter = Reporter(
            folder.path,
            recipe,
            timer,
            state.step,
            epoch_steps=plan.epoch_steps,
            total_steps=plan.total_steps,
            parameter_names=trained_parameters(abstract),
        )
        stack.enter_context(contextlib.closing(reporter))
        window = stack.enter_context(ProfilerWindow(folder.path / "profile", profile))
        evaluator = Evaluator(recipe, info, folder, mesh, share, eval_step, predict_step)

        retention = Retention(
            newest=recipe.keep_checkpoints,
            every=recipe.keep_every * plan.epoch_steps,
            best=recipe.keep_best,
            score=Score.of(task, averaged=recipe.ema_decay > 0),
        )
        saver = Saver(checkpoints, retention, facts, found and found.step)
        stack.callback(saver.close)

        def save() -> None:
            check_variables(state.step, state.variables)
            reporter.sync()
            saver.save(state, {"seconds": timer.seconds, "training_seconds": timer.training_seconds})
            stop.saved()

        stopping, in_flight = False, InFlight[StepReport]()
        try:
            while not stopping:
                # Evaluate.
                if plan.evaluates_at(state.step) and state.evaluated_step != state.step:
                    scores = evaluator(state.variables, state.step, stop.poll)
                    if scores is None:
                        stopping = True
                        break
                    state.evaluation, state.evaluated_step = scores, state.step
                    reporter.evaluation(scores)
                    evaluator.draw(state.variables, state.step)

                # Save, and end after the last step.
                if plan.saves_at(state.step) or stop.save_due:
                    save()
                if state.step == plan.total_steps:
                    break

                # Train up to the next pause, the host a few steps ahead of the devices.
                end, stopping = plan.next_pause(state.step), stop.poll()
                with timer.training():
                    while state.step < end and not stopping and not stop.save_due:
                        saver.check()
                        window.before_step(lambda: reporter.steps(in_flight.drain()))
                        with reporter.times.part("input"):
                            batch = next(batches)
                        with reporter.times.part("devices"):
                            with jax.transfer_guard("disallow"):  # nothing moves between host and devices unnoticed
                                state.variables, report = train_step(state.variables, batch.arrays)
                            reports = in_flight.push(report)
                        state.step, state.data = state.step + 1, batch.state_after
                        with reporter.times.part("log"):
                            reporter.steps(reports)
                        stopping = stop.poll()
                    reporter.steps(in_flight.drain())

            if stopping:
                save()
            saver.wait()
            if stopping:
                raise StoppedError(
                    f"Stopped at step {state.step} of {plan.total_steps}, saved in {folder.path}. "
                    f"The same command resumes it."
                )
        except NonFiniteError as error:
            with contextlib.suppress(RunError):
                saver.wait()
            raise NonFiniteError(f"{error} {rescue(recipe, folder.path, saver.saved_step)}") from None
        except StoppedError:
            raise
        except Exception as error:
            wait_for_blame(error)
            # The data, a file or a disk failed: what was computed is good, and is kept where it can be.
            if jax.process_count() == 1:
                with contextlib.suppress(Exception):
                    with timer.training():
                        reporter.steps(in_flight.drain())
                    save()
                    saver.wait()
            if saver.saved_step == state.step:
                kept = f"Step {state.step} is saved; the same command resumes from there."
            else:
                kept = f"The same command resumes from step {saver.saved_step or 0}."
            if isinstance(error, DataError):
                raise DataError(f"Stopped at step {state.step}: {error} {kept}") from error
            if isinstance(error, OSError):
                raise DiskError(f"Stopped at step {state.step}: {one_line(error)}. {kept}") from error
            log_info(kept)
            raise

    summary = summarize(recipe, state, timer, sum(parameters.values())) | environment(mesh)
    if is_main:
        with ornament("Cannot draw the curves"):
            draw_curves(read_metrics(folder.path), folder.curves, title=recipe.name, metric=task.metric)
        folder.write_summary(summary)
    return summary
