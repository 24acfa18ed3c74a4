import numpy as np
import pytest

from ddf_jax.verify.reference_inputs import IGNORED, OBJECTS, SIZES, reference_inputs


def test_images_are_noise_that_objects_brighten_and_padding_is_0():
    inputs = reference_inputs(31, semantic_classes=183)
    generator = np.random.Generator(np.random.Philox(131))
    noise = generator.standard_normal((3, 160, 224)), generator.standard_normal((3, 128, 192))
    assert inputs.images.shape == (2, 160, 224, 3)
    assert inputs.images[0, 5, 100, 1] == noise[0][1, 5, 100]
    assert inputs.images[0, 30, 110, 2] == noise[0][2, 30, 110] + 2  # class 17 brightens channel 2
    assert inputs.images[0, 90, 50, 0] == noise[0][0, 90, 50] + 4  # in two objects of class 3
    assert inputs.images[1, 127, 191, 0] == noise[1][0, 127, 191]
    assert not inputs.images[1, 128:].any()
    assert not inputs.images[1, :, 192:].any()


def test_masks_are_the_ellipses_inside_the_boxes():
    inputs = reference_inputs(31, semantic_classes=183)
    for truth, objects in zip(inputs.truths, OBJECTS, strict=True):
        assert truth.labels.tolist() == [label for _, label in objects]
        for mask, (x1, y1, x2, y2) in zip(truth.masks, truth.boxes.astype(int), strict=True):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            assert (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) == (x1, y1, x2, y2)
            assert mask.sum() == pytest.approx(np.pi / 4 * (x2 - x1) * (y2 - y1), rel=0.01)
            assert (mask[y1:y2, x1:x2] == mask[y1:y2, x1:x2][::-1, ::-1]).all()


@pytest.mark.parametrize("classes", [133, 183])
def test_semantic_labels_are_squares_with_ignored_rows_and_padding(classes):
    semantic = reference_inputs(31, semantic_classes=classes).semantic
    assert semantic[0, 0, 0] == 0
    assert semantic[0, 17, 16] == 6
    assert semantic[1, 127, 191] == 11 + 35 + 7
    for labels, (height, width) in zip(semantic, SIZES, strict=True):
        ignored = np.zeros_like(labels, bool)
        ignored[24:32], ignored[height:], ignored[:, width:] = True, True, True
        assert ((labels == IGNORED) == ignored).all()
