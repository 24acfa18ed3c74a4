"""Convolutions: derivatives, and the programs they compile to."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddf_jax.functional import convolution, kernel_gradient
from ddf_jax.functional.few_channels import folded_convolution
from ddf_jax.layers import Conv, PointwiseConv
from tests.aot import ENVIRONMENT, needs_plugin

# As a GPU compiles it: XLA makes kernels of its own of matrix products, and fuses into them what it can.
STRIDED_ON_GPU = """
import jax, jax.numpy as jnp
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from ddf_jax.layers import PointwiseConv
from pallas_kernels import aot

def loss(state, x):
    return jnp.sin(nnx.merge(structure, state)(jnp.maximum(x, 0)).astype(jnp.float32)).sum()

def on_gpu(array):
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=NamedSharding(mesh, PartitionSpec()))

mesh = jax.make_mesh((1,), ("data",), devices=aot.compile_only_devices(aot.DEVICES["h200"], 1))
structure, state = nnx.split(nnx.eval_shape(lambda: PointwiseConv(256, 512, stride=2, rngs=nnx.Rngs(0))))
arrays = jax.tree.map(on_gpu, (state, jax.ShapeDtypeStruct((128, 56, 56, 256), jnp.bfloat16)))
with jax.set_mesh(mesh):
    jax.jit(jax.grad(loss, (0, 1))).lower(*arrays).compile({"xla_gpu_enable_triton_gemm": True})
"""


def test_the_gradient_of_a_pointwise_kernel_transposes_no_feature_map():
    structure, state = nnx.split(nnx.eval_shape(lambda: PointwiseConv(3, 5, rngs=nnx.Rngs(0))))

    def loss(state, x):
        return jnp.sin(nnx.merge(structure, state)(jnp.cos(x))).sum()

    x = jax.ShapeDtypeStruct((2, 4, 4, 3), jnp.float32)
    program = str(jax.jit(jax.grad(loss, argnums=(0, 1))).lower(state, x).compile().as_text())
    assert "f32[32,5]" in program
    assert "f32[3,32]" not in program
    assert "f32[5,32]" not in program


@needs_plugin
def test_the_gradient_of_a_strided_pointwise_kernel_compiles_for_a_gpu():
    done = subprocess.run([sys.executable, "-c", STRIDED_ON_GPU], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr  # XLA aborted


SQUARE, RECTANGULAR = ((3, 3), (2, 2), (2, 2)), ((3, 2), (2, 1), (1, 2))
DENSE, DEPTHWISE, GROUPED, WIDE = (1, 4, 128), (3, 3, 128), (3, 6, 128), (3, 6, 2)
QUICK = ((SQUARE, DENSE), (RECTANGULAR, DEPTHWISE), (RECTANGULAR, GROUPED))


@pytest.mark.parametrize(
    ("size", "strides", "dilation", "groups", "outputs", "narrow"),
    [
        pytest.param(*window, *channels, marks=() if (window, channels) in QUICK else pytest.mark.slow)
        for window in (SQUARE, RECTANGULAR)
        for channels in (DENSE, DEPTHWISE, GROUPED, WIDE)
    ],
)
def test_the_derivatives_of_a_convolution_are_those_of_xla(
    size, strides, dilation, groups, outputs, narrow, monkeypatch
):
    monkeypatch.setattr(kernel_gradient, "NARROW", narrow)
    with jax.enable_x64(True):
        shapes = (2, 7, 8, 3), (*size, 3 // groups, outputs)
        x, kernel = (np.random.default_rng(0).normal(size=shape) for shape in shapes)
        options = {"rhs_dilation": dilation, "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        options["feature_group_count"] = groups

        def derivatives(convolve):
            def y(x, kernel):
                return convolve(x, kernel, strides, ((2, 2), (2, 2)), **options)

            def loss(x, kernel):
                return (y(x, kernel) ** 3).sum()

            tangent = jax.jvp(y, (x, kernel), (x, kernel))[1]
            gradients = jax.grad(loss, argnums=(0, 1))
            return tangent, gradients(x, kernel), jax.jvp(gradients, (x, kernel), (x, kernel))[1]

        actual, expected = (
            jax.jit(derivatives, static_argnums=0)(f) for f in (convolution, jax.lax.conv_general_dilated)
        )
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12), actual, expected)


@pytest.mark.parametrize(("groups", "convolutions"), [(1, 1), (2, 1), (4, 0)])
def test_the_gradient_of_a_kernel_is_a_product_on_a_cpu(groups, convolutions):
    structure, state = nnx.split(nnx.eval_shape(lambda: Conv(4, 4, groups=groups, rngs=nnx.Rngs(0))))

    def gradient(state, x):
        return jax.value_and_grad(lambda state: (nnx.merge(structure, state)(x) ** 2).sum())(state)

    x = jax.ShapeDtypeStruct((2, 5, 5, 4), jnp.float32)
    program = jax.jit(gradient).trace(state, x).lower(lowering_platforms=("cpu",)).as_text()
    assert program.count("stablehlo.convolution") == convolutions
    assert jax.jit(gradient).trace(state, x).lower(lowering_platforms=("cuda",)).as_text().count("convolution(") == 2


@pytest.mark.parametrize(
    ("size", "padding"), [(7, ((3, 3), (3, 3))), (3, ((1, 1), (1, 1))), (4, ((0, 3), (2, 1))), (1, ((0, 0), (0, 2)))]
)
def test_a_folded_convolution_is_that_of_xla(size, padding):
    with jax.enable_x64(True):
        x, kernel = (np.random.default_rng(0).normal(size=size) for size in ((2, 10, 8, 3), (size, size, 3, 5)))

        def direct(x, kernel, padding):
            return jax.lax.conv_general_dilated(x, kernel, (2, 2), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))

        @functools.partial(jax.jit, static_argnums=0)
        def derivatives(convolve):
            y, pull_back = jax.vjp(lambda x, kernel: convolve(x, kernel, padding), x, kernel)
            return y, pull_back(jnp.cos(y))

        actual, expected = derivatives(folded_convolution), derivatives(direct)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12), actual, expected)


@pytest.mark.parametrize(
    ("channels", "stride", "size", "folded"), [(3, 2, 10, True), (3, 2, 9, False), (3, 1, 10, False), (8, 2, 10, False)]
)
def test_a_gpu_folds_convolutions_of_images_with_a_stride(channels, stride, size, folded):
    structure, state = nnx.split(nnx.eval_shape(lambda: Conv(channels, 8, stride=stride, rngs=nnx.Rngs(0))))

    def loss(state, x):
        return (nnx.merge(structure, state)(x) ** 2).sum()

    x = jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32)
    for platform, of_blocks in (("cuda", 2 * folded), ("cpu", 0)):
        program = jax.jit(jax.grad(loss)).trace(state, x).lower(lowering_platforms=(platform,)).as_text()
        assert program.count("tensor<2x5x5x16xf32>") >= of_blocks
        assert ("tensor<2x5x5x16xf32>" in program) == bool(of_blocks)
