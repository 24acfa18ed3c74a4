"""The parts of ddf_jax's Faster R-CNN, as a process of `turns`.

python -m experiments.benchmarks.detection_jax FOLDER
"""

import functools
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from ddf_jax.checkpoints.conversion import load_tensors
from ddf_jax.detection import box_head, mask_head
from ddf_jax.detection.annotations import Detections, Proposals, Truths
from ddf_jax.detection.frozen import FROZEN
from ddf_jax.detection.pasting import paste_masks
from ddf_jax.detection.region_heads import region_features
from ddf_jax.detection.rpn import DenseOutputs
from ddf_jax.detection.suppression import best_after_nms
from ddf_jax.models import abstract
from ddf_jax.models.detection_networks import total_loss
from ddf_jax.training.devices import compiler_options, data_mesh
from ddf_jax.training.freezing import Unfrozen
from experiments.benchmarks.detection_inputs import MODEL, NMS_COUNTS
from experiments.benchmarks.turns import Part, serve
from pallas_kernels.tuning.timing import peak_bytes

Arrays = dict[str, np.ndarray]


def make_parts(folder: Path) -> dict[str, Callable[[], Part]]:
    """The parts by name, compiled at their first use.

    Args:
        folder: of `inputs.npz` and `weights.npz`.
    """
    inputs: Arrays = dict(np.load(folder / "inputs.npz"))
    count = len(inputs["proposals"])

    def make_model() -> Any:
        model = abstract(MODEL, rpn={"evaluation": {"count": count}})
        load_tensors(model, dict(np.load(folder / "weights.npz")), "the random weights")
        model.sampling = nnx.Rngs(0)["sampling"].fork()  # has no weight
        return model

    model = functools.cache(make_model)  # training, which changes weights, has one of its own

    size = jnp.array([inputs["image"].shape[1:3]], jnp.int32)
    image = jnp.asarray(inputs["image"])
    levels = [jnp.asarray(inputs[f"level{number}"]) for number in range(5)]
    dense = DenseOutputs(
        [jnp.asarray(inputs[f"logits{number}"]).reshape(1, -1) for number in range(5)],
        [jnp.asarray(inputs[f"deltas{number}"]).reshape(1, -1, 4) for number in range(5)],
        [(level.shape[1], level.shape[2]) for level in levels],
    )
    rpn = dense.logits, dense.deltas
    proposals = jnp.asarray(inputs["proposals"])[None]
    live = jnp.ones((1, count), bool)
    head = jnp.asarray(inputs["class_logits"])[None], jnp.asarray(inputs["class_deltas"])[None]

    def propose(model: Any, logits: Any, deltas: Any) -> Proposals:
        return model.rpn.propose(DenseOutputs(logits, deltas, dense.sizes), size, model.config.rpn.evaluation)

    def detections(model: Any, boxes: jax.Array, logits: jax.Array, deltas: jax.Array) -> Detections:
        return model.regions.box.detect(boxes, live, logits, deltas, size, model.config.regions.detection)

    def rest(model: Any, levels: Any, logits: Any, deltas: Any) -> Detections:
        return model.detect(levels, size, propose(model, logits, deltas))

    def features(bins: int, levels: Any, boxes: jax.Array) -> jax.Array:
        return region_features(levels, boxes, jnp.ones(boxes.shape[:2], bool), bins)

    def pasted() -> Part:
        masks, boxes, pixels = inputs["masks"], inputs["found"], inputs["image"].shape[1:3]
        run = functools.partial(paste_masks, masks, boxes, *pixels)
        return Part(run, lambda: masks.nbytes + boxes.nbytes + run().nbytes)

    def best(boxes: jax.Array, scores: jax.Array, groups: jax.Array) -> Any:
        return best_after_nms(boxes, scores, jnp.ones(len(boxes), bool), 0.7, min(count, len(boxes)), groups)

    def of_model(function: Callable[..., Any], *arrays: Any) -> Callable[[], Part]:
        return lambda: _of_model(model(), function, arrays)

    return {
        "backbone": of_model(lambda model, image: model.backbone.features(image), image),
        "pyramid": of_model(lambda model, image: model.levels(image), image),
        "rpn_head": of_model(lambda model, levels: model.rpn(levels)[:2], levels),
        "proposals": of_model(propose, *rpn),
        **{
            f"nms_{n}": functools.partial(
                _compiled, best, tuple(jnp.asarray(inputs[f"nms{n}_{kind}"]) for kind in ("boxes", "scores", "groups"))
            )
            for n in NMS_COUNTS
        },
        "roi_align_box": functools.partial(_compiled, functools.partial(features, box_head.BINS), (levels, proposals)),
        "box_head": of_model(lambda model, x: model.regions.box(x), jnp.asarray(inputs["features"])[None]),
        "detections": of_model(detections, proposals, *head),
        "roi_align_mask": functools.partial(
            _compiled, functools.partial(features, mask_head.BINS), (levels, jnp.asarray(inputs["found"])[None])
        ),
        "paste_masks": pasted,
        "rest": of_model(rest, levels, *rpn),
        "forward": of_model(lambda model, image: model(image), image),
        "training_step": lambda: _training_step(make_model(), inputs),
    }


