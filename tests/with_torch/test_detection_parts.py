"""The parts of the port's detectors against loops over boxes, pixels and samples, in float64."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from ddf_jax.torch_port.detection.anchors import Anchors
from ddf_jax.torch_port.detection.box_head import BoxSample, sample_boxes
from ddf_jax.torch_port.detection.boxes import MAX_RATIO, decode, encode, iou
from ddf_jax.torch_port.detection.detections import Detections, best_detections
from ddf_jax.torch_port.detection.fpn import FPN
from ddf_jax.torch_port.detection.losses import focal, smooth_l1
from ddf_jax.torch_port.detection.mask_head import mask_targets, paste_masks
from ddf_jax.torch_port.detection.matching import BACKGROUND, UNUSED, Matcher, Sample, sample
from ddf_jax.torch_port.detection.panoptic import fuse
from ddf_jax.torch_port.detection.roi_align import roi_align, roi_features
from ddf_jax.torch_port.detection.semantic_head import FusedSemanticHead, PanopticFPNHead
from ddf_jax.torch_port.detection.settings import Settings, Truth, golden_order
from ddf_jax.torch_port.detection.suppression import suppress
from ddf_jax.verify.reference import reference_weights, summary

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "involution_neck.npz")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def random_boxes(count: int, size: float, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    corner, side = rng.uniform(0, size, (count, 2)), rng.uniform(1, size / 2, (count, 2))
    return torch.from_numpy(np.concatenate([corner, corner + side], 1))


def iou_of(a, b) -> float:
    """Of two boxes as lists of numbers."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(width, 0) * max(height, 0)
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return overlap / (sum(areas) - overlap)


def test_iou_is_that_of_each_pair():
    boxes, others = random_boxes(7, 40), random_boxes(9, 40, seed=1)
    expected = [[iou_of(a, b) for b in others.tolist()] for a in boxes.tolist()]
    torch.testing.assert_close(iou(boxes, others), torch.tensor(expected, dtype=torch.float64))


def test_decoding_inverts_encoding_within_the_limits_and_the_image():
    anchors, boxes = random_boxes(20, 40), random_boxes(20, 40, seed=1)
    deviations = (0.1, 0.1, 0.2, 0.2)
    offsets = encode(anchors, boxes, deviations)
    torch.testing.assert_close(decode(anchors, offsets, deviations, (100, 100)), boxes)
    clipped = decode(anchors, offsets, deviations, (30, 20))
    torch.testing.assert_close(clipped, torch.minimum(boxes, torch.tensor([20.0, 30, 20, 30], dtype=torch.float64)))
    anchor, offset = torch.tensor([[0.0, 0, 2, 2]]).double(), torch.tensor([[50.0, 50, 9, -9]]).double()
    [[x1, y1, x2, y2]] = decode(anchor, offset, (1.0,) * 4, (500, 500)).tolist()
    assert x2 - x1 == pytest.approx(2 * math.exp(MAX_RATIO)) == pytest.approx(125)
    assert y2 - y1 == pytest.approx(2 / 62.5)


def test_anchors_are_centred_at_the_corners_of_pixels_in_the_order_row_column_ratio_scale():
    anchors = Anchors(strides=(4, 8), scales=(8.0, 16.0))
    maps = [torch.zeros(1, 1, 3, 5, dtype=torch.float64), torch.zeros(1, 1, 2, 3, dtype=torch.float64)]
    fine, coarse = anchors.levels(maps)
    assert fine.shape == (3 * 5 * 6, 4)
    assert coarse.shape == (2 * 3 * 6, 4)
    at = fine.reshape(3, 5, 6, 4)[2, 4]
    torch.testing.assert_close((at[:, :2] + at[:, 2:]) / 2, torch.tensor([[16.0, 8]], dtype=torch.float64).expand(6, 2))
    width, height = (at[:, 2:] - at[:, :2]).T
    torch.testing.assert_close(height / width, torch.tensor([0.5, 0.5, 1, 1, 2, 2], dtype=torch.float64))
    torch.testing.assert_close((width * height).sqrt(), torch.tensor([32.0, 64] * 3, dtype=torch.float64))
    assert coarse[2].tolist() == [-32, -32, 32, 32]


