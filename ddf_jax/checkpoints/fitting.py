"""Which tensors of a file go into a model: all of them, unless explicit rules let some differ."""

import dataclasses
import fnmatch
from collections.abc import Iterable, Mapping
from typing import Literal

import jax.numpy as jnp
import numpy as np

from ddf_jax.checkpoints.layouts import is_buffer
from ddf_jax.checkpoints.rules import (
    Naming,
    naming_of,
    official_tensors,
    translate,
    translate_name,
    unknown_names,
)
from ddf_jax.checkpoints.tensor_files import CheckpointError, shortened
from ddf_jax.checkpoints.wrappers import common_prefix

Head = Literal["loaded", "fresh"]
InChannels = Literal["repeat", "average"]
Shapes = Mapping[str, tuple[int, ...]]
Tensors = Mapping[str, np.ndarray]

HEAD = "head."
"""The names of a classifier's head begin so."""
_OF_CLASSES = (
    f"{HEAD}*",
    *("dense.classes.*", "semantic.logits.*", "regions.semantic.logits.*"),
    *("regions.box.classes.*", "regions.box.deltas.*", "regions.mask.logits.*"),
    *("regions.boxes.*.classes.*", "regions.masks.*.logits.*"),  # of a cascade, whose boxes are those of any class
)
_FIRST_CONVOLUTIONS = (
    *(f"{of}stem.{conv}.kernel" for of in ("", "backbone.") for conv in ("conv", "conv1", "conv_in")),
    "embedding.convs.0.kernel",
)


@dataclasses.dataclass(frozen=True)
class FitRules:
    """What may differ between a file and a model; by default nothing.

    Args:
        head: "fresh" leaves the head (`is_head`) as initialised and the file's unused: for other classes.
        in_channels: adapts the first convolution to C channels of the model where the file has C': "average" gives each
            the mean over the file's channels, times C'/C; "repeat" the file's channels cyclically, times C'/C (C ≥ C').
        allow_missing: shell patterns of tensors that stay as initialised where the file lacks them, by our names or the
            file's.
        allow_unexpected: shell patterns of the file's tensors that are not used where the model lacks them.
        strict: False allows every missing, unexpected and wrongly shaped tensor.
    """

    head: Head = "loaded"
    in_channels: InChannels | None = None
    allow_missing: tuple[str, ...] = ()
    allow_unexpected: tuple[str, ...] = ()
    strict: bool = True

    def __post_init__(self) -> None:
        for rule, known in (("head", ("loaded", "fresh")), ("in_channels", (None, "repeat", "average"))):
            if getattr(self, rule) not in known:
                raise CheckpointError(f"`{rule}` must be one of {known}, got {getattr(self, rule)!r}.")


