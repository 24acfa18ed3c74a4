"""Objects found in a user's images come back in the images' own pixels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddf_jax.analysis.panoptic_quality import VOID
from ddf_jax.detection.rle import decode_rle
from ddf_jax.errors import UserError
from ddf_jax.training.detect import detect
from ddf_jax.training.run import predict
from ddf_jax.training.tasks.classification import Classification
from ddf_jax.training.tasks.depth_upsampling import DepthUpsampling
from ddf_jax.training.tasks.detection import Detection
from tests.ddf_jax.training.bright_rectangles import CANVAS, panoptic, rectangle_image, rectangle_run


@pytest.mark.parametrize("size", [(64, 96), (128, 192), (32, 48), (200, 100), (37, 59), (64, 1000)])
def test_boxes_and_masks_are_in_pixels_of_the_image_whatever_its_size(size):
    height, width = size
    box = width // 4, height // 4, width // 2, 3 * height // 4
    run, image = rectangle_run(), rectangle_image(height, width, box)
    [found] = detect(run, [image])
    [batch] = run.batches
    assert batch["image"].shape == (1, *CANVAS, 3)
    inner = batch["size"][0]
    assert max(inner / CANVAS) == 1  # as large as it can be
    tolerance = max(1.0, 1.5 * height / inner[0])  # a pixel of the batch
    np.testing.assert_allclose(found.boxes, [box, box], atol=tolerance)
    np.testing.assert_array_equal(found.image, image)
    assert (found.labels.tolist(), found.panoptic) == ([1, 0], None)
    np.testing.assert_allclose(found.scores, [0.9, 0.3])
    assert found.masks is not None
    assert isinstance(found.masks[0]["counts"], str)
    mask = decode_rle(found.masks[0], (height, width))
    x1, y1, x2, y2 = found.boxes[0]
    assert mask.sum() == pytest.approx((x2 - x1) * (y2 - y1), rel=0.15)
    assert mask[height // 2, 3 * width // 8]


def test_images_of_several_sizes_are_found_in_their_order_and_padding_is_not_seen():
    run = rectangle_run(devices=2)
    images = [rectangle_image(40 + 5 * i, 60, (10, 10, 30 + i, 30)) for i in range(9)]
    found = list(detect(run, images))
    assert len(found) == 9
    for index, (image, objects) in enumerate(zip(images, found, strict=True)):
        assert objects.image.shape == image.shape
        np.testing.assert_allclose(objects.boxes[0], (10, 10, 30 + index, 30), atol=1.5)
    assert [batch["image"].shape[0] for batch in run.batches] == [8, 8]  # one program for all


def test_upright_images_are_seen_on_a_canvas_of_theirs_and_found_in_the_order_of_all():
    run = rectangle_run(panoptic(upright=True))
    sizes = [(40, 60), (60, 40), (80, 40), (50, 50)]
    boxes = [(10, 10, 30 + index, 30) for index in range(4)]
    images = [rectangle_image(*size, box) for size, box in zip(sizes, boxes, strict=True)]
    for image, box, objects in zip(images, boxes, detect(run, images), strict=True):
        np.testing.assert_array_equal(objects.image, image)
        np.testing.assert_allclose(objects.boxes[0], box, atol=1.5)
        assert objects.panoptic is not None
        assert objects.panoptic.shape == image.shape[:2]
        assert objects.panoptic[20, 20] > 1000  # the first object
    assert [batch["image"].shape for batch in run.batches] == [(4, 64, 96, 3), (4, 96, 64, 3)]
    assert [batch["size"][:2].tolist() for batch in run.batches] == [[[64, 96], [64, 64]], [[96, 64], [96, 48]]]


def test_a_batch_is_computed_when_its_first_image_is_asked_for():
    run = rectangle_run()
    found = detect(run, [rectangle_image(32, 48, (8, 8, 24, 24))] * 5)
    assert not run.batches
    next(found)
    assert len(run.batches) == 1


def test_files_are_read_as_those_of_a_dataset(tmp_path: Path):
    image = rectangle_image(32, 48, (8, 4, 24, 12))
    turned = Image.fromarray(np.rot90(image).copy())  # a camera held upright
    exif = Image.Exif()
    exif[274] = 6  # the first row is the right side
    turned.save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(image[..., 0]).save(tmp_path / "grey.png")
    opaque = np.concatenate([image, np.zeros((32, 48, 1), np.uint8)], axis=-1)  # colours under full transparency
    Image.fromarray(opaque).save(tmp_path / "alpha.png")
    files = [tmp_path / "turned.png", str(tmp_path / "grey.png"), tmp_path / "alpha.png"]
    for found in detect(rectangle_run(), [*files, image[..., 0], image[..., :1], Image.fromarray(image)]):
        np.testing.assert_array_equal(found.image, image)
        np.testing.assert_allclose(found.boxes[0], (8, 4, 24, 12), atol=1)


def test_a_panoptic_run_has_a_map_of_the_images_size():
    [found] = detect(rectangle_run(panoptic()), [rectangle_image(50, 70, (20, 10, 40, 30))])
    assert found.panoptic is not None
    assert (found.panoptic.shape, found.panoptic.dtype) == ((50, 70), np.int32)
    assert np.unique(found.panoptic).tolist() == [3, 1001]  # a wall, and the first object, a pole
    assert (found.panoptic == 1001).sum() == pytest.approx(400, rel=0.1)
    assert VOID == 0


def test_objects_below_a_score_are_left_out():
    [found] = detect(rectangle_run(), [rectangle_image(50, 70, (20, 10, 40, 30))])
    for score, count in ((0.0, 2), (0.3, 2), (0.31, 1), (0.95, 0)):
        above = found.above(score)
        assert len(above.boxes) == len(above.scores) == len(above.labels) == len(above.masks or ()) == count
    [boxes] = detect(rectangle_run(Detection(canvas=CANVAS)), [rectangle_image(50, 70, (20, 10, 40, 30))])
    assert boxes.above(0.5).masks is None


def test_an_image_that_cannot_be_read_is_refused_before_any_is_computed(tmp_path: Path):
    (tmp_path / "text.png").write_text("no image")
    image, run = rectangle_image(32, 48, (8, 4, 24, 12)), rectangle_run()
    for wrong, message in [
        (tmp_path / "absent.png", "There is no file .*absent.png"),
        (tmp_path / "text.png", "text.png must be an image file"),
        (image.astype(np.float32), "must be uint8"),
    ]:
        with pytest.raises(UserError, match=message):
            detect(run, [image] * 9 + [wrong])
    with pytest.raises(UserError, match="`images` must hold an image, got none"):
        detect(run, [])
    assert not run.batches


def test_each_kind_of_run_is_refused_with_the_command_that_takes_it():
    image = rectangle_image(32, 48, (8, 4, 24, 12))
    for task, command in ((Classification(), "`ddf predict`"), (DepthUpsampling(scale=4), "`ddf upsample`")):
        with pytest.raises(UserError, match=f"`detect` needs a run of detection .* Try {command} or `ddf_jax"):
            detect(rectangle_run(task), [image])
    with pytest.raises(UserError, match=r"whose model takes image and size\. Try `ddf detect` or `ddf_jax\.detect`"):
        predict(rectangle_run(), [image])
