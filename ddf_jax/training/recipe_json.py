"""The form of a recipe in `recipe.json` and in checkpoints, and how two recipes differ."""

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ddf_jax.errors import RunError, UserError
from ddf_jax.training.recipe import Recipe
from ddf_jax.training.tasks import Task
from ddf_jax.training.tasks.classification import Classification
from ddf_jax.training.tasks.depth_upsampling import DepthUpsampling

TASKS: dict[str, type[Task]] = {"classification": Classification, "depth_upsampling": DepthUpsampling}
"""The tasks that a recipe can have, by their `kind` in `recipe.json`."""

FREE_FIELDS = frozenset(
    {
        "checkpoint_every",
        "checkpoint_minutes",
        "data.data_dir",
        "data.workers",
        "evaluate_every",
        "keep_best",
        "keep_checkpoints",
        "keep_every",
        "log_every",
        "name",
    }
)
"""Fields that do not change what a run computes, and so may change between two launches of it."""

MOVED_FIELDS = {
    "label_smoothing": "task.label_smoothing",
    "depth_loss": "task.loss",
    "data.target": "task.kind",
    "data.scale": "task.scale",
}
"""Fields of recipes that earlier versions wrote, and their present names."""


def recipe_to_json(recipe: Recipe) -> str:
    """The recipe as an indented JSON object, one key per field. `recipe_from_json` gives an equal recipe back."""
    return json.dumps(_encode(recipe), indent=2, allow_nan=False) + "\n"


def recipe_from_json(text: str) -> Recipe:
    """The recipe that `recipe_to_json` wrote; fields that it lacks have their defaults.

    Raises:
        RunError: the text is not a recipe; the message names the field and, for an unknown one, the nearest field or
            the new name that it has since an earlier version.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise RunError(f"The recipe is not JSON: {error}.") from None
    found = dict(_flat(value))
    if moved := [f"`{old}` is now `{new}`" for old, new in MOVED_FIELDS.items() if old in found]:
        raise RunError(
            f"The recipe was written by an earlier version: {', '.join(moved)}. Rename those that the task "
            f"has (`task.kind`: {' or '.join(TASKS)}), delete the others, or train again."
        )
    return _decode(Recipe, value, "")


def changed_fields(old: Recipe, new: Recipe) -> list[str]:
    """`field: old -> new` for each field outside `FREE_FIELDS` that differs: what makes a run another run."""
    before, after = _computed(old), _computed(new)
    return [
        f"{field}: {before.get(field)} -> {after.get(field)}"
        for field in sorted(before.keys() | after.keys())
        if before.get(field) != after.get(field)
    ]


def check_fields(names: Collection[str]) -> None:
    """Raises `RunError` where a name such as `optimizer.learning_rate` is of no field that decides what a run computes.

    The fields of a task and of a model's options depend on these, and are not checked.
    """
    known = _computed(Recipe(name="any")).keys()
    for name in names:
        if name not in known and name.partition(".")[0] not in ("task", "model"):
            [nearest] = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            raise RunError(
                f"No field of a recipe that could be allowed to change is `{name}`; the nearest is `{nearest}`."
            )


def recipe_key(recipe: Recipe) -> str:
    """A text that two recipes share if none of their fields outside `FREE_FIELDS` differs."""
    return json.dumps(_computed(recipe), sort_keys=True)


def _computed(recipe: Recipe) -> dict[str, Any]:
    return {field: value for field, value in _flat(_encode(recipe)) if field not in FREE_FIELDS}


def _encode(value: Any) -> Any:
    match value:
        case Task():
            [kind] = [name for name, task in TASKS.items() if type(value) is task]
            return {"kind": kind} | _encode_fields(value)
        case _ if dataclasses.is_dataclass(value):
            return _encode_fields(value)
        case Mapping():
            return {key: _encode(item) for key, item in value.items()}
        case tuple() | list():
            return [_encode(item) for item in value]
        case Path():
            return str(value)
        case np.generic():
            return value.item()
    return value


def _encode_fields(value: Any) -> dict[str, Any]:
    return {field.name: _encode(getattr(value, field.name)) for field in dataclasses.fields(value)}


def _decode(kind: Any, value: Any, field: str) -> Any:
    """The `value` of JSON as the type annotation `kind` wants it; `field` names it in errors."""
    if kind is Task:
        return _decode_task(value, field)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, field)
    decode = _DECODERS.get(typing.get_origin(kind) or kind, _decode_plain)
    return decode(kind, value, field)


def _decode_task(value: Any, field: str) -> Task:
    if not isinstance(value, dict):
        raise RunError(f"The recipe's field `{field}` must be an object, got {value!r}.")
    kind = value.get("kind")
    if kind not in TASKS:
        raise RunError(f"The recipe's field `{field}.kind` must be one of {', '.join(TASKS)}, got {kind!r}.")
    return _decode_dataclass(TASKS[kind], {name: item for name, item in value.items() if name != "kind"}, field)


def _decode_dataclass(kind: Any, value: Any, field: str) -> Any:
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
    fields = {name: _decode(hints[name], item, f"{prefix}{name}") for name, item in value.items()}
    try:
        return kind(**fields)
    except UserError as error:  # the value has the right type, but is out of its range
        raise RunError(f"The recipe cannot be: {prefix and f'in `{field}`, '}{error}") from None


def _decode_union(kind: Any, value: Any, field: str) -> Any:
    for member in typing.get_args(kind):
        try:
            return _decode(member, value, field)
        except RunError:
            continue
    raise _wrong_type(kind, value, field)


def _decode_literal(kind: Any, value: Any, field: str) -> Any:
    if value not in typing.get_args(kind):
        raise _wrong_type(kind, value, field)
    return value


def _decode_tuple(kind: Any, value: Any, field: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _wrong_type(kind, value, field)
    return tuple(_decode(typing.get_args(kind)[0], item, field) for item in value)


def _decode_mapping(kind: Any, value: Any, field: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong_type(kind, value, field)
    return {key: _decode(typing.get_args(kind)[1], item, f"{field}.{key}") for key, item in value.items()}


def _decode_path(kind: Any, value: Any, field: str) -> Path:
    if not isinstance(value, str):
        raise _wrong_type(kind, value, field)
    return Path(value)


def _decode_float(kind: Any, value: Any, field: str) -> float:
    if type(value) not in (int, float):
        raise _wrong_type(kind, value, field)
    return value  # an int stays an int, so that a recipe written with `epochs=3` is read back equal in every digit


def _decode_plain(kind: Any, value: Any, field: str) -> Any:
    if type(value) is not kind:
        raise _wrong_type(kind, value, field)
    return value


_DECODERS: dict[Any, Callable[[Any, Any, str], Any]] = {
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


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value
