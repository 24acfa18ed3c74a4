"""Everything that a detector computes on a reference's batch, by the names of the references and in torch's layout."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ddf_jax.checkpoints.rules import official_tensors
from ddf_jax.detection.annotations import Detections, Proposals, Truths
from ddf_jax.detection.cascade import CascadeHeads
from ddf_jax.detection.frozen import FROZEN
from ddf_jax.detection.panoptic import panoptic_map, semantic_map
from ddf_jax.detection.pasting import paste_masks
from ddf_jax.detection.region_heads import is_live, of_images, region_features
from ddf_jax.detection.regions import Regions
from ddf_jax.detection.rpn import DenseOutputs
from ddf_jax.models.detection_networks import HTC, RCNN, Detector, PanopticFPN, RetinaNet, TwoStageDetector, total_loss
from ddf_jax.training.freezing import Unfrozen
from ddf_jax.verify.reference_inputs import ReferenceInputs

Quantities = dict[str, np.ndarray]


class Batch(NamedTuple):
    """A reference's batch as a detector takes it."""

    image: Array
    size: Array
    truths: Truths


def as_batch(inputs: ReferenceInputs, model: Detector) -> Batch:
    """The batch in a model's dtype, its objects padded."""
    most = max(len(truth.boxes) for truth in inputs.truths)

    def padded(arrays: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack([np.pad(a, [(0, most - len(a)), *[(0, 0)] * (a.ndim - 1)]) for a in arrays])

    semantic = inputs.semantic
    if isinstance(model, PanopticFPN):  # its labels are those of stuff, and one for all things
        things, stuff = model.config.num_classes, model.config.num_stuff
        of_stuff = np.where(semantic < things, stuff, semantic - things)
        semantic = np.where(semantic == 255, semantic, of_stuff)
    dtype = model.config.dtype
    truths = Truths(
        boxes=jnp.asarray(padded([truth.boxes for truth in inputs.truths]), dtype),
        labels=jnp.asarray(padded([truth.labels for truth in inputs.truths]), jnp.int32),
        known=jnp.asarray(padded([np.ones(len(truth.boxes), bool) for truth in inputs.truths])),
        masks=jnp.asarray(np.packbits(padded([truth.masks for truth in inputs.truths]), axis=-1)),
        semantic=jnp.asarray(semantic, jnp.uint8),
    )
    return Batch(jnp.asarray(inputs.images, dtype), jnp.asarray(inputs.sizes, jnp.int32), truths)


def evaluation_quantities(model: Detector, batch: Batch) -> Quantities:
    """`eval/…`: features, raw outputs of all heads, proposals, detections, masks and panoptic maps."""
    model.eval()
    structure, state = nnx.split(model)
    program = jax.jit(lambda state, batch: _evaluate(nnx.merge(structure, state), batch))
    arrays, detections, proposals = jax.tree.map(np.asarray, program(state, batch))
    found = {f"eval/{name}": array for name, array in arrays.items() if "head" not in name}
    if proposals is not None:
        found |= _proposals("eval", proposals)
        found |= _of_live("bbox", arrays, proposals.live)
        found |= _of_live("mask", arrays, is_live(detections))
    return found | _detections(model, batch, detections)


def training_quantities(model: Detector, batch: Batch) -> Quantities:
    """`train/…`, `losses/…` and `grad_norm/…`: the choice of anchors and regions, losses, and norms of gradients.

    The stem and the first stage of the backbone are frozen, and all its BatchNorms are in evaluation mode.
    """
    model.train()
    model.backbone.eval()
    structure, state = nnx.split(model)

    @jax.jit
    def program(state: Any, batch: Batch) -> Any:
        def objective(model: Detector) -> tuple[Array, Any]:
            losses = model.loss(*batch, fixed_order=True)
            return total_loss(losses), losses

        model = nnx.merge(structure, state)
        trained = nnx.DiffState(0, nnx.All(nnx.Param, Unfrozen(FROZEN)))
        (total, losses), gradients = nnx.value_and_grad(objective, argnums=trained, has_aux=True)(model)
        norms = {".".join(map(str, path)): g[...] for path, g in nnx.to_flat_state(gradients)}
        return total, losses, norms, _choices(nnx.merge(structure, state), batch)

    total, losses, gradients, choices = jax.tree.map(np.asarray, program(state, batch))
    found = {"losses/total_loss": total}
    for name, loss in losses.items():
        found[f"losses/{name}"] = loss.sum()
        if loss.ndim:
            found[f"losses/{name}/per_level"] = loss
    for name, gradient in official_tensors(gradients).items():
        found[f"grad_norm/{name}"] = np.asarray(np.linalg.norm(gradient))
    return found | _samples(batch, choices)


def _evaluate(model: Any, batch: Batch) -> tuple[dict[str, Array], Detections, Proposals | None]:
    features = model.backbone.features(batch.image)
    levels = model.neck(features[model.first_level :])
    found = {f"backbone{n}": _channels_first(x) for n, x in enumerate(features)}
    found |= {f"neck{n}": _channels_first(x) for n, x in enumerate(levels)}
    found["neck_last_but_one"] = found[f"neck{len(levels) - 2}"][:, :32]
    if isinstance(model, RetinaNet):
        outputs = model.dense(levels)
        return found | _dense(outputs), model.dense.detect(outputs, batch.size), None
    outputs = model.rpn(levels)
    proposals = model.rpn.propose(outputs, batch.size, model.config.rpn.evaluation)
    detections = model.detect(levels, batch.size, proposals)
    heads = _cascade if isinstance(model, HTC) else _regions
    if isinstance(model, PanopticFPN):
        found["semantic"] = _channels_first(model.semantic(levels))
    return (
        found | _dense(outputs) | heads(model.regions, levels, batch.size, proposals, detections),
        detections,
        proposals,
    )


def _regions(
    heads: Any, levels: Sequence[Array], size: Array, proposals: Proposals, detections: Detections
) -> dict[str, Array]:
    del size
    logits, deltas = heads.box(region_features(levels, proposals.boxes, proposals.live, 7))
    found = {"bbox_head0_cls": logits, "bbox_head0_reg": deltas}
    if heads.mask is not None:
        live = is_live(detections)
        x = region_features(levels, detections.boxes, live, 14)
        found["mask_head0_logits"] = of_images(heads.mask, live, x)
    return found


def _cascade(
    heads: CascadeHeads, levels: Sequence[Array], size: Array, proposals: Proposals, detections: Detections
) -> dict[str, Array]:
    logits, semantic = heads.semantic(levels)
    found = {"semantic": _channels_first(logits)}
    for stage, (logits, deltas) in enumerate(heads.box_stages(levels, semantic, size, proposals)[1]):
        found |= {f"bbox_head{stage}_cls": logits, f"bbox_head{stage}_reg": deltas}
    masks = heads.mask_logits(levels, semantic, detections.boxes, is_live(detections))
    return found | {f"mask_head{stage}_logits": logits for stage, logits in enumerate(masks)}


def _choices(model: Any, batch: Batch) -> Any:
    """What the losses are computed on, and the accuracy of each box head, `acc` in percent."""
    if not isinstance(model, TwoStageDetector):
        return None
    levels = model.levels(batch.image)
    outputs = model.rpn(levels)
    targets = model.rpn.targets(outputs, batch.size, batch.truths, None)
    proposals = model.rpn.propose(outputs, batch.size, model.config.rpn.training)
    live = [proposals.live]
    if isinstance(model, RCNN):
        chosen = model.regions.choose(proposals, batch.truths, None)
        x = region_features(levels, chosen.boxes, chosen.sample.live, 7)
        regions, right = [chosen], {"acc": _accuracy(model.regions.box(x)[0], chosen)}
    else:
        _, stages = model.regions.loss_and_stages(levels, batch.size, proposals, batch.truths, None)
        regions = [chosen for stage in stages for chosen in (stage.boxes, stage.masks)]
        right = {f"s{n}.acc": _accuracy(stage.logits, stage.boxes) for n, stage in enumerate(stages)}
        for stage in stages:
            live += [stage.boxes.sample.live & ~stage.boxes.annotated] * 2
    return targets, proposals, list(zip(regions, live, strict=False)), right


def _samples(batch: Batch, choices: Any) -> Quantities:
    if choices is None:
        return {}
    targets, proposals, regions, right = choices
    found = _proposals("train", proposals)
    records = [(targets.sample, targets.truth, targets.live)]
    known = np.asarray(batch.truths.known)
    for chosen, live in regions:
        records.append((chosen.sample, chosen.truth, np.concatenate([known, live], axis=1)))
    number = 0
    for position, (sample, truth, live) in enumerate(records):
        for image in range(len(live)):
            # Numbers without padding: the references have none.
            index = (np.cumsum(live[image]) - 1)[sample.boxes[image]]
            positive = sample.positive[image]
            of_truth = truth[image][sample.boxes[image]] if position == 0 else truth[image]
            found[f"train/sample{number}_pos"] = index[positive]
            found[f"train/sample{number}_neg"] = index[sample.live[image] & ~positive]
            found[f"train/sample{number}_gt"] = of_truth[positive]
            number += 1
    return found | {f"losses/{name}": value for name, value in right.items()}


def _accuracy(logits: Array, regions: Regions) -> Array:
    """The share of regions whose best class is right, in percent."""
    right = (logits.argmax(-1).astype(regions.labels.dtype) == regions.labels) & regions.sample.live
    return 100 * right.sum() / regions.sample.live.sum()


def _dense(outputs: DenseOutputs) -> dict[str, Array]:
    found = {}
    for level, (logits, deltas, size) in enumerate(zip(*outputs, strict=True)):
        found |= {
            f"dense_{name}{level}": _channels_first(values.reshape(len(values), *size, -1))
            for name, values in (("cls", logits), ("reg", deltas))
        }
    return found


def _of_live(head: str, arrays: Mapping[str, np.ndarray], live: Any) -> Quantities:
    """The rows of regions that are no padding, of all images."""
    found = {}
    for name, array in arrays.items():
        if name.startswith(f"{head}_head"):
            rows = array[np.asarray(live)]
            is_mask = name.endswith("_logits")
            found[f"eval/{name}"] = rows.transpose(0, 3, 1, 2) if is_mask else rows.reshape(len(rows), -1)
    return found


def _proposals(mode: str, proposals: Proposals) -> Quantities:
    return {
        f"{mode}/proposals{n}": np.concatenate([boxes, scores[:, None]], axis=1)[:count]
        for n, (boxes, scores, count) in enumerate(zip(*proposals, strict=True))
    }


def _detections(model: Detector, batch: Batch, detections: Any) -> Quantities:
    found, (_, height, width, _) = {}, batch.image.shape
    for n, (size, count) in enumerate(zip(np.asarray(batch.size).tolist(), detections.number.tolist(), strict=True)):
        boxes, scores, labels = (array[n][:count] for array in (detections.boxes, detections.scores, detections.labels))
        masks = None
        if detections.masks is not None:
            masks = paste_masks(detections.masks[n][:count], boxes, *size)
        if isinstance(model, PanopticFPN) and masks is not None and detections.semantic is not None:
            config = model.config
            semantic = semantic_map(detections.semantic[n], (height, width), tuple(size), tuple(size))
            classes = {"num_things": config.num_classes, "num_stuff": config.num_stuff}
            found[f"eval/panoptic{n}"] = panoptic_map(masks, labels, semantic, **classes, settings=config.fusion)[None]
        found |= {f"eval/boxes{n}": boxes, f"eval/scores{n}": scores, f"eval/labels{n}": labels}
        if masks is not None:
            found[f"eval/mask_areas{n}"] = masks.sum((1, 2))
            found[f"eval/masks{n}"] = masks
    return found


def _channels_first(x: Array) -> Array:
    return jnp.moveaxis(x, -1, 1)