def test_anchors_are_covered_by_an_image_padded_to_32():
    anchors = Anchors(strides=(8, 64), scales=(8.0,))
    maps = [torch.zeros(1, 1, 8, 12), torch.zeros(1, 1, 1, 2)]
    fine, coarse = anchors.covered(maps, (33, 20))  # padded to 64×32
    expected = torch.zeros(8, 12, dtype=torch.bool)
    expected[:8, :4] = True
    assert (fine.reshape(8, 12, 3) == expected[..., None]).all()
    assert coarse.tolist() == [True] * 3 + [False] * 3


@pytest.mark.parametrize("least", [None, 0.2])
def test_matches_are_those_of_a_loop(least):
    boxes, objects = random_boxes(60, 30), random_boxes(5, 30, seed=1)
    boxes[7], boxes[8], objects[4] = objects[2], objects[2], objects[3]  # equal IoUs
    expected = []
    for box in boxes.tolist():
        overlaps = [iou_of(truth, box) for truth in objects.tolist()]
        best = max(overlaps)
        expected.append(overlaps.index(best) if best >= 0.5 else BACKGROUND if best < 0.3 else UNUSED)
    if least is not None:
        for number, truth in enumerate(objects.tolist()):
            overlaps = [iou_of(truth, box) for box in boxes.tolist()]
            for box, overlap in enumerate(overlaps):
                if overlap == max(overlaps) >= least:
                    expected[box] = number
    assert {BACKGROUND, UNUSED, 2} <= {*expected}
    assert Matcher(0.5, 0.3, least)(boxes, objects).tolist() == expected


def test_without_objects_all_boxes_are_background():
    assert Matcher(0.5, 0.5, 0.5)(random_boxes(3, 30), torch.zeros(0, 4)).tolist() == [BACKGROUND] * 3


def test_samples_are_the_first_of_an_order_and_negatives_fill_up():
    assigned = torch.tensor([0, BACKGROUND, 1, UNUSED, 2, BACKGROUND, BACKGROUND, BACKGROUND, 0])
    positive, negative, truth = sample(assigned, 4, 0.5, lambda count: torch.arange(count).flip(0))
    assert (positive.tolist(), truth.tolist(), negative.tolist()) == ([4, 8], [2, 0], [6, 7])
    positive, negative, _ = sample(assigned[:4], 4, 0.5, golden_order)
    assert (positive.tolist(), negative.tolist()) == ([0, 2], [1])


def test_the_golden_order_is_a_permutation_by_fractional_parts():
    order = golden_order(50).tolist()
    assert sorted(order) == [*range(50)]
    assert order[0] == 0
    fractions = [(number * 0.6180339887498949) % 1 for number in order]
    assert fractions == sorted(fractions)


def test_suppression_is_that_of_a_loop_within_each_group():
    boxes, rng = random_boxes(80, 30), np.random.default_rng(2)
    scores, groups = torch.from_numpy(rng.integers(0, 40, 80) / 40), torch.from_numpy(rng.integers(0, 3, 80))
    kept: list[int] = []
    for number in sorted(range(80), key=lambda number: -scores[number].item()):
        better = [other for other in kept if groups[other] == groups[number]]
        if all(iou_of(boxes[other].tolist(), boxes[number].tolist()) <= 0.4 for other in better):
            kept.append(number)
    assert 20 < len(kept) < 70
    assert suppress(boxes, scores, groups, 0.4).tolist() == kept


def test_detections_of_a_class_do_not_suppress_others_unless_classes_do_not_matter():
    boxes = torch.tensor([[[0.0, 0, 10, 10]], [[0.0, 0, 10, 9]]])
    scores = torch.tensor([[0.6, 0.04], [0.3, 0.5]])
    found = best_detections(boxes, scores, Settings())
    assert found.labels.tolist() == [0, 1]
    assert best_detections(boxes, scores, Settings(class_agnostic_nms=True)).labels.tolist() == [0]
    assert best_detections(boxes, scores, Settings(least_score=0.5)).scores.tolist() == pytest.approx([0.6])


def bilinear(x: torch.Tensor, row: float, column: float) -> torch.Tensor:
    """The bilinear value [C] at a place; 0 more than a pixel outside, the border's up to there."""
    height, width = x.shape[1:]
    if not (-1 <= row <= height and -1 <= column <= width):
        return x.new_zeros(len(x))
    row, column = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
    top, left = int(row), int(column)
    down, right = min(top + 1, height - 1), min(left + 1, width - 1)
    v, h = row - top, column - left
    return (1 - v) * ((1 - h) * x[:, top, left] + h * x[:, top, right]) + v * (
        (1 - h) * x[:, down, left] + h * x[:, down, right]
    )


