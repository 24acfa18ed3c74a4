"""The translation of tensors from official (PyTorch) names and layouts to ours, and back, by the rules of `names`."""

import functools
import re
from collections.abc import Container, Iterable, Mapping

import numpy as np

from ddf_jax.checkpoints.buffers import official_buffers
from ddf_jax.checkpoints.layouts import Naming, Rule, Size
from ddf_jax.checkpoints.names import RULES
from ddf_jax.checkpoints.tensor_files import CheckpointError, shortened


def naming_of(names: Iterable[str], *, own: Container[str] = ()) -> Naming:
    """The naming that matches more of the names; those in `own` are ours, whether a rule knows them or not."""
    names = list(names)
    official = sum(bool(_matches(name, "official")) for name in names)
    ours = sum(name in own or bool(_matches(name, "own")) for name in names)
    return "own" if ours > official else "official"


def is_known(name: str) -> bool:
    """Whether a rule matches the name, in either naming, in some network."""
    return bool(_matches(name, "official") or _matches(name, "own"))


def unknown_names(names: Iterable[str], naming: Naming) -> list[str]:
    """Of the names of a network's tensors, those that no rule matches."""
    known = set(names := list(names))
    return [name for name in names if not any(rule.is_of(naming, known) for rule, _ in _matches(name, naming))]


def translate_name(name: str, source: Naming, names: Container[str]) -> str:
    """The same tensor's name in the other naming; `names` are those of all tensors of its network."""
    rule, fields = _match(name, source, names)
    return _format(rule.name(_other(source)), fields, _other(source))


def translate(tensors: Mapping[str, np.ndarray], source: Naming) -> dict[str, np.ndarray]:
    """The tensors in the names and layouts of the other naming.

    Raises:
        CheckpointError: names that no rule knows (all of them listed), or a tensor that does not have a rule's axes.
    """
    if unknown := unknown_names(tensors, source):
        raise CheckpointError(f"No {source} name of a model we know: {shortened(unknown)}.")
    target = _other(source)
    translated = {}
    for name, tensor in tensors.items():
        rule, fields = _match(name, source, tensors)
        layout = rule.layout.to_own if source == "official" else rule.layout.to_official
        try:
            size = 0 if rule.size is None else _size(rule.size, fields, tensors, source)
            translated[_format(rule.name(target), fields, target)] = layout(tensor, size)
        except (IndexError, ValueError, ZeroDivisionError) as error:
            raise CheckpointError(
                f"{name} {list(tensor.shape)} does not have the shape of its kind: {error}."
            ) from error
        except KeyError as error:
            raise CheckpointError(f"{name} cannot be laid out without {error}, which is missing.") from error
    return translated


def official_tensors(own: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors in official names and layouts, with the buffers that we lack."""
    return translate({**own, **official_buffers(own)}, "own")


def _size(size: Size, fields: Mapping[str, int], tensors: Mapping[str, np.ndarray], naming: Naming) -> int:
    shapes = [tensors[_format(names[naming == "own"], fields, naming)].shape[:2] for names in size.names]
    return size.of(*(shape[::-1] if naming == "official" else shape for shape in shapes))


def _other(naming: Naming) -> Naming:
    return "own" if naming == "official" else "official"


def _match(name: str, naming: Naming, names: Container[str]) -> tuple[Rule, dict[str, int]]:
    matches = [match for match in _matches(name, naming) if match[0].is_of(naming, names)]
    matches = [match for match in matches if match[0].beside] or matches
    if len(matches) != 1:
        raise CheckpointError(f"{name!r} must be the {naming} name of one rule, got {len(matches)}.")
    return matches[0]


@functools.lru_cache(maxsize=4096)
def _matches(name: str, naming: Naming) -> list[tuple[Rule, dict[str, int]]]:
    """The matching rules with the numbers of the fields; stages count from 0."""
    found = []
    for rule, pattern in zip(RULES, _patterns(naming), strict=True):
        if match := pattern.fullmatch(name):
            fields = {field: int(digits) for field, digits in match.groupdict().items()}
            if naming == "official" and "stage" in fields:
                fields["stage"] -= 1
            found.append((rule, fields))
    return found


@functools.cache
def _patterns(naming: Naming) -> list[re.Pattern[str]]:
    # Numbers have no leading zeros, so a name and its fields determine each other. Official stages count from 1.
    def number(field: re.Match[str]) -> str:
        zero = "" if naming == "official" and field[1] == "stage" else "0|"
        return rf"(?P<{field[1]}>{zero}[1-9][0-9]*)"

    return [re.compile(re.sub(r"\\{(\w+)\\}", number, re.escape(rule.name(naming)))) for rule in RULES]


def _format(template: str, fields: Mapping[str, int], naming: Naming) -> str:
    if naming == "official" and "stage" in fields:
        fields = {**fields, "stage": fields["stage"] + 1}
    return template.format(**fields)
