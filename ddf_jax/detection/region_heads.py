"""The second stage of Faster R-CNN and Mask R-CNN: heads on the regions that the first stage proposes."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.detection import box_head, mask_head
from ddf_jax.detection.annotations import Detections, Proposals, Truths
from ddf_jax.detection.box_head import BoxHead, DetectionSettings
from ddf_jax.detection.mask_head import MaskHead, mask_loss, mask_targets, of_label
from ddf_jax.detection.matching import Matcher
from ddf_jax.detection.regions import Regions, choose_regions
from ddf_jax.detection.roi_align import levels_of, roi_align
from ddf_jax.detection.sampling import Sampler
from ddf_jax.layers.batch_norm import statistics_of

STRIDES = (4, 8, 16, 32)
"""Of the levels that regions are taken from."""


@dataclasses.dataclass(frozen=True)
class RegionSettings:
    """MMDetection's settings of Faster R-CNN.

    Args:
      matcher: of proposals to objects.
      sampler: of the regions that count in the losses.
      detection: the choice of detections.
      hidden: channels of the box head.
      mask_depth: 3×3 convolutions of the mask head.
    """

    matcher: Matcher = Matcher(positive=0.5, negative=0.5)
    sampler: Sampler = Sampler(512, 0.25)
    detection: DetectionSettings = DetectionSettings()
    hidden: int = 1024
    mask_depth: int = 4


class RegionHeads(nnx.Module):
    """A box head and perhaps a mask head.

    Args:
      channels: of the levels.
      num_classes: C.
      conv: factory of the mask head's 3×3 convolutions; None for no mask head.
      settings: of training and detections.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        conv: Callable[..., Any] | None,
        settings: RegionSettings,
        **dtypes: Any,
    ):
        self.box = BoxHead(channels, num_classes, hidden=settings.hidden, **dtypes)
        self.mask = nnx.data(None)
        if conv is not None:
            self.mask = MaskHead(channels, num_classes, conv=conv, depth=settings.mask_depth, **dtypes)
        self.num_classes = num_classes
        self.settings = settings

    def choose(self, proposals: Proposals, truths: Truths, key: Array | None) -> Regions:
        """The regions that count in the losses; with no key in a fixed order."""
        settings = self.settings
        return choose_regions(
            settings.matcher, settings.sampler, self.num_classes, proposals.boxes, proposals.live, truths, key
        )

    def loss(
        self, levels: Sequence[Array], size: Array, proposals: Proposals, truths: Truths, key: Array | None
    ) -> dict[str, Array]:
        """`loss_cls`, `loss_bbox` and, with a mask head, `loss_mask`.

        Args:
          levels: of the pyramid.
          size: (height, width) of each image [B, 2].
          proposals: of the first stage.
          truths: the objects.
          key: of the choice of regions; None for a fixed order.
        """
        del size
        regions = self.choose(proposals, truths, key)
        x = region_features(levels, regions.boxes, regions.sample.live, box_head.BINS)
        losses = self.box.loss(*self.box(x), regions)
        if self.mask is not None:
            most = self.settings.sampler.most_positive
            boxes, positive = regions.boxes[:, :most], regions.sample.positive[:, :most]
            x = region_features(levels, boxes, positive, mask_head.BINS)
            logits = of_images(self.mask, positive, x)
            losses["loss_mask"] = mask_loss(logits, known_masks(truths, levels, regions, most), regions)
        return losses

    def detect(self, levels: Sequence[Array], size: Array, proposals: Proposals) -> Detections:
        """The objects in images of (height, width) [B, 2]."""
        x = region_features(levels, proposals.boxes, proposals.live, box_head.BINS)
        detections = self.box.detect(proposals.boxes, proposals.live, *self.box(x), size, self.settings.detection)
        if self.mask is None:
            return detections
        live = is_live(detections)
        x = region_features(levels, detections.boxes, live, mask_head.BINS)
        logits = of_label(of_images(self.mask, live, x), detections.labels)
        return detections._replace(masks=jax.nn.sigmoid(logits))


def region_features(levels: Sequence[Array], boxes: Array, live: Array, size: int) -> Array:
    """RoIAlign on each box's level: boxes [B, K, 4] to [B, K, size, size, C]; 0 where no box is live [B, K]."""
    levels = levels[: len(STRIDES)]
    number = jnp.where(live, levels_of(boxes, len(levels)), -1)
    return roi_align(levels, boxes, number, STRIDES[: len(levels)], size)


def of_images(head: Callable[..., Array], live: Array, x: Array, *others: Array) -> Array:
    """A head of regions [N, …] for those of images [B, K, …]; its batch statistics are of the live ones [B, K]."""
    flat = [array.reshape(-1, *array.shape[2:]) for array in (x, *others)]
    with statistics_of(live.reshape(-1)):
        y = head(*flat)
    return y.reshape(*x.shape[:2], *y.shape[1:])


def known_masks(truths: Truths, levels: Sequence[Array], regions: Regions, most: int) -> Array:
    """`mask_targets` of the first `most` regions."""
    masks = truths.given("masks")
    width = min(8 * masks.shape[-1], STRIDES[0] * levels[0].shape[2])
    return mask_targets(masks, width, regions, most)


def is_live(detections: Detections) -> Array:
    """Whether a detection is no padding [B, D]."""
    return jnp.arange(detections.boxes.shape[1], dtype=detections.number.dtype)[None] < detections.number[:, None]
