"""Exported files of whole networks against the runs that they are of."""

import json
from typing import Any

import jax
import numpy as np
import pytest

from ddf_jax.data.config import DataConfig
from ddf_jax.data.decode import encode_png
from ddf_jax.data.info import DataInfo
from ddf_jax.data.transforms import Normalize
from ddf_jax.errors import UserError
from ddf_jax.recipes.rooms_mask_rcnn import DDF, DETECTOR
from ddf_jax.serving.conversion import export_onnx, export_saved_model
from ddf_jax.serving.exported import load_exported
from ddf_jax.serving.exporting import argument_shapes, export_run, program_of
from ddf_jax.serving.predictor import open_predictor
from ddf_jax.serving.services import service_of
from ddf_jax.training.recipe import ModelConfig, Recipe
from ddf_jax.training.run import Run
from ddf_jax.training.tasks.classification import Classification
from ddf_jax.training.tasks.depth_upsampling import DepthUpsampling
from ddf_jax.training.tasks.detection import Detection
from tests.ddf_jax.serving.untrained import untrained_run

DEPTH = DataInfo(0, (), 3, train_size=1, eval_size=1, image_size=16, eval_shape=(37, 50))
OBJECTS = DataInfo(3, ("a", "b", "c"), 3, train_size=1, eval_size=1, image_size=64)


def classifier(name: str, size: int, channels: int = 3, **options: Any) -> Run:
    info = DataInfo(10, tuple("0123456789"), channels, train_size=1, eval_size=1, image_size=size)
    images = jax.random.normal(jax.random.key(0), (2, size, size, channels))
    return untrained_run(Recipe("run", ModelConfig(name, options), DataConfig(image_size=size)), info, images)


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def probabilities(run: Run, images: np.ndarray) -> np.ndarray:
    """What the run gives for pixels that need no resizing."""
    normalized = Normalize(run.info.channels).map({"image": images})["image"]
    return np.asarray(run.predict_step(run.state.variables, {"image": normalized}))