def test_roi_align_is_the_mean_of_bilinear_samples():
    x, size, stride = random(3, 15, 18), 4, 4
    boxes = [[3.0, 5, 60, 33], [-20, -9, 130, 90], [10, 10, 10, 40], [1.5, 2.5, 9, 4], [55, 40, 90, 80]]
    expected = torch.zeros(len(boxes), 3, size, size, dtype=torch.float64)
    for result, box in zip(expected, boxes, strict=True):
        x0, y0, x1, y1 = (side / stride - 0.5 for side in box)
        height, width = (y1 - y0) / size, (x1 - x0) / size
        down, across = math.ceil(height), math.ceil(width)
        for i, j, v, h in np.ndindex(size, size, down, across):
            row, column = y0 + (i + (v + 0.5) / down) * height, x0 + (j + (h + 0.5) / across) * width
            result[:, i, j] += bilinear(x, row, column) / (down * across)
    torch.testing.assert_close(roi_align(x, torch.tensor(boxes).double(), stride, size), expected)


def test_a_box_takes_the_level_of_its_size_of_its_own_image():
    levels = [random(2, 3, 64 >> level, 64 >> level, seed=level) for level in range(3)]
    sides = [[111.9, 112.1], [300.0]]  # 2·56 is the least of the second level, 4·56 of the third
    boxes = [torch.tensor([[9.0, 7, 9 + side, 7 + side] for side in of_image]).double() for of_image in sides]
    expected = [
        roi_align(levels[0][0], boxes[0][:1], 4, 7),
        roi_align(levels[1][0], boxes[0][1:], 8, 7),
        roi_align(levels[2][1], boxes[1], 16, 7),
    ]
    torch.testing.assert_close(roi_features(levels, boxes, (4, 8, 16), 7), torch.cat(expected))


def test_objects_are_the_first_proposals_and_are_marked():
    truth = Truth(torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]]), torch.tensor([4, 5]))
    proposals = torch.tensor([[80.0, 80, 90, 90], [50, 50, 60, 61], [0, 0, 10, 30]])
    found = sample_boxes(proposals, truth, Matcher(0.5, 0.5, None), Settings(box_samples=16))
    assert (found.chosen.positive.tolist(), found.chosen.negative.tolist()) == ([0, 1, 3], [2, 4])
    assert (found.labels.tolist(), found.added.tolist()) == ([4, 5, 5], [True, True, False])
    assert torch.equal(found.boxes, torch.cat([truth.boxes, proposals])[[0, 1, 3, 2, 4]])
    assert torch.equal(found.objects, truth.boxes[[0, 1, 1]])


def test_a_mask_target_is_the_objects_mask_in_the_proposal():
    masks = torch.zeros(2, 60, 70, dtype=torch.bool)
    masks[1, 4:32, 10:38] = True
    truth = Truth(torch.tensor([[60.0, 50, 70, 60], [10, 4, 38, 32]]), torch.tensor([0, 0]), masks)
    proposals = torch.tensor([[10.0, 4, 38, 32], [3, 4, 31, 32], [-28, -20, 28, 28]])  # the last begins outside
    chosen = Sample(torch.arange(3), torch.zeros(0), torch.tensor([1, 1, 1]))
    sampled = BoxSample(chosen, proposals, truth.labels[chosen.truth], truth.boxes[chosen.truth], torch.zeros(3))
    itself, shifted, clipped = mask_targets(sampled, truth)
    assert itself.all()
    expected = torch.zeros(28, 28, dtype=torch.bool)
    expected[:, 7:] = True
    assert torch.equal(shifted, expected)
    expected = torch.zeros(28, 28, dtype=torch.bool)
    expected[4:, 10:] = True
    assert torch.equal(clipped, expected)


def test_a_pasted_mask_has_the_pixels_whose_centres_are_in_its_half():
    mask = torch.zeros(2, 28, 28, dtype=torch.float64)
    mask[0] = 1
    mask[1, :, 14:] = 1
    boxes = torch.tensor([[3.2, 4.0, 30.7, 20.4], [2.0, 2.0, 30.0, 30.0]]).double()
    whole, right = paste_masks(mask, boxes, (40, 50))
    y, x = np.mgrid[:40, :50] + 0.5
    assert (whole.numpy() == ((x > 3.2) & (x < 30.7) & (y > 4.0) & (y < 20.4))).all()
    assert (right.numpy() == ((x > 16) & (x < 30) & (y > 2) & (y < 30))).all()


