"""Times the layers on this machine next to a 3×3 and a depthwise 3×3 convolution.

    python -m ddf_jax bench layer --against torch

Each layer as a drop-in replacement for a convolution that keeps the channels, with its default options, in float32;
upsamplers double height and width. `forward` is the layer in evaluation mode, `forward_backward` that in training mode
with the gradients of its sum by the input and all parameters. With `torch` the port's layer takes turns with ours.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from ddf_jax import layers
from experiments.benchmarks.rows import Row, row_environment, row_time
from pallas_kernels.tuning.timing import PASSES, Pass, Program, compiled_program, time_programs

Layer = Callable[..., nnx.Module]
"""(channels, rngs=...) to a layer."""

SHAPE = (2, 28, 28, 128)  # the middle of a ResNet-50


def _square(layer: Any) -> Layer:
    """The layer from C to C channels."""
    return lambda channels, **options: layer(channels, channels, **options)


LAYERS: Mapping[str, Layer] = {
    "conv3x3": _square(layers.Conv),
    "depthwise3x3": lambda channels, **options: layers.Conv(channels, channels, groups=channels, **options),
    "ddf": layers.DDF,
    "involution": layers.Involution,
    "bivolution": layers.Bivolution,
    "bivolution_ddf": functools.partial(layers.Bivolution, dynamic=layers.DDF),
    "dcdc": layers.DCDC,
    "condconv": _square(layers.CondConv),
    "depthwise_condconv": layers.DepthwiseCondConv,
    "dynamic_conv": _square(layers.DynamicConv),
    "odconv": _square(layers.ODConv),
    "dcd": _square(layers.DCD),
    "depthwise_weightnet": layers.DepthwiseWeightNet,
    "pac": layers.PAC,
    "san_pairwise": _square(layers.SelfAttentionModule),
    "san_patchwise": _square(functools.partial(layers.SelfAttentionModule, relation="patchwise")),
    "self_attention": _square(layers.SelfAttention),
    "local_relation": layers.LocalRelation,
    "neighborhood_attention": functools.partial(layers.NeighborhoodAttention, heads=4),
    "axial_attention": functools.partial(layers.AxialAttention, length=28),
    "ddf_up": layers.DDFUp,
    "carafe": layers.CARAFE,
    "pixel_shuffle": layers.PixelShuffle,
    "deconvolution": layers.Deconvolution,
}


def measure(
    names: Sequence[str] = (*LAYERS,), *, shape: Sequence[int] = SHAPE, rounds: int = 7, torch: bool = False
) -> list[Row]:
    """A row for each layer, framework and pass.

    Args:
        names: of `LAYERS`.
        shape: [B, H, W, C] of the input.
        rounds: turns of each program; a layer's two frameworks take turns.
        torch: also the port's layer, where there is one.
    """
    rows = []
    for name in names:
        layer = LAYERS[name](shape[-1], rngs=nnx.Rngs(0))
        parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(layer, nnx.Param)))
        for which in PASSES:
            programs = {"jax": layer_program(layer, shape, which)}
            if torch:
                from experiments.benchmarks import torch_peers

                if name in torch_peers.LAYERS:
                    programs["torch"] = torch_peers.layer_program(name, shape, which)
            for framework, seconds in time_programs(programs, rounds).items():
                program = programs[framework]
                rows.append(
                    {"implementation": framework, "layer": name, "shape": "x".join(map(str, shape))}
                    | {"dtype": "float32", "pass": which}
                    | row_time(seconds, program.clock, program.peak_bytes)
                    | {"parameters": parameters}
                    | row_environment(framework, jax.devices()[0].device_kind)
                )
    return rows


def lower_layer(layer: Any, shape: Sequence[int], which: Pass) -> tuple[jax.stages.Lowered, tuple[Any, ...]]:
    """The layer as a function of its state and an input, not yet compiled; and these arrays."""
    (layer.eval if which == "forward" else layer.train)()
    structure, state = nnx.split(layer)
    x = np.random.default_rng(0).standard_normal(shape, np.float32)

    def forward(state: nnx.State, x: jax.Array) -> jax.Array:
        return nnx.merge(structure, state)(x)

    def forward_backward(state: nnx.State, x: jax.Array) -> Any:
        loss = nnx.value_and_grad(lambda layer, x: layer(x).sum(), argnums=(0, 1))
        return loss(nnx.merge(structure, state), x)

    arrays = (state, jax.device_put(x))
    return jax.jit(forward if which == "forward" else forward_backward).lower(*arrays), arrays


def layer_program(layer: Any, shape: Sequence[int], which: Pass) -> Program:
    lowered, arrays = lower_layer(layer, shape, which)
    return compiled_program(lowered.compile(), arrays)


def to_table(rows: Sequence[Row]) -> str:
    """Milliseconds of both passes and MiB, and how many times as long as a depthwise convolution; PyTorch's times."""
    cells = {(row["implementation"], row["layer"], row["pass"]): row for row in rows}
    lines = [
        f"{'layer':24}{'parameters':>12}{'forward, ms':>24}{'forward + backward, ms':>26}{'MiB':>8}{'torch, ms':>22}"
    ]
    for name in dict.fromkeys(row["layer"] for row in rows):
        both = [cells["jax", name, which] for which in PASSES]
        base = [cells.get(("jax", "depthwise3x3", which)) for which in PASSES]
        times = [
            f"{row['median_ms']:.2f} ± {row['quartile_distance_ms']:.2f}"
            + (f" ({row['median_ms'] / beside['median_ms']:.1f}×)" if beside else "")
            for row, beside in zip(both, base, strict=True)
        ]
        port = " ".join(
            f"{cells['torch', name, which]['median_ms']:.2f}" for which in PASSES if ("torch", name, which) in cells
        )
        memory = both[-1]["peak_bytes"] / 2**20
        lines.append(f"{name:24}{both[0]['parameters']:12,}{times[0]:>24}{times[1]:>26}{memory:8.0f}{port:>22}")
    return "\n".join(lines) + "\n"
