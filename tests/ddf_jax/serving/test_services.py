"""Files to arrays and predictions to JSON, as the commands and the evaluation have them; no network is compiled."""

import base64
import io
import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ddf_jax.data.config import DataConfig
from ddf_jax.data.decode import decode_depth, encode_depth, encode_png
from ddf_jax.data.info import DataInfo
from ddf_jax.errors import UserError
from ddf_jax.serving.services import service_of
from ddf_jax.serving.services.detection import detection_row
from ddf_jax.training.detect import detect
from ddf_jax.training.tasks.depth_upsampling import DepthUpsampling
from ddf_jax.training.tasks.detection import Detection
from tests.ddf_jax.training.bright_rectangles import (
    CANVAS,
    INFO,
    find_rectangles,
    panoptic,
    rectangle_image,
    rectangle_run,
)


def content(url: str) -> bytes:
    return base64.b64decode(url.removeprefix("data:image/png;base64,"))


@pytest.mark.parametrize("task", [Detection(canvas=CANVAS, masks=True), Detection(canvas=CANVAS), panoptic()])
def test_a_detector_sees_and_answers_what_ddf_detect_does(task):
    image = rectangle_image(90, 200, (40, 20, 90, 60))
    run = rectangle_run(task)
    [expected] = detect(run, [image])
    service = service_of(task, INFO, DataConfig())
    example = service.read({"image": encode_png(image).getvalue()}, picture=True)

    seen = {}

    class Task(type(task)):
        def predict(self, model, batch):
            seen.update({name: np.asarray(values) for name, values in batch.items()})
            return find_rectangles(seen, masks=task.masks)

    service = service_of(Task(**vars(task)), INFO, DataConfig())
    arrays = {name: jnp.asarray(values[None]) for name, values in example.arrays.items()}
    outputs = service.compute(None, arrays)  # pyright: ignore[reportArgumentType]
    np.testing.assert_allclose(seen["image"], run.batches[0]["image"][:1], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(seen["size"], run.batches[0]["size"][:1])

    [row] = service.answer("a.png", {name: np.asarray(values)[0] for name, values in outputs.items()}, example)
    picture, ids = row.pop("picture"), row["panoptic"]
    assert row == detection_row("a.png", expected.lists(), INFO.class_names, ids)
    json.dumps(row, allow_nan=False)
    assert np.asarray(Image.open(io.BytesIO(content(picture)))).ndim == 3
    if expected.panoptic is None:
        assert ids is None
    else:
        red, green, blue = np.moveaxis(np.asarray(Image.open(io.BytesIO(content(ids))), np.int32), -1, 0)
        np.testing.assert_array_equal(red + 256 * green + 256**2 * blue, expected.panoptic)


def test_depth_is_read_as_stored_and_answered_in_millimetres():
    info = DataInfo(0, (), 3, train_size=1, eval_size=1, image_size=16, eval_shape=(20, 28))
    service = service_of(DepthUpsampling(scale=4), info, DataConfig())
    rng = np.random.default_rng(0)
    image, low = rng.integers(0, 256, (19, 30, 3), np.uint8), rng.uniform(1, 3, (5, 8))
    low[2, 3] = 0
    exif = Image.Exif()
    exif[0x0112] = 3  # taken upside down
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png", exif=exif)
    files = {"image": file.getvalue(), "depth": encode_depth(low).getvalue()}
    example = service.read(files, picture=True)
    np.testing.assert_array_equal(example.arrays["image"], image)
    np.testing.assert_allclose(example.arrays["low"][..., 0], low, rtol=0, atol=1e-3)
    fine = rng.uniform(0.5, 4, (19, 30, 1)).astype(np.float32)
    document = service.answer("image", {"depth": fine}, example)
    assert {name: document[name] for name in ("height", "width", "scale")} == {"height": 19, "width": 30, "scale": 4}
    np.testing.assert_allclose(decode_depth(content(document["out"])), fine[..., 0], rtol=0, atol=5.1e-4)
    assert Image.open(io.BytesIO(content(document["picture"]))).size == (30, 19)
    with pytest.raises(UserError, match="the depth must be 5×8, got 4×8"):
        service.read(files | {"depth": encode_depth(low[:4]).getvalue()})
    with pytest.raises(UserError, match="measured somewhere"):
        service.read(files | {"depth": encode_depth(0 * low).getvalue()})