def test_focal_loss_is_its_formula():
    logits, targets = random(5, 3), torch.from_numpy(np.eye(5, 3))
    p = 1 / (1 + np.exp(-logits.numpy()))
    p_t, alpha = np.where(targets, p, 1 - p), np.where(targets, 0.25, 0.75)
    np.testing.assert_allclose(focal(logits, targets).numpy(), -alpha * (1 - p_t) ** 2 * np.log(p_t), rtol=1e-12)


def test_smooth_l1_is_quadratic_below_beta():
    values, zero = torch.tensor([-2.0, 0.1, 0.5]), torch.zeros(3)
    torch.testing.assert_close(smooth_l1(values, zero, 0.5), torch.tensor([1.75, 0.01, 0.25]))
    torch.testing.assert_close(smooth_l1(values, zero, 0), values.abs())


def test_instances_take_free_pixels_by_score_and_small_stuff_has_no_class():
    semantic = torch.zeros(3, 8, 10)  # two classes of stuff, and things
    semantic[0, :, :5], semantic[1, :, 5:9], semantic[2, :, 9:] = 1, 1, 1
    masks = torch.zeros(4, 8, 10, dtype=torch.bool)
    masks[0, 2:6, 2:6] = True
    masks[1, 4:8, 2:6] = True  # half is taken: not more than half, so it keeps the rest
    masks[2, 2:6, 3:7] = True  # three quarters are
    label = torch.tensor([7, 3, 1, 2])
    found = Detections(torch.zeros(4, 4), torch.tensor([0.9, 0.8, 0.7, 0.6]), label, masks)  # the last mask is empty
    expected = np.full((8, 10), 82)
    expected[:, :5] = 80
    expected[2:6, 2:6] = 7 + 1000
    expected[6:8, 2:6] = 3 + 2000
    expected[:, 5:9] = np.where(expected[:, 5:9] == 82, 81, expected[:, 5:9])
    assert fuse(found, semantic, 80, 9).tolist() == expected.tolist()  # 8 pixels are things without an instance
    assert (fuse(found, semantic, 80, 8).numpy() == expected).all()
    assert not (fuse(found, semantic, 80, 26) == 80).any()  # 40 - 12 - 4 = 24 are left of it


def test_ignored_pixels_count_in_the_mean_of_a_semantic_loss():
    labels = torch.full((1, 16, 16), 255)
    labels[0, 0, 0], labels[0, 1, 1] = 2, 1  # only every 8th pixel is asked
    logits = random(1, 4, 2, 2)
    expected = 0.2 * functional.cross_entropy(logits[..., 0, 0], torch.tensor([2])) / 4
    torch.testing.assert_close(FusedSemanticHead(32, 4).loss(logits, labels), expected)


def test_things_are_the_last_class_of_a_panoptic_semantic_loss():
    head = PanopticFPNHead(32, 80, 2)
    labels = torch.tensor([0, 79, 80, 81]).repeat_interleave(4).repeat(1, 4, 1)
    logits = random(1, 3, 1, 4)
    classes = torch.tensor([[[2, 2, 0, 1]]])
    torch.testing.assert_close(head.loss(logits, labels), 0.5 * functional.cross_entropy(logits, classes))


@pytest.mark.parametrize(("network", "seed"), [("faster", 51), ("retinanet", 52)])
def test_the_pyramid_with_involutions_is_the_authors(network, seed):
    channels = (32, 48, 64, 80)
    generator = np.random.Generator(np.random.Philox(seed + 100))
    features = [generator.standard_normal((2, width, 40 >> i, 56 >> i)) for i, width in enumerate(channels)]
    first = network == "retinanet"
    fpn = FPN(channels[first:], 64, extra_convolutions=first, op="involution").double().eval()
    weights = reference_weights({name: tuple(value.shape) for name, value in fpn.state_dict().items()}, seed)
    fpn.load_state_dict({name: torch.from_numpy(np.asarray(value)) for name, value in weights.items()})
    for level, y in enumerate(fpn([torch.from_numpy(x) for x in features[first:]])):
        found = summary(y.detach().numpy(), 512)
        found = np.concatenate([found[:2], found[2::8]])
        np.testing.assert_allclose(found, GOLDEN[f"{network}/eval/y{level}"], rtol=1e-9, atol=1e-9)