def _of_model(model: Any, function: Callable[..., Any], arrays: tuple) -> Part:
    model.eval()
    structure, state = nnx.split(model)
    return _compiled(lambda state, *arrays: function(nnx.merge(structure, state), *arrays), (state, *arrays))


def _compiled(function: Callable[..., Any], arrays: tuple) -> Part:
    compiled, seconds = _compile(jax.jit(function), arrays)
    return Part(lambda: jax.block_until_ready(compiled(*arrays)), lambda: peak_bytes(compiled), seconds)


def _training_step(model: Any, inputs: Arrays) -> Part:
    """Forward, backward and SGD with momentum of the parameters that are not frozen."""
    model.train()
    model.backbone.eval()
    trained = nnx.All(nnx.Param, Unfrozen(FROZEN))
    optimizer = nnx.Optimizer(model, optax.sgd(1e-4, momentum=0.9), wrt=trained)
    structure, state = nnx.split((model, optimizer))
    images = jnp.asarray(inputs["train_images"])
    sizes = jnp.full((len(images), 2), jnp.array(images.shape[1:3], jnp.int32)[None])
    labels = jnp.asarray(inputs["train_labels"])
    truths = Truths(jnp.asarray(inputs["train_boxes"]), labels, jnp.ones(labels.shape, bool))

    def step(state: nnx.State, images: jax.Array, sizes: jax.Array, truths: Truths) -> tuple[Any, jax.Array]:
        model, optimizer = nnx.merge(structure, state)
        loss, gradients = nnx.value_and_grad(
            lambda model: total_loss(model.loss(images, sizes, truths)), argnums=nnx.DiffState(0, trained)
        )(model)
        optimizer.update(model, gradients)
        return nnx.state((model, optimizer)), loss

    batch = images, sizes, truths
    compiled, seconds = _compile(
        jax.jit(step, donate_argnums=0, compiler_options=compiler_options(data_mesh())), (state, *batch)
    )
    state = jax.tree.map(jnp.copy, state)  # the step gives its arguments away

    def run() -> None:
        nonlocal state
        state, loss = jax.block_until_ready(compiled(state, *batch))
        if not jnp.isfinite(loss):
            raise ArithmeticError(f"expected a finite loss, got {float(loss)}")

    memory: Any = compiled.memory_analysis()
    return Part(run, lambda: peak_bytes(compiled) - memory.alias_size_in_bytes, seconds)


def _compile(function: Any, arrays: tuple) -> tuple[jax.stages.Compiled, float]:
    start = time.perf_counter()
    compiled = function.lower(*arrays).compile()
    return compiled, time.perf_counter() - start


if __name__ == "__main__":
    serve(make_parts(Path(sys.argv[1])), f"jax {version('jax')}")
