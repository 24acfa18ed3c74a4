"""Files for other runtimes, by converters that others maintain."""

import importlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ddf_jax.errors import UserError
from ddf_jax.files import sync_folder, sync_tree, write_atomically
from ddf_jax.serving.exported import kinds_of
from ddf_jax.serving.exporting import argument_shapes, check_file, program_of
from ddf_jax.serving.services import service_of
from ddf_jax.training.run import Run

Sizes = tuple[int, int] | None


def export_onnx(run: Run, out: Path, *, batch_size: int | None = None, image_size: Sizes = None) -> dict[str, Any]:
    """Writes a network without our operator for ONNX Runtime, by jax2onnx; images are of one size.

    Inputs and outputs have the names of those of `export_run`.

    Raises:
        UserError: the file cannot be written, or jax2onnx cannot convert the network, as it has no rule for our
            operator or another operation.
        ModuleNotFoundError: the extra `onnx` is not installed.
    """
    check_file(out)
    import jax2onnx
    from jax.extend.core import jaxpr_as_fun

    service = service_of(run.recipe.task, run.info, run.recipe.data)
    program, weights = program_of(run.state, service)
    [inputs, *others] = argument_shapes(service, batch_size, image_size or service.size)
    if others:
        raise UserError("A run with `task.upright` has two canvases, and an ONNX file one shape: use stablehlo.")
    names = sorted(inputs)
    # jax2onnx replaces functions of JAX and Flax while it traces, which our layers call in other ways: trace before.
    traced = jax.jit(lambda *arrays: program(weights, dict(zip(names, arrays, strict=True)))).trace(
        *(inputs[name] for name in names)
    )
    outputs = sorted(traced.out_info)
    try:
        model = jax2onnx.to_onnx(
            lambda *arrays: jaxpr_as_fun(traced.jaxpr)(*arrays),
            inputs=[inputs[name] for name in names],
            model_name=run.recipe.name,
            input_names=names,
            output_names=outputs,
        )
    except (NotImplementedError, TypeError, ValueError) as error:
        raise UserError(
            f"An ONNX file needs a network of operations that jax2onnx converts, without our operator, got "
            f"{run.recipe.model.name}: {error}. Use --format stablehlo or savedmodel."
        ) from error
    write_atomically(out, model.SerializeToString())
    return _facts(run, {name: inputs[name] for name in names}, traced.out_info)


def export_saved_model(
    run: Run, out: Path, *, batch_size: int | None = None, image_size: Sizes = None
) -> dict[str, Any]:
    """Writes a folder for TensorFlow, by jax2tf; the operator is XLA's.

    Where a size varies the program is for CPU and CUDA, otherwise for the CPU alone. `serving_default` takes and gives
    the arrays of `export_run` by name.

    Raises:
        UserError: there is something in the place of the folder, or the run has several canvases.
        ModuleNotFoundError: the extra `savedmodel` is not installed.
    """
    if out.exists() or not out.absolute().parent.is_dir():
        raise UserError(f"OUT must be a folder that does not exist yet, in one that does, got {out}.")
    from jax.experimental import jax2tf

    tf: Any = importlib.import_module("tensorflow")
    service = service_of(run.recipe.task, run.info, run.recipe.data)
    program, weights = program_of(run.state, service)
    [inputs, *others] = argument_shapes(service, batch_size, image_size)
    if others:
        raise UserError("A run with `task.upright` has two canvases, and a SavedModel one shape: use stablehlo.")
    free = any(not isinstance(size, int) for of in inputs.values() for size in of.shape)
    module = tf.Module()
    module.weights = {name: tf.Variable(np.asarray(values), name=name) for name, values in weights.items()}
    shapes = {name: f"({', '.join(map(str, of.shape))})" for name, of in inputs.items()}
    convert: Any = jax2tf.convert
    platforms = ("cpu", "cuda") if free else ("cpu",)
    converted = convert(
        program, polymorphic_shapes=[None, shapes], with_gradient=False, native_serialization_platforms=platforms
    )
    signature = {
        name: tf.TensorSpec([size if isinstance(size, int) else None for size in of.shape], of.dtype, name=name)
        for name, of in inputs.items()
    }
    module.predict = tf.function(
        lambda arrays: converted(module.weights, arrays), autograph=False, input_signature=[signature]
    )
    serve = tf.function(lambda **arrays: converted(module.weights, arrays), autograph=False).get_concrete_function(
        **signature
    )
    with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=f".{out.name}.") as folder:
        tf.saved_model.save(module, folder, signatures=serve)
        sync_tree(Path(folder))
        os.umask(mask := os.umask(0))
        Path(folder).chmod(0o777 & ~mask)  # as `mkdir` does; a temporary folder is the user's alone
        Path(folder).rename(out)
        sync_folder(out.absolute().parent)
        Path(folder).mkdir()  # for the context to remove
    return _facts(run, inputs, jax.eval_shape(program, weights, inputs))


CONVERTERS: dict[str, Callable[..., dict[str, Any]]] = {"onnx": export_onnx, "savedmodel": export_saved_model}
"""`(run, out, batch_size=…, image_size=…) -> facts` by the format's name."""


def _facts(run: Run, inputs: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
    program = {"inputs": kinds_of(inputs), "outputs": kinds_of(outputs)}
    return {"name": run.recipe.name, "step": run.step, "model": run.recipe.model.name, "programs": [program]}
