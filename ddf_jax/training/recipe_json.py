"""Recipes as JSON and back, exactly: `recipe_from_json(recipe_to_json(recipe)) == recipe`."""

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ddf_jax.training.errors import RunError
from ddf_jax.training.recipe import Recipe

FREE_FIELDS = frozenset(
    {
        "checkpoint_every",
        "data.data_dir",
        "data.workers",
        "evaluate_every",
        "keep_checkpoints",
        "log_every",
        "name",
    }
)
"""Fields that do not change what a run computes, and so may change between two launches of it."""


def recipe_to_json(recipe: Recipe) -> str:
    """The recipe as an indented JSON object, one key per field."""
    return json.dumps(_encode(recipe), indent=2, allow_nan=False) + "\n"


def recipe_from_json(text: str) -> Recipe:
    """The recipe that `recipe_to_json` wrote; fields that it lacks have their defaults.

    Raises:
        RunError: the text is not a recipe; the message names the field and, for an unknown one, the nearest known.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise RunError(f"The recipe is not JSON: {error}.") from None
    return _decode(Recipe, value, "")


def changed_fields(old: Recipe, new: Recipe) -> list[str]:
    """`field: old -> new` for each field outside `FREE_FIELDS` that differs: what makes a run another run."""
    before, after = dict(_flat(_encode(old))), dict(_flat(_encode(new)))
    return [
        f"{field}: {before.get(field)} -> {after.get(field)}"
        for field in sorted(before.keys() | after.keys())
        if before.get(field) != after.get(field) and field not in FREE_FIELDS
    ]


def _encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _encode(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_encode(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _decode(kind: Any, value: Any, field: str) -> Any:
    """The `value` of JSON as the type annotation `kind` wants it."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, field)
    if origin in (typing.Union, types.UnionType):
        for member in arguments:
            try:
                return _decode(member, value, field)
            except RunError:
                continue
    elif origin is typing.Literal and value in arguments:
        return value
    elif origin is tuple and isinstance(value, list):
        return tuple(_decode(arguments[0], item, field) for item in value)
    elif origin is Mapping and isinstance(value, dict):
        return {key: _decode(arguments[1], item, f"{field}.{key}") for key, item in value.items()}
    elif kind is Path and isinstance(value, str):
        return Path(value)
    elif kind is float and type(value) in (int, float):
        return value  # an int stays an int, so that a recipe written with `epochs=3` is read back equal in every digit
    elif isinstance(kind, type) and type(value) is kind:
        return value
    wanted = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "").replace("pathlib.", "")
    raise RunError(f"The recipe's field `{field}` must be {wanted}, got {value!r}.")


def _decode_dataclass(kind: Any, value: Any, field: str) -> Any:
    if not isinstance(value, dict):
        raise RunError(f"The recipe's field `{field or 'recipe'}` must be an object, got {value!r}.")
    hints = typing.get_type_hints(kind)
    prefix = f"{field}." if field else ""
    for name in value:
        if name not in hints:
            nearest = difflib.get_close_matches(name, hints, n=1, cutoff=0.0)[0]
            raise RunError(f"The recipe has no field `{prefix}{name}`. The nearest is `{prefix}{nearest}`.")
    missing = [
        item.name
        for item in dataclasses.fields(kind)
        if item.name not in value and item.default is item.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise RunError(f"The recipe lacks the field `{prefix}{missing[0]}`.")
    fields = {name: _decode(hints[name], item, f"{prefix}{name}") for name, item in value.items()}
    try:
        return kind(**fields)
    except ValueError as error:  # the value has the right type, but is out of its range
        raise RunError(f"The recipe cannot be: {prefix and f'in `{field}`, '}{error}") from None


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value
