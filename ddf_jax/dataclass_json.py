"""Frozen dataclasses as JSON and back; what is read is checked against the annotations, and errors name the field."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ddf_jax.errors import RunError, UserError

Kinds = Mapping[type, Mapping[str, type]]
"""For a base class in an annotation, its subclasses by their `kind` in JSON."""


def encode(value: Any, kinds: Kinds) -> Any:
    """A value as what JSON has: a dataclass is an object with a key for each field, a tuple a list, a path a string."""
    match value:
        case _ if dataclasses.is_dataclass(value):
            fields = {field.name: encode(getattr(value, field.name), kinds) for field in dataclasses.fields(value)}
            return _kind_of(value, kinds) | fields
        case Mapping():
            return {key: encode(item, kinds) for key, item in value.items()}
        case tuple() | list():
            return [encode(item, kinds) for item in value]
        case Path():
            return str(value)
        case np.generic():
            return value.item()
    return value


def decode(kind: Any, value: Any, kinds: Kinds, field: str = "") -> Any:
    """The `value` of JSON as the type annotation `kind` wants it; fields that it lacks have their defaults.

    Args:
        kind: a dataclass, or the annotation of a field of one.
        value: what `json.loads` gave.
        kinds: as `encode` took them.
        field: the field's name in errors.

    Raises:
        RunError: the value does not fit; the message names the field and, for an unknown one, the nearest field.
    """
    if kind in kinds:
        return _decode_kind(kinds[kind], value, kinds, field)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, kinds, field)
    decoder = _DECODERS.get(typing.get_origin(kind) or kind, _decode_plain)
    return decoder(kind, value, kinds, field)


def _kind_of(value: Any, kinds: Kinds) -> dict[str, str]:
    for base, subclasses in kinds.items():
        if isinstance(value, base):
            [kind] = [name for name, subclass in subclasses.items() if type(value) is subclass]
            return {"kind": kind}
    return {}


def _decode_kind(subclasses: Mapping[str, type], value: Any, kinds: Kinds, field: str) -> Any:
    if not isinstance(value, dict):
        raise RunError(f"The recipe's field `{field}` must be an object, got {value!r}.")
    kind: Any = value.get("kind")
    if kind not in subclasses:
        raise RunError(f"The recipe's field `{field}.kind` must be one of {', '.join(subclasses)}, got {kind!r}.")
    fields = {name: item for name, item in value.items() if name != "kind"}
    return _decode_dataclass(subclasses[kind], fields, kinds, field)


def _decode_dataclass(kind: Any, value: Any, kinds: Kinds, field: str) -> Any:
    if not isinstance(value, dict):
        raise RunError(f"The recipe's field `{field or 'recipe'}` must be an object, got {value!r}.")
    hints, known = typing.get_type_hints(kind), {item.name: item for item in dataclasses.fields(kind)}
    prefix = f"{field}." if field else ""
    for name in value:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise RunError(f"The recipe has no field `{prefix}{name}`. The nearest is `{prefix}{nearest}`.")
    for name, item in known.items():
        if name not in value and item.default is item.default_factory is dataclasses.MISSING:
            raise RunError(f"The recipe lacks the field `{prefix}{name}`.")
    fields = {name: decode(hints[name], item, kinds, f"{prefix}{name}") for name, item in value.items()}
    try:
        return kind(**fields)
    except UserError as error:  # the value has the right type, but is out of its range
        raise RunError(f"The recipe cannot be: {prefix and f'in `{field}`, '}{error}") from None


def _decode_union(kind: Any, value: Any, kinds: Kinds, field: str) -> Any:
    for member in typing.get_args(kind):
        try:
            return decode(member, value, kinds, field)
        except RunError:
            continue
    raise _wrong_type(kind, value, field)


def _decode_literal(kind: Any, value: Any, kinds: Kinds, field: str) -> Any:
    if value not in typing.get_args(kind):
        raise _wrong_type(kind, value, field)
    return value


def _decode_tuple(kind: Any, value: Any, kinds: Kinds, field: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _wrong_type(kind, value, field)
    return tuple(decode(typing.get_args(kind)[0], item, kinds, field) for item in value)


def _decode_mapping(kind: Any, value: Any, kinds: Kinds, field: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong_type(kind, value, field)
    return {key: decode(typing.get_args(kind)[1], item, kinds, f"{field}.{key}") for key, item in value.items()}


def _decode_path(kind: Any, value: Any, kinds: Kinds, field: str) -> Path:
    if not isinstance(value, str):
        raise _wrong_type(kind, value, field)
    return Path(value)


def _decode_float(kind: Any, value: Any, kinds: Kinds, field: str) -> float:
    if type(value) not in (int, float):
        raise _wrong_type(kind, value, field)
    return value  # an int stays an int, so that a recipe written with `epochs=3` is read back equal in every digit


def _decode_plain(kind: Any, value: Any, kinds: Kinds, field: str) -> Any:
    if type(value) is not kind:
        raise _wrong_type(kind, value, field)
    return value


_DECODERS: dict[Any, Callable[[Any, Any, Kinds, str], Any]] = {
    typing.Union: _decode_union,
    types.UnionType: _decode_union,
    typing.Literal: _decode_literal,
    tuple: _decode_tuple,
    Mapping: _decode_mapping,
    Path: _decode_path,
    float: _decode_float,
}


def _wrong_type(kind: Any, value: Any, field: str) -> RunError:
    wanted = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "").replace("pathlib.", "")
    return RunError(f"The recipe's field `{field}` must be {wanted}, got {value!r}.")
