"""Parameters and multiply-accumulates (MACs) of a model, counted in the jaxpr of its evaluation.

The count allocates no array and needs no list of layer types: the jaxpr of any model has its convolutions and matrix
products. Papers print one of two numbers, or (the involution repository's detectors) mmcv's with dynamic filters, or
(SANs) what the counter of their repository gives:

**core**: convolutions, matrix products and dynamic filters. For each output value a K×K convolution costs K²·C/groups,
a dynamic filter T; a local correlation costs T for each value of the query, attention in a neighbourhood both.

**mmcv**: the number of mmcv 1's flops counter, used by papers built on it. It counts convolutions and matrix products
with a learned operand, 1 for each output of a bias, 2 for each of a batch normalisation, 1 for each input of a ReLU or
a pooling layer and for each output of a resizing (`jax.image.resize`). Operations without a layer class in torch cost
nothing: dynamic filters, attention's products, convolutions with a generated kernel. (One detail differs: mmcv omits
the bias of a fully connected layer, which is counted here.)

**san**: mmcv's number, dynamic filters, and 1 for each difference of two values that are computed from the input. (Two
details differ: SAN's counter omits the bias of a fully connected layer and counts a 1×1 convolution of the coordinates,
which depends on no image.)
"""

import dataclasses
import enum
import functools
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.extend.core import Jaxpr, JaxprEqn, Literal, jaxprs_in_params

from pallas_kernels import operator_macs


@dataclasses.dataclass(frozen=True)
class Complexity:
    """The size of a model: parameters, and multiply-accumulates for the counted inputs."""

    params: int
    macs_core: int
    macs_mmcv: int
    macs_dynamic: int = 0
    """Of dynamic filters alone: in `macs_core`, not in `macs_mmcv`."""
    differences: int = 0
    """Differences of two values that are computed from the input; no multiply-accumulates."""

    @property
    def macs_san(self) -> int:
        """Multiply-accumulates as SAN's counter has them."""
        return self.macs_mmcv + self.macs_dynamic + self.differences

    def __add__(self, other: "Complexity") -> "Complexity":
        return Complexity(*map(operator.add, dataclasses.astuple(self), dataclasses.astuple(other)))

    def __sub__(self, other: "Complexity") -> "Complexity":
        return self + -1 * other

    def __rmul__(self, copies: int) -> "Complexity":
        return Complexity(*(copies * value for value in dataclasses.astuple(self)))


def total(parts: Iterable[Complexity]) -> Complexity:
    """The sum of sizes."""
    return functools.reduce(operator.add, parts, Complexity(0, 0, 0))


def complexity(model: nnx.Module, *inputs: Any) -> Complexity:
    """Counts `model(*inputs)` in evaluation mode, and leaves the model in that mode.

    Args:
        model: with arrays or, from `nnx.eval_shape`, with shapes.
        *inputs: shapes and dtypes (`jax.ShapeDtypeStruct`); papers print the numbers of a batch of one.

    Raises:
        NotImplementedError: there are MACs in a loop with a dynamic number of iterations.

    >>> import jax.numpy as jnp
    >>> layer = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    >>> complexity(layer, jax.ShapeDtypeStruct((1, 4), jnp.float32))
    Complexity(params=15, macs_core=12, macs_mmcv=15, macs_dynamic=0, differences=0)
    """
    model.eval()
    structure, parameters, statistics, rest = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
    arguments = parameters, statistics, rest, inputs
    program = jax.make_jaxpr(lambda p, s, r, x: nnx.merge(structure, p, s, r)(*x))(*arguments)
    kinds = Origin.PARAMETERS, Origin.STATISTICS, Origin.NOTHING, Origin.INPUTS
    origins = [kind for kind, tree in zip(kinds, arguments, strict=True) for _ in jax.tree.leaves(tree)]
    macs = _program(program.jaxpr, origins)
    return Complexity(sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(parameters)), *macs)


class Macs(NamedTuple):
    """MACs in two conventions, those of dynamic filters, and differences."""

    core: int
    mmcv: int
    dynamic: int = 0
    differences: int = 0


class Origin(enum.Flag):
    """The sources of a value; a constant has none."""

    NOTHING = 0
    PARAMETERS = enum.auto()
    STATISTICS = enum.auto()  # running ones, of batch normalisation
    INPUTS = enum.auto()
    PRODUCT = enum.auto()  # and the value is the direct result of a convolution or matrix product


def _program(program: Jaxpr, origins: Sequence[Origin]) -> Macs:
    """The cost of a program whose last inputs have these origins."""
    known = dict(zip(reversed(program.invars), reversed(origins), strict=False))
    costs = []
    for equation in program.eqns:
        sources = [_NOTHING if isinstance(v, Literal) else known.get(v, _NOTHING) for v in equation.invars]
        costs.append(_equation(equation, sources))
        result, name = _union(sources), equation.primitive.name
        if _is_product(equation):
            result |= Origin.PRODUCT
        elif name not in _RESHAPINGS:
            result &= ~Origin.PRODUCT
        known.update(dict.fromkeys(equation.outvars, result))
    return _sum(costs)


