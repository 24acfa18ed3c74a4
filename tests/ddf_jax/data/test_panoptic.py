"""Images of segment ids: colours, masks and boxes."""

import hypothesis
import numpy as np
from hypothesis.extra import numpy as arrays

from ddf_jax.data.panoptic import ids_to_rgb, mask_boxes, rgb_to_ids, segment_masks

IDS = arrays.arrays(
    np.int32, arrays.array_shapes(min_dims=2, max_dims=2), elements={"min_value": 0, "max_value": 2**24 - 1}
)
MASKS = arrays.arrays(np.bool_, arrays.array_shapes(min_dims=3, max_dims=3))


@hypothesis.given(IDS)
def test_ids_survive_as_colours(ids: np.ndarray):
    colours = ids_to_rgb(ids)
    assert colours.dtype == np.uint8
    np.testing.assert_array_equal(rgb_to_ids(colours), ids)


@hypothesis.given(IDS)
def test_masks_of_all_ids_cover_every_pixel_once(ids: np.ndarray):
    masks = segment_masks(ids, np.unique(ids))
    np.testing.assert_array_equal(masks.sum(0), 1)
    assert masks.any((1, 2)).all()


@hypothesis.given(MASKS)
def test_a_box_holds_every_pixel_of_its_mask_and_touches_one_on_each_side(masks: np.ndarray):
    for mask, box in zip(masks, mask_boxes(masks), strict=True):
        x1, y1, x2, y2 = box.astype(int)
        inside = np.zeros_like(mask)
        inside[y1:y2, x1:x2] = True
        assert not (mask & ~inside).any()
        assert mask.any() == inside.any()
        if mask.any():
            part = mask[y1:y2, x1:x2]
            assert part[0].any()
            assert part[-1].any()
            assert part[:, 0].any()
            assert part[:, -1].any()