def expected(run: Run, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the network gives for the arrays of a program."""
    service = service_of(run.recipe.task, run.info, run.recipe.data)
    program, weights = program_of(run.state, service)
    return jax.device_get(jax.jit(program)(weights, arrays))


def check_equal(found: dict[str, Any], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-6 * max(1.0, np.abs(values).max()))


def test_sizes_that_can_vary_are_symbols_and_the_others_are_fixed():
    classes = service_of(Classification(), OBJECTS, DataConfig())
    depth = service_of(DepthUpsampling(scale=4), DEPTH, DataConfig())
    objects = service_of(Detection(canvas=(64, 96), upright=True), OBJECTS, DataConfig())

    def shapes(service: Any, batch: int | None = None, size: tuple[int, int] | None = None) -> Any:
        return [
            {name: str(of.shape) for name, of in inputs.items()} for inputs in argument_shapes(service, batch, size)
        ]

    assert shapes(classes) == [{"image": "(b, h, w, 3)"}]
    assert shapes(classes, 4, (32, 48)) == [{"image": "(4, 32, 48, 3)"}]
    assert shapes(depth) == [{"image": "(b, 37, 50, 3)", "low": "(b, 10, 13, 1)"}]
    both = [{"image": f"(1, {canvas}, 3)", "size": "(1, 2)"} for canvas in ("64, 96", "96, 64")]
    assert shapes(objects) == shapes(objects, size=(64, 96)) == both
    with pytest.raises(UserError, match=r"must be that of the canvas, \(64, 96\), got \(64, 64\)"):
        shapes(objects, size=(64, 64))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "ddf_resnet50"])
def test_a_network_for_imagenet_predicts_as_its_run_does(name, tmp_path):
    run, images = classifier(name, 224), pixels(2, 224, 224, 3)
    facts = export_run(run, tmp_path / "run.npz")
    assert facts["platforms"] == ["cpu", "cuda"]
    found = load_exported(tmp_path / "run.npz")({"image": images})
    assert np.ptp(found["probabilities"], axis=0).max() > 1e-3  # of the images
    check_equal(found, expected(run, {"image": images}))
    # NumPy normalises the run's own input, and fifty random layers amplify its last bits.
    np.testing.assert_allclose(found["probabilities"], probabilities(run, images), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_fixed_sizes_bring_the_gpu_kernels_into_the_file_and_it_still_runs_on_a_cpu(tmp_path):
    run = classifier("ddf_resnet18", 32, stem="small", width=16, blocks=(1, 1))
    [kernels] = export_run(run, tmp_path / "run.npz", batch_size=2, image_size=(32, 32))["programs"]
    assert kernels["kernels"]
    arrays = {"image": pixels(2, 32, 32, 3)}
    check_equal(load_exported(tmp_path / "run.npz")(arrays), expected(run, arrays))
    with pytest.raises(ValueError, match=r"must be image uint8 \[2, 32, 32, 3\]"):
        load_exported(tmp_path / "run.npz")({"image": pixels(3, 32, 32, 3)})
    [free] = export_run(run, tmp_path / "run.npz", platforms=["cuda"])["programs"]
    assert not free["kernels"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["djf", "ddf_up_net", "dmsg", "pac_net"])
def test_a_network_for_depth_predicts_as_its_run_does(name, tmp_path):
    recipe = Recipe("run", ModelConfig(name), task=DepthUpsampling(scale=4))
    run = untrained_run(recipe, DEPTH)
    export_run(run, tmp_path / "run.npz", platforms=["cpu"])
    low = np.random.default_rng(1).uniform(1, 3, (2, 10, 13, 1)).astype(np.float32)
    low[0, 3] = 0
    arrays = {"image": pixels(2, 37, 50, 3), "low": low}
    check_equal(load_exported(tmp_path / "run.npz")(arrays), expected(run, arrays))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mask_rcnn_ddf_resnet50", "retinanet_resnet50", "panoptic_fpn_resnet50"])
def test_a_detector_predicts_as_its_run_does(model, tmp_path):
    options = {"backbone": "resnet18"} if model.startswith("retinanet") else DETECTOR | DDF
    recipe = Recipe("run", ModelConfig(model, options), task=Detection(canvas=(64, 96)))
    run = untrained_run(recipe, OBJECTS)
    export_run(run, tmp_path / "run.npz", platforms=["cpu"], batch_size=2)
    arrays = {"image": pixels(2, 64, 96, 3), "size": np.array([[64, 80], [50, 96]], np.int32)}
    check_equal(load_exported(tmp_path / "run.npz")(arrays), expected(run, arrays))
    # A server fills its batches.
    service = open_predictor(tmp_path / "run.npz")
    example = service.service.read({"image": encode_png(pixels(60, 90, 3)).getvalue()})
    [outputs] = service([example])
    [row] = service.service.answer("a", outputs, example)
    json.dumps(row, allow_nan=False)
    assert row["image"] == "a"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "ddf_resnet18"])
def test_tensorflow_predicts_as_the_run_does(name, tmp_path):
    tf = pytest.importorskip("tensorflow")
    run, images = classifier(name, 16, stem="small", width=16, blocks=(1, 1)), pixels(3, 16, 16, 3)
    export_saved_model(run, tmp_path / "saved")
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    found = loaded.signatures["serving_default"](image=tf.constant(images))["probabilities"].numpy()
    np.testing.assert_allclose(found, probabilities(run, images), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_onnx_runtime_predicts_as_the_run_does(tmp_path):
    pytest.importorskip("jax2onnx")
    runtime = pytest.importorskip("onnxruntime")
    run, images = classifier("resnet18", 16, stem="small", width=16, blocks=(1, 1)), pixels(3, 16, 16, 3)
    export_onnx(run, tmp_path / "run.onnx")
    [found] = runtime.InferenceSession(str(tmp_path / "run.onnx")).run(None, {"image": images})
    np.testing.assert_allclose(found, probabilities(run, images), rtol=0, atol=1e-6)
