"""Other ways to compute the operator, or what stands in its place, that `gpu_suite` times beside it."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gpu_clock import Measured, measure_torch
from pallas_kernels.dynamic_filter import reference
from pallas_kernels.dynamic_filter.arg_specs import ArgSpec
from pallas_kernels.dynamic_filter.spec import FilterSpec


def unfold(spec: FilterSpec, x: jax.Array, spatial: jax.Array, channel: jax.Array) -> jax.Array:
    """The operator as im2col and a product: T times the memory of x."""
    views = jnp.stack([view for _, view in reference.taps(x, spec)], axis=-1)  # [B, Ho, Wo, C, T]
    filters = spatial[:, :, :, 0].astype(jnp.float32) * channel[:, 0].astype(jnp.float32).swapaxes(1, 2)[:, None, None]
    return jnp.sum(views.astype(jnp.float32) * filters, axis=-1).astype(x.dtype)


def depthwise(x: jax.Array, spec: FilterSpec) -> jax.Array:
    """A static depthwise convolution of the same size: not the same result, but what a network would use instead."""
    kernel_size, channels = spec.kernel_size, x.shape[-1]
    kernel = jnp.full((kernel_size, kernel_size, 1, channels), 1 / spec.taps, x.dtype)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (spec.stride, spec.stride),
        [(spec.reach, spec.reach)] * 2,
        rhs_dilation=(spec.dilation,) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=channels,
    )


def torch_candidates(arg: ArgSpec, dtype: str) -> Iterator[tuple[str, str, Callable[[], Measured]]]:
    """(name, pass, measurement) of PyTorch's ways."""
    import torch  # pyright: ignore[reportMissingImports]  # optional
    from torch.nn import functional  # pyright: ignore[reportMissingImports]

    from experiments.benchmarks.torch_unfold import dynamic_filter

    device = "cuda" if torch.cuda.is_available() else "cpu"
    spec, (x, spatial, channel) = arg.spec, arg.arrays()

    def to_torch(array):
        return torch.tensor(np.asarray(array, np.float32), device=device, dtype=getattr(torch, dtype))

    # As the official code has them: x [B, C, H, W], spatial [B, T, Ho, Wo], channel [B, C, T].
    x, spatial = to_torch(x).permute(0, 3, 1, 2).contiguous(), to_torch(spatial)[:, :, :, 0, 0].permute(0, 3, 1, 2)
    channel = to_torch(channel)[:, 0].permute(0, 2, 1).contiguous()
    kernel = torch.full(
        (x.shape[1], 1, spec.kernel_size, spec.kernel_size), 1 / spec.taps, device=device, dtype=x.dtype
    )

    def torch_unfold(x, spatial, channel):
        return dynamic_filter(x, spatial, channel, stride=spec.stride, dilation=spec.dilation)

    def torch_depthwise(x, spatial, channel):
        return functional.conv2d(x, kernel, None, spec.stride, spec.reach, spec.dilation, x.shape[1])

    arrays = (x, spatial, channel)
    functions = {"torch_unfold": torch_unfold, "torch_depthwise": torch_depthwise}
    if device == "cuda":
        functions["torch_compiled_unfold"] = torch.compile(torch_unfold)
    for name, function in functions.items():
        yield name, "forward", lambda function=function: measure_torch(function, arrays)
        yield name, "forward_backward", lambda function=function: measure_torch(function, arrays, backward=True)
