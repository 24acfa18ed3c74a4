"""The errors of wrong calls state the rule, the expected and the given value."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from pallas_kernels import dynamic_filter, dynamic_upsample, neighborhood_attention
from pallas_kernels.ops import xla
from pallas_kernels.ops.spec import FilterSpec

X, SPATIAL, CHANNEL = jnp.zeros((2, 5, 6, 4)), jnp.zeros((2, 5, 6, 2, 9)), jnp.zeros((2, 9, 4))
UP_SPATIAL, UP_CHANNEL = jnp.zeros((2, 5, 6, 4, 2, 9)), jnp.zeros((2, 4, 9, 4))


def zeros(*shape, dtype=jnp.float32):
    return jnp.zeros(shape, dtype)


POSITIVE = "must be an int ≥ 1 or two of them (height, width)"

WRONG_FILTER_CALLS = {
    "x is None": ((None, SPATIAL, CHANNEL), {}, "`x` must be an array [B, H, W, C], got None."),
    "x of rank 3": (
        (zeros(5, 6, 4), SPATIAL, CHANNEL),
        {},
        "`x` must be [B, H, W, C] with no empty axis but the batch, got (5, 6, 4). "
        "The batch axis is missing: pass x[None], and filters alike.",
    ),
    "x with an empty axis": (
        (zeros(2, 0, 6, 4), SPATIAL, CHANNEL),
        {},
        "`x` must be [B, H, W, C] with no empty axis but the batch, got (2, 0, 6, 4).",
    ),
    "x of integers": (
        (zeros(2, 5, 6, 4, dtype=jnp.int32), SPATIAL, CHANNEL),
        {},
        "`x` must have a dtype of float32, bfloat16, float16, float64, got int32. Cast it first.",
    ),
    "spatial of integers": (
        (X, SPATIAL.astype(jnp.int8), CHANNEL),
        {},
        "`spatial` must have a dtype of float32, bfloat16, float16, float64, got int8. Cast it first.",
    ),
    "channel of complex numbers": (
        (X, SPATIAL, CHANNEL.astype(jnp.complex64)),
        {},
        "`channel` must have a dtype of float32, bfloat16, float16, float64, got complex64. Cast it first.",
    ),
    "no filter": ((X, None, None), {}, "`spatial` and `channel` must not both be None: there would be no filter."),
    "spatial of rank 0": ((X, zeros(), None), {}, "`spatial` must end in [G, T], got ()."),
    "T is no square": (
        (X, zeros(2, 5, 6, 2, 8), None),
        {},
        "T must be the square of an odd kernel size (1, 9, 25, 49, …), "
        "got 8 from the last axis of spatial (2, 5, 6, 2, 8). "
        "For another kernel give `kernel_size=(height, width)`.",
    ),
    "even K": (
        (X, None, zeros(2, 16, 4)),
        {},
        "T must be the square of an odd kernel size (1, 9, 25, 49, …), "
        "got 16 from the last axis but one of channel (2, 16, 4). "
        "For another kernel give `kernel_size=(height, width)`.",
    ),
    "T is 0": (
        (X, zeros(2, 5, 6, 2, 0), None),
        {},
        "T must be the square of an odd kernel size (1, 9, 25, 49, …), "
        "got 0 from the last axis of spatial (2, 5, 6, 2, 0). "
        "For another kernel give `kernel_size=(height, width)`.",
    ),
    "spatial for another stride": (
        (X, SPATIAL, CHANNEL),
        {"stride": 2},
        "`spatial` must be [B, ceil(H/stride), ceil(W/stride), G, T] = (2, 3, 3, G, 9), "
        "got (2, 5, 6, 2, 9) for x.shape=(2, 5, 6, 4), stride=2.",
    ),
    "spatial of rank 4": (
        (X, zeros(2, 5, 6, 9), CHANNEL),
        {},
        "`spatial` must be [B, ceil(H/stride), ceil(W/stride), G, T] = (2, 5, 6, G, 9), "
        "got (2, 5, 6, 9) for x.shape=(2, 5, 6, 4), stride=1.",
    ),
    "channel of another T": (
        (X, SPATIAL, zeros(2, 25, 4)),
        {},
        "`channel` must be [B, T, C] = (2, 9, 4), got (2, 25, 4) for x.shape=(2, 5, 6, 4).",
    ),
    "channel with its axes swapped": (
        (X, SPATIAL, zeros(2, 4, 9)),
        {},
        "`channel` must be [B, T, C] = (2, 9, 4), got (2, 4, 9) for x.shape=(2, 5, 6, 4).",
    ),
    "channel of rank 1": ((X, None, zeros(9)), {}, "`channel` must end in [T, C], got (9,)."),
    "groups that do not divide": (
        (X, zeros(2, 5, 6, 3, 9), CHANNEL),
        {},
        "The groups of `spatial` must divide the channels of `x`: C=4, got G=3.",
    ),
    "no group": (
        (X, zeros(2, 5, 6, 0, 9), CHANNEL),
        {},
        "The groups of `spatial` must divide the channels of `x`: C=4, got G=0.",
    ),
    "stride 0": ((X, SPATIAL, CHANNEL), {"stride": 0}, f"`stride` {POSITIVE}, got 0."),
    "stride of three": ((X, SPATIAL, CHANNEL), {"stride": (1, 1, 1)}, f"`stride` {POSITIVE}, got (1, 1, 1)."),
    "stride True": ((X, SPATIAL, CHANNEL), {"stride": True}, f"`stride` {POSITIVE}, got True."),
    "dilation 0": ((X, SPATIAL, CHANNEL), {"dilation": 0}, f"`dilation` {POSITIVE}, got 0."),
    "stride True of NumPy": ((X, SPATIAL, CHANNEL), {"stride": np.True_}, f"`stride` {POSITIVE}, got np.True_."),
    "dilation 1.0": ((X, SPATIAL, CHANNEL), {"dilation": 1.0}, f"`dilation` {POSITIVE}, got 1.0."),
    "kernel size of another T": (
        (X, SPATIAL, CHANNEL),
        {"kernel_size": (1, 3)},
        "T must be 1·3 for kernel_size=(1, 3), got 9 from the last axis of spatial (2, 5, 6, 2, 9).",
    ),
    "padding": (
        (X, SPATIAL, CHANNEL),
        {"padding": "FULL"},
        "`padding` must be 'SAME', 'VALID' or ((top, bottom), (left, right)) ≥ 0, got 'FULL'.",
    ),
    "negative padding": (
        (X, SPATIAL, CHANNEL),
        {"padding": ((0, 0), (-1, 0))},
        "`padding` must be 'SAME', 'VALID' or ((top, bottom), (left, right)) ≥ 0, got ((0, 0), (-1, 0)).",
    ),
    "padding mode": (
        (X, SPATIAL, CHANNEL),
        {"padding_mode": "circular"},
        "`padding_mode` must be one of ('zeros', 'reflect', 'replicate'), got 'circular'.",
    ),
    "a mirror that is too small": (
        (X, SPATIAL, CHANNEL),
        {"padding_mode": "reflect", "dilation": 5},
        "padding_mode='reflect' needs H > the padding, got H=5 for padding=((5, 5), (5, 5)).",
    ),
    "an image smaller than the filter": (
        (X, SPATIAL, CHANNEL),
        {"padding": "VALID", "dilation": 3},
        "The padded `x` must be at least as large as the filter, got (H, W) = (5, 6) for kernel_size=(3, 3), "
        "dilation=(3, 3). Add padding.",
    ),
    "normalize": (
        (X, SPATIAL, CHANNEL),
        {"normalize": "sum"},
        "`normalize` must be None or one of ('softmax', 'filter_norm'), got 'sum'.",
    ),
    "normalize without a spatial filter": (
        (X, None, CHANNEL),
        {"normalize": "softmax"},
        "`spatial` must be given where it is normalised, got None for normalize='softmax'.",
    ),
    "filter_norm of one tap": (
        (X, SPATIAL[..., :1], None),
        {"normalize": "filter_norm"},
        "normalize='filter_norm' needs at least 2 taps: one has no deviation, got 1.",
    ),
    "combine": ((X, SPATIAL, CHANNEL), {"combine": "sum"}, "`combine` must be 'mul' or 'add', got 'sum'."),
    "gain of several numbers": (
        (X, SPATIAL, None),
        {"normalize": "filter_norm", "gain": np.ones(2)},
        "`gain` must be a number that is known while tracing, got array([1., 1.]). Multiply an array by a traced one.",
    ),
}

WRONG_UPSAMPLE_CALLS = {
    "scale 0": ((X, UP_SPATIAL, UP_CHANNEL), {"scale": 0}, "`scale` must be an int ≥ 1, got 0."),
    "spatial for another scale": (
        (X, UP_SPATIAL, UP_CHANNEL),
        {"scale": 3},
        "`spatial` must be [B, H, W, S², G, T] = (2, 5, 6, 9, G, 9), "
        "got (2, 5, 6, 4, 2, 9) for x.shape=(2, 5, 6, 4), scale=3.",
    ),
    "channel without sub-pixels": (
        (X, UP_SPATIAL, CHANNEL),
        {"scale": 2},
        "`channel` must be [B, S², T, C] = (2, 4, 9, 4), got (2, 9, 4) for x.shape=(2, 5, 6, 4), scale=2.",
    ),
    "groups that do not divide": (
        (X, zeros(2, 5, 6, 4, 3, 9), None),
        {"scale": 2},
        "The groups of `spatial` must divide the channels of `x`: C=4, got G=3.",
    ),
    "no filter": (
        (X, None, None),
        {"scale": 2},
        "`spatial` and `channel` must not both be None: there would be no filter.",
    ),
    "dilation 0": (
        (X, UP_SPATIAL, UP_CHANNEL),
        {"scale": 2, "dilation": 0},
        f"`dilation` {POSITIVE}, got 0.",
    ),
    "x of integers": (
        (X.astype(jnp.int32), UP_SPATIAL, UP_CHANNEL),
        {"scale": 2},
        "`x` must have a dtype of float32, bfloat16, float16, float64, got int32. Cast it first.",
    ),
}


def message_of(function, arrays, options):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole message is compared
        function(*arrays, **options)
    return str(caught.value)


@pytest.mark.parametrize(("arrays", "options", "message"), WRONG_FILTER_CALLS.values(), ids=WRONG_FILTER_CALLS)
def test_a_wrong_call_of_dynamic_filter_states_rule_expected_and_given(arrays, options, message):
    assert message_of(dynamic_filter, arrays, options) == message


@pytest.mark.parametrize(("arrays", "options", "message"), WRONG_UPSAMPLE_CALLS.values(), ids=WRONG_UPSAMPLE_CALLS)
def test_a_wrong_call_of_dynamic_upsample_states_rule_expected_and_given(arrays, options, message):
    assert message_of(dynamic_upsample, arrays, options) == message


@pytest.mark.parametrize("function", [dynamic_filter, lambda *arrays, **options: dynamic_upsample(*arrays, scale=2)])
def test_a_wrong_call_is_refused_while_tracing(function):
    with pytest.raises(ValueError, match="`channel` must be"):
        jax.jit(function)(X, None, zeros(3, 9, 4))


@pytest.mark.parametrize("implementation", ["cuda", 5, [["xla"]]], ids=str)
def test_an_unknown_implementation_is_an_error_that_names_the_known(implementation):
    message = message_of(dynamic_filter, (X, SPATIAL, CHANNEL), {"implementation": implementation})
    assert message.startswith("`implementation` must be None or one or several of [")
    assert "'xla'" in message
    assert message.endswith(f"got {implementation!r}.")


def test_numpy_arrays_and_lists_are_arrays():
    filter_any: Any = dynamic_filter
    expected = dynamic_filter(X + 1, SPATIAL + 1, None)
    np.testing.assert_array_equal(filter_any(np.asarray(X + 1), np.asarray(SPATIAL + 1), None), expected)
    assert filter_any([[[[1.0]]]], None, [[[2.0]]]).tolist() == [[[[2.0]]]]


def test_integers_of_numpy_are_options_like_any():
    filter_any: Any = dynamic_filter
    upsample_any: Any = dynamic_upsample
    options = {"stride": np.int64(2), "dilation": np.uint8(2), "padding": np.full((2, 2), 2)}
    spatial = zeros(2, 3, 3, 1, 9)
    assert jax.eval_shape(lambda: filter_any(X, spatial, None, **options)).shape == (2, 3, 3, 4)
    scale = np.int32(2)
    assert jax.eval_shape(lambda: upsample_any(X, UP_SPATIAL, UP_CHANNEL, scale=scale)).shape == (2, 10, 12, 4)


def test_the_portable_implementation_is_the_default_on_a_cpu(monkeypatch):
    ran = []

    def forward(x, spatial, channel, spec, dtype):
        ran.append(spec)
        return x

    monkeypatch.setattr(xla, "forward", forward)
    # A call that no other test makes, so that none has left it compiled.
    dynamic_filter(zeros(1, 3, 2, 1), None, zeros(1, 9, 1), dilation=5)
    assert ran == [FilterSpec(3, dilation=5)]


def _attention(x: Array) -> Array:
    return neighborhood_attention(x, x, x, kernel_size=1, num_heads=1)


@pytest.mark.parametrize("function", [lambda x: dynamic_filter(x, x[..., None], None), _attention])
def test_operations_run_one_by_one_where_jit_is_disabled_or_nans_are_looked_for(function):
    x = jnp.full((1, 1, 2, 1), 3.0)
    with jax.disable_jit():
        y = function(x)
    np.testing.assert_array_equal(y, function(np.asarray(x)))
    with jax.debug_nans(True), pytest.raises(FloatingPointError, match="nan"):
        jax.jit(function)(x.at[0, 0, 0, 0].set(np.nan))
