"""Numbers as options: those of NumPy are Python's, `stride=np.int64(2)` is `stride=2`, and a count is at least 1.

Flax takes a NumPy scalar in a module for data instead of a static option, and its convolutions take it for a sequence.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, get_type_hints

import numpy as np

from ddf_jax.errors import UserError

P = ParamSpec("P")


def python_numbers(init: Callable[P, None]) -> Callable[P, None]:
    """An `__init__` whose arguments have Python's numbers in place of NumPy's.

    Raises:
        UserError: an argument that is annotated as `int` is no int, or is less than 1.
    """

    call: Callable[..., None] = init
    parameters = inspect.signature(init).parameters
    counts = {name: param.annotation for name, param in parameters.items() if param.annotation in (int, int | None)}

    @functools.wraps(init)
    def with_python_numbers(*args: P.args, **kwargs: P.kwargs) -> None:
        values = tuple(map(as_python, args))
        options = {name: as_python(value) for name, value in kwargs.items()}
        for name, value in (*zip(parameters, values, strict=False), *options.items()):
            missing = value is None and counts.get(name) is not int
            if name in counts and not missing and (type(value) is not int or value < 1):
                raise UserError(f"`{name}` must be an int ≥ 1, got {value!r}.")
        call(*values, **options)

    return with_python_numbers


def python_fields(config: Any) -> None:
    """Puts Python's numbers in place of NumPy's in the fields of a frozen dataclass, in its `__post_init__`.

    Raises:
        UserError: a field that is annotated as a number, a bool, a string or a tuple of ints is none.
    """
    kinds = _plain_kinds(type(config))
    for field in dataclasses.fields(config):
        value = as_python(getattr(config, field.name))
        if field.name in kinds:
            wanted, is_one = _PLAIN[kinds[field.name]]
            if not is_one(value):
                raise UserError(f"`{field.name}` must be {wanted}, got {value!r}.")
        object.__setattr__(config, field.name, value)


_PLAIN: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    bool: ("true or false", lambda value: type(value) is bool),
    int: ("an int", lambda value: type(value) is int),
    float: ("a number", lambda value: type(value) in (int, float)),
    str: ("a string", lambda value: type(value) is str),
    tuple[int, ...]: (
        "a tuple of ints, such as (3, 4)",
        lambda value: isinstance(value, tuple) and all(type(item) is int for item in value),
    ),
}


@functools.cache
def _plain_kinds(kind: type) -> dict[str, Any]:
    return {name: hint for name, hint in get_type_hints(kind).items() if hint in _PLAIN}


def as_python(value: Any) -> Any:
    """A NumPy scalar as Python's number, also in a tuple or list; anything else as it is.

    >>> as_python((np.int64(2), np.float32(0.5), "same"))
    (2, 0.5, 'same')
    """
    if isinstance(value, np.generic):
        return value.item()
    return type(value)(map(as_python, value)) if type(value) in (tuple, list) else value