def _equation(equation: JaxprEqn, origins: Sequence[Origin]) -> Macs:
    if Origin.INPUTS not in _union(origins):
        return _FREE  # once for a model, not for each image
    name = equation.primitive.name
    if name in _COSTS:
        return _COSTS[name](equation, origins)
    inner = list(jaxprs_in_params(equation.params))
    if (macs := operator_macs(equation)) is not None:
        return Macs(macs, 0, macs)
    if name == "jit" and _is_of(inner[0], jax.image.resize):
        return _resizing(equation)
    # The inputs of an inner program are the last ones of its equation (a `cond` has its index before them).
    costs = [_program(program, origins) for program in inner]
    if name == "cond":
        return max(costs) if (default := _default_branch(equation)) is None else costs[default]
    if name == "while" and _sum(costs) != _FREE:
        raise NotImplementedError("MACs in a `jax.lax.while_loop` cannot be counted; use `scan` or `fori_loop`.")
    rounds = equation.params["length"] if name == "scan" else 1
    return Macs(*(rounds * macs for macs in _sum(costs)))


def _is_product(equation: JaxprEqn) -> bool:
    """Whether it is a convolution or matrix product, perhaps with a derivative of its own or another for a platform."""
    inner = list(jaxprs_in_params(equation.params))
    if equation.primitive.name == "custom_jvp_call":
        (program,) = inner
    elif (default := _default_branch(equation)) is not None:
        program = inner[default]
    else:
        return equation.primitive.name in _PRODUCTS
    *others, last = program.eqns
    return _is_product(last) and all(other.primitive.name == "platform_index" for other in others)


def _default_branch(equation: JaxprEqn) -> int | None:
    """Of a choice by platform: which branch is that of all others. It is the one that is counted."""
    platforms = equation.params.get("branches_platforms")
    return None if platforms is None else platforms.index(None)


def _is_of(program: Jaxpr, function: Any) -> bool:
    """Whether the program is traced from the file of a public function. (A jaxpr does not keep its name.)"""
    return program.debug_info.func_filename == function.__code__.co_filename


def _resizing(equation: JaxprEqn) -> Macs:
    return Macs(0, _size(equation.outvars[0]))  # its weights are constant


def _convolution(equation: JaxprEqn, origins: Sequence[Origin]) -> Macs:
    numbers = equation.params["dimension_numbers"]
    kernel = list(_shape(equation.invars[1]))
    del kernel[numbers.rhs_spec[0]]  # the output channels; [K, K, C / groups] are left, in some order
    # A transposed convolution has zeros between its inputs: one in `zeros` values is not 0.
    zeros = math.prod(equation.params["lhs_dilation"])
    return _weighted(_size(equation.outvars[0]) * math.prod(kernel) // zeros, origins)


def _product(equation: JaxprEqn, origins: Sequence[Origin]) -> Macs:
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = _shape(equation.invars[0])
    return _weighted(_size(equation.outvars[0]) * math.prod(shape[axis] for axis in contracted), origins)


def _weighted(macs: int, origins: Sequence[Origin]) -> Macs:
    """One operand is computed from the inputs; the other one is constant (as in a resizing), learned or generated."""
    if _NOTHING in origins:
        return _FREE
    generated = all(Origin.INPUTS in origin for origin in origins)
    return Macs(macs, 0 if generated else macs)


def _bias(equation: JaxprEqn, origins: Sequence[Origin]) -> Macs:
    is_bias = Origin.PRODUCT in _union(origins) and Origin.PARAMETERS in origins
    return Macs(0, _size(equation.outvars[0]) if is_bias else 0)


def _difference(equation: JaxprEqn, origins: Sequence[Origin]) -> Macs:
    of_two = all(Origin.INPUTS in origin for origin in origins)
    return Macs(0, 0, differences=_size(equation.outvars[0]) if of_two else 0)


def _batch_norm(equation: JaxprEqn, origins: Sequence[Origin]) -> Macs:
    """Every formulation multiplies or divides the data once by a function of the running variance."""
    of_model = [origin for origin in origins if Origin.INPUTS not in origin]
    return Macs(0, 2 * _size(equation.outvars[0]) if Origin.STATISTICS in _union(of_model) else 0)


def _relu(equation: JaxprEqn, origins: Sequence[Origin]) -> Macs:
    del origins
    is_relu = any(isinstance(operand, Literal) and operand.val == 0 for operand in equation.invars)
    return Macs(0, _size(equation.outvars[0]) if is_relu else 0)


def _pooling(equation: JaxprEqn, origins: Sequence[Origin]) -> Macs:
    del origins
    return Macs(0, _size(equation.invars[0]))


def _global_pooling(equation: JaxprEqn, origins: Sequence[Origin]) -> Macs:
    """A reduction of [B, H, W, C] over H and W. Reductions over channels or taps are no layer of torch."""
    del origins
    is_global = len(_shape(equation.invars[0])) == 4 and equation.params["axes"] == (1, 2)
    return Macs(0, _size(equation.invars[0]) if is_global else 0)


_COSTS: dict[str, Callable[[JaxprEqn, Sequence[Origin]], Macs]] = {
    "conv_general_dilated": _convolution,
    "dot_general": _product,
    "add": _bias,
    "sub": _difference,
    "mul": _batch_norm,
    "div": _batch_norm,
    "max": _relu,
    "reduce_window_max": _pooling,
    "reduce_window_sum": _pooling,
    "reduce_sum": _global_pooling,
    "reduce_max": _global_pooling,
}
_PRODUCTS = ("conv_general_dilated", "dot_general")
_RESHAPINGS = ("convert_element_type", "reshape", "squeeze", "transpose")
_NOTHING = Origin.NOTHING
_FREE = Macs(0, 0)


def _union(origins: Iterable[Origin]) -> Origin:
    union = _NOTHING
    for origin in origins:
        union |= origin
    return union


def _sum(costs: Sequence[Macs]) -> Macs:
    return Macs(*(sum(parts) for parts in zip(_FREE, *costs, strict=True)))


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _size(variable: Any) -> int:
    return math.prod(_shape(variable))
