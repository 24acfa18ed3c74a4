"""The multiply-accumulates of the operators, for programs that count those of a traced program."""

import math
from typing import Any

from jax.extend.core import JaxprEqn

from pallas_kernels.ops.fused_attention import attention_p
from pallas_kernels.ops.primitive import form_p


def operator_macs(equation: JaxprEqn) -> int | None:
    """The multiply-accumulates of the operator that an equation of a traced program is, or None for another equation.

    A dynamic filter costs T for each value of its result y, a local correlation T for each value of the query, and
    attention in a neighbourhood both, with T = Kh·Kw keys for each query. The borders are counted as the inside.
    """
    if equation.primitive is attention_p:
        return 2 * math.prod(equation.params["call"].spec.kernel_size) * _size(equation.outvars[0])
    if equation.primitive is not form_p:
        return None
    form = equation.params["call"].form
    arrays = dict(zip((*form.arrays, *form.results), (*equation.invars, *equation.outvars), strict=True))
    return form.spec.taps * len(form.results) * _size(arrays["y"])


def _size(variable: Any) -> int:
    return math.prod(variable.aval.shape)