EXACT = FitRules()


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What was loaded into a model and what was not.

    Args:
        loaded: how many tensors were.
        initialised: our names of those that stayed as initialised.
        unused: the file's names of those that were not used.
        adapted: our names of those whose input channels were adapted.
    """

    loaded: int
    initialised: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    adapted: tuple[str, ...] = ()

    def line(self) -> str:
        """The report for people, with at most ten names of a kind."""
        kinds = {
            "as initialised": self.initialised,
            "of the file not used": self.unused,
            "with adapted input channels": self.adapted,
        }
        named = [f"{len(names)} {kind} ({shortened(list(names))})" for kind, names in kinds.items() if names]
        return ", ".join([f"{self.loaded} tensors loaded", *named])


def is_head(name: str) -> bool:
    """Whether a tensor, by our name, depends on the classes: a classifier's head, or a detector's last layers.

    >>> [is_head(name) for name in ("head.kernel", "regions.box.deltas.kernel", "regions.box.hidden1.kernel")]
    [True, True, False]
    """
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in _OF_CLASSES)


def fit(
    shapes: Shapes, tensors: Tensors, source: str, rules: FitRules, *, prefix: str = ""
) -> tuple[dict[str, np.ndarray], LoadReport]:
    """The tensors that a model gets, by our names and in our layouts.

    Args:
        shapes: of the model's tensors, by our names.
        tensors: by official names or ours.
        source: the origin of the tensors, for errors.
        rules: what may differ.
        prefix: of the tensors' names in a larger model; patterns match names with it as well as without.

    Raises:
        CheckpointError: something differs that may not, a rule has no effect, or nothing would be loaded. The message
            has the names of `tensors`.
    """
    match = _Match(shapes, tensors, rules, prefix)
    if problems := match.problems():
        cause = common_prefix([name for name in match.got if name not in match.expected])
        lines = [f"  {kind} ({len(names)}): {shortened(names, '; ')}" for kind, names in problems.items()]
        lines = [f"{source} does not fit the model; nothing was loaded.{cause}", *lines, *match.remedies()]
        raise CheckpointError("\n".join(lines))
    if not match.loaded:
        raise CheckpointError(
            f"{source} must have some of the model's tensors, got none; nothing was loaded. It has "
            f"{shortened(list(tensors), most=3)}; the model has {shortened(list(shapes), most=3)}."
        )
    arrays = match.arrays()
    report = LoadReport(
        loaded=len(arrays),
        initialised=tuple(name for name in shapes if name not in arrays),
        unused=tuple(name for name in match.got if name not in match.loaded),
        adapted=tuple(match.own[name] for name in match.adapted),
    )
    return arrays, report


def expected_tensors(shapes: Shapes, naming: Naming) -> dict[str, np.ndarray]:
    """Zeros for every tensor of a model in a naming and its layouts. A name that no rule knows stays our own."""
    zeros = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    if naming == "own":
        return zeros
    unknown = unknown_names(zeros, "own")
    known = official_tensors({name: zero for name, zero in zeros.items() if name not in unknown})
    return _without_buffers(known) | {name: zeros[name] for name in unknown}


class _Match:
    """The tensors of a file and those of a model side by side, in the names and layouts of the file."""

    def __init__(self, shapes: Shapes, tensors: Tensors, rules: FitRules, prefix: str):
        self.rules, self.shapes, self.prefix = rules, shapes, prefix
        self.naming: Naming = naming_of(tensors, own=shapes)
        self.got, self.expected = _without_buffers(tensors), expected_tensors(shapes, self.naming)
        names = {**self.expected, **self.got}
        unknown = set(names if self.naming == "own" else unknown_names(names, self.naming))
        self.known = [name for name in self.expected if name not in unknown]
        self.own = {name: name if name in unknown else translate_name(name, self.naming, names) for name in names}

        is_fresh = {name: rules.head == "fresh" and is_head(self.own[name]) for name in names}
        common = [name for name in self.expected if name in self.got and not is_fresh[name]]
        differing = [name for name in common if self.got[name].shape != self.expected[name].shape]
        self.adaptable = [name for name in differing if self._differs_in_channels(name)]
        self.adapted = self.adaptable if rules.in_channels else []
        self.misshapen = [name for name in differing if name not in self.adapted]
        self.missing = [name for name in self.expected if name not in self.got and not is_fresh[name]]
        self.unexpected = [name for name in self.got if name not in self.expected and not is_fresh[name]]
        self.loaded = [name for name in common if name not in self.misshapen]

    def problems(self) -> dict[str, list[str]]:
        """What may not be, by its kind."""
        got, expected, rules = self.got, self.expected, self.rules
        differences = {
            "missing": [
                f"{name} {list(expected[name].shape)}"
                for name in self.missing
                if not self._matching(rules.allow_missing, name)
            ],
            "unexpected": [
                f"{name} {list(got[name].shape)}"
                for name in self.unexpected
                if not self._matching(rules.allow_unexpected, name)
            ],
            "of another shape": [
                f"{name} must be {list(expected[name].shape)}, got {list(got[name].shape)}" for name in self.misshapen
            ],
        }
        always = {
            "not floating-point": [
                f"{name} is {got[name].dtype}"
                for name in expected
                if name in got and not jnp.issubdtype(got[name].dtype, jnp.floating)
            ],
            "of too few input channels to repeat": [
                f'{name} must have {self._channels(got[name])} or more, got {self._channels(expected[name])}: "average"'
                for name in self.adapted
                if rules.in_channels == "repeat" and self._channels(got[name]) > self._channels(expected[name])
            ],
            "rules without effect": self._without_effect(),
        }
        found = (differences if rules.strict else {}) | always
        return {kind: names for kind, names in found.items() if names}

    def remedies(self) -> list[str]:
        """What to do about a difference that has a rule of its own."""
        found = []
        missing = [name for name in self.missing if not self._matching(self.rules.allow_missing, name)]
        of_body = [name for name in [*self.misshapen, *missing] if not is_head(self.own[name])]
        if any(name not in self.adaptable for name in of_body):
            found.append("  For another network: the model's name and options must be those of the weights.")
        if any(is_head(self.own[name]) for name in [*self.misshapen, *self.missing]):
            found.append('  For other classes: `head="fresh"` (`--init-head fresh`).')
        if self.adaptable and not self.adapted:
            found.append('  For other input channels: "average" or "repeat" as `in_channels` (`--init-in-channels`).')
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """What is loaded, by our names and in our layouts."""
        loaded = {name: self.got[name] for name in self.loaded}
        if self.naming == "official":
            # Some layouts depend on the size of another tensor, which the file may lack and the model has.
            translated = translate({name: loaded.get(name, self.expected[name]) for name in self.known}, "official")
            loaded = {self.own[name]: translated.get(self.own[name], tensor) for name, tensor in loaded.items()}
        for name in (self.own[name] for name in self.adapted):
            channels, repeat = self.shapes[name][-2], self.rules.in_channels == "repeat"
            loaded[name] = _with_channels(loaded[name], channels, repeat=repeat)
        return loaded

    def _differs_in_channels(self, name: str) -> bool:
        got, expected = list(self.got[name].shape), list(self.expected[name].shape)
        if self.own[name] not in _FIRST_CONVOLUTIONS or len(got) != len(expected):
            return False
        got[self._input_axis] = expected[self._input_axis]
        return got == expected

    def _channels(self, tensor: np.ndarray) -> int:
        return tensor.shape[self._input_axis]

    @property
    def _input_axis(self) -> int:
        """Of [O, I, K, K], or of our [K, K, I, O] or [I, O]."""
        return 1 if self.naming == "official" else -2

    def _matching(self, patterns: Iterable[str], *names: str) -> list[str]:
        """The patterns that match one of the names, ours or the file's, with the prefix or without."""
        both = {*names, *(self.own[name] for name in names)}
        both |= {self.prefix + name for name in both}
        return [pattern for pattern in patterns if any(fnmatch.fnmatchcase(name, pattern) for name in both)]

    def _without_effect(self) -> list[str]:
        rules = self.rules
        given = {
            "missing": (rules.allow_missing, self.missing),
            "unexpected": (rules.allow_unexpected, self.unexpected),
        }
        found = [
            f"`allow_{kind}` {pattern!r} matches nothing that is {kind}"
            for kind, (patterns, names) in given.items()
            for pattern in patterns
            if not self._matching([pattern], *names)
        ]
        if rules.head == "fresh" and not any(is_head(name) for name in self.shapes):
            found.append("`head` is fresh, but the model has no tensor that depends on classes")
        if rules.in_channels and not self.adaptable:
            found.append(f"`in_channels` is {rules.in_channels!r}, but no first convolution differs in them alone")
        return found


def _without_buffers(tensors: Tensors) -> dict[str, np.ndarray]:
    """All but torch's buffers, which are optional in every file."""
    return {name: tensor for name, tensor in tensors.items() if not is_buffer(name)}


def _with_channels(kernel: np.ndarray, channels: int, *, repeat: bool) -> np.ndarray:
    """[…, C', O] to […, C, O], with the same response to an image whose channels are equal."""
    count, wide = kernel.shape[-2], kernel.astype(np.promote_types(kernel.dtype, np.float32))
    if repeat:
        wide = wide[..., np.arange(channels) % count, :]
    else:
        wide = np.broadcast_to(wide.mean(-2, keepdims=True), (*kernel.shape[:-2], channels, kernel.shape[-1]))
    return wide * (count / channels)
