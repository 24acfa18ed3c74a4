"""Names and memory layouts of tensors in official (PyTorch) checkpoints and in ours, as rules.

A rule is a pair of name templates and a layout. Official names are timm's for ResNets, SE, ECA, ResNeXts and
Res2Nets, theFoxofSky/ddfnet's for DDF and DDF-Up, mmcv's for CARAFE, d-li14/involution's for RedNets and
MMDetection's for feature pyramids, without what frameworks put around a module (`wrappers`); ours are the paths of
the variables in the Flax modules, joined by dots. Every name matches exactly one rule.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Literal

import numpy as np

from ddf_jax.checkpoints.tensor_files import CheckpointError, shortened

Naming = Literal["official", "own"]

# torch's BatchNorm counts batches and uses the count only where momentum is None. Our models have no such variable:
# conversion of files keeps the count, models ignore it and are saved with 0.
COUNTER = "num_batches_tracked"


@dataclasses.dataclass(frozen=True)
class TensorLayout:
    """Conversions of a tensor's axes, called with the tensor and C (0 where `Rule.squeeze` is None)."""

    to_own: Callable[[np.ndarray, int], np.ndarray] = lambda tensor, _: tensor
    to_official: Callable[[np.ndarray, int], np.ndarray] = lambda tensor, _: tensor


@dataclasses.dataclass(frozen=True)
class Rule:
    """Two name templates and the layout of their tensor.

    Fields in braces are numbers; `{stage}` counts from 1 in official names and from 0 in ours. `squeeze` has the
    official name and ours of the 1×1 convolution with C input channels, where the layout depends on C.
    """

    official: str
    own: str
    layout: TensorLayout = TensorLayout()
    squeeze: tuple[str, str] | None = None

    def name(self, naming: Naming) -> str:
        return self.official if naming == "official" else self.own


def _conv_to_own(weight: np.ndarray, channels: int) -> np.ndarray:
    kernel = weight.transpose(2, 3, 1, 0)
    return kernel[0, 0] if kernel.shape[:2] == (1, 1) else kernel


def _conv_to_official(kernel: np.ndarray, channels: int) -> np.ndarray:
    return (kernel[None, None] if kernel.ndim == 2 else kernel).transpose(3, 2, 0, 1)


def _taps_first(tensor: np.ndarray, channels: int) -> np.ndarray:
    """[…, C·T] to […, T·C]."""
    return tensor.reshape(*tensor.shape[:-1], channels, -1).swapaxes(-1, -2).reshape(tensor.shape)


def _taps_last(tensor: np.ndarray, channels: int) -> np.ndarray:
    """[…, T·C] to […, C·T]."""
    return tensor.reshape(*tensor.shape[:-1], -1, channels).swapaxes(-1, -2).reshape(tensor.shape)


SAME = TensorLayout()
# [O, I, K, K] and [K, K, I, O]; a 1×1 convolution is a matrix [I, O] in ours.
CONV = TensorLayout(_conv_to_own, _conv_to_official)
CONV1D = TensorLayout(
    lambda weight, channels: weight.transpose(2, 1, 0), lambda kernel, channels: kernel.transpose(2, 1, 0)
)
LINEAR = TensorLayout(lambda weight, _: weight.T, lambda kernel, _: kernel.T)
# The channel branch generates C·T values in official checkpoints and T·C in ours.
TAPS_WEIGHT = TensorLayout(
    lambda weight, channels: _taps_first(_conv_to_own(weight, 0), channels),
    lambda kernel, channels: _conv_to_official(_taps_last(kernel, channels), 0),
)
TAPS_BIAS = TensorLayout(_taps_first, _taps_last)
TAPS_SCALE = TensorLayout(
    lambda std, channels: std.reshape(channels, -1).T, lambda scale, channels: scale.T.reshape(-1)
)

_NORM = (
    ("weight", "scale"),
    ("bias", "bias"),
    ("running_mean", "mean"),
    ("running_var", "var"),
    (COUNTER, COUNTER),
)


def _norm(official: str, own: str, layout: TensorLayout = SAME, squeeze: tuple[str, str] | None = None) -> list[Rule]:
    rules = [Rule(f"{official}.{theirs}", f"{own}.{ours}", layout, squeeze) for theirs, ours in _NORM[:-1]]
    return [*rules, Rule(f"{official}.{COUNTER}", f"{own}.{COUNTER}")]


def _conv(official: str, own: str) -> list[Rule]:
    return [Rule(f"{official}.weight", f"{own}.kernel", CONV), Rule(f"{official}.bias", f"{own}.bias")]


def _ddf(official: str, own: str) -> list[Rule]:
    return [
        *_conv(f"{official}.spatial_branch.0", f"{own}.spatial_branch.conv"),
        *_channel_branch(f"{official}.channel_branch", f"{own}.channel_branch"),
    ]


def _channel_branch(official: str, own: str) -> list[Rule]:
    squeeze = (f"{official}.1.weight", f"{own}.squeeze.kernel")
    return [
        *_conv(f"{official}.1", f"{own}.squeeze"),
        Rule(f"{official}.3.weight", f"{own}.excite.kernel", TAPS_WEIGHT, squeeze),
        Rule(f"{official}.3.bias", f"{own}.excite.bias", TAPS_BIAS, squeeze),
        Rule(f"{official}.4.std", f"{own}.norm.scale", TAPS_SCALE, squeeze),
    ]


def _ddf_batch_norm(official: str, own: str) -> list[Rule]:
    """The ablation's batch normalisation in place of filter normalisation. No official names exist."""
    squeeze = (f"{official}.channel_branch.1.weight", f"{own}.channel_branch.squeeze.kernel")
    return [
        *_norm(f"{official}.spatial_branch.1", f"{own}.spatial_branch.norm.norm"),
        *_norm(f"{official}.channel_branch.4", f"{own}.channel_branch.norm.norm", TAPS_BIAS, squeeze),
    ]


def _involution(official: str, own: str) -> list[Rule]:
    return [
        Rule(f"{official}.conv1.conv.weight", f"{own}.spatial_branch.reduce.kernel", CONV),
        *_norm(f"{official}.conv1.bn", f"{own}.spatial_branch.norm"),
        Rule(f"{official}.conv2.conv.weight", f"{own}.spatial_branch.span.kernel", CONV),
        Rule(f"{official}.conv2.conv.bias", f"{own}.spatial_branch.span.bias"),
    ]


def _squeeze_excitation(official: str, own: str) -> list[Rule]:
    return [
        Rule(f"{official}.fc1.weight", f"{own}.squeeze.kernel", CONV),
        Rule(f"{official}.fc1.bias", f"{own}.squeeze.bias"),
        Rule(f"{official}.fc2.weight", f"{own}.excite.kernel", CONV),
        Rule(f"{official}.fc2.bias", f"{own}.excite.bias"),
    ]


_OFFICIAL_BLOCK, _OWN_BLOCK = "layer{stage}.{block}", "stages.{stage}.{block}"

RULES: tuple[Rule, ...] = (
    Rule("conv1.weight", "stem.conv.kernel", CONV),
    *_norm("bn1", "stem.norm"),
    Rule("fc.weight", "head.kernel", LINEAR),
    Rule("fc.bias", "head.bias"),
    Rule(f"{_OFFICIAL_BLOCK}.conv{{n}}.weight", f"{_OWN_BLOCK}.conv{{n}}.kernel", CONV),
    *_norm(f"{_OFFICIAL_BLOCK}.bn{{n}}", f"{_OWN_BLOCK}.norm{{n}}"),
    Rule(f"{_OFFICIAL_BLOCK}.downsample.0.weight", f"{_OWN_BLOCK}.shortcut.conv.kernel", CONV),
    *_norm(f"{_OFFICIAL_BLOCK}.downsample.1", f"{_OWN_BLOCK}.shortcut.norm"),
    *_ddf(f"{_OFFICIAL_BLOCK}.conv{{n}}", f"{_OWN_BLOCK}.conv{{n}}"),
    *_ddf_batch_norm(f"{_OFFICIAL_BLOCK}.conv{{n}}", f"{_OWN_BLOCK}.conv{{n}}"),
    *_squeeze_excitation(f"{_OFFICIAL_BLOCK}.se", f"{_OWN_BLOCK}.attention"),
    Rule(f"{_OFFICIAL_BLOCK}.se.conv.weight", f"{_OWN_BLOCK}.attention.conv.kernel", CONV1D),
    Rule(f"{_OFFICIAL_BLOCK}.convs.{{n}}.weight", f"{_OWN_BLOCK}.convs.{{n}}.kernel", CONV),
    *_norm(f"{_OFFICIAL_BLOCK}.bns.{{n}}", f"{_OWN_BLOCK}.norms.{{n}}"),
    *_involution(f"{_OFFICIAL_BLOCK}.conv{{n}}", f"{_OWN_BLOCK}.conv{{n}}"),
    Rule("stem.0.conv.weight", "stem.conv1.kernel", CONV),
    *_norm("stem.0.bn", "stem.norm1"),
    *_involution("stem.1", "stem.conv2"),
    *_norm("stem.2", "stem.norm2"),
    Rule("stem.4.conv.weight", "stem.conv3.kernel", CONV),
    *_norm("stem.4.bn", "stem.norm3"),
    # DDF in a basic block: no official names exist, these are the port's (`ddf_jax.torch_port.resnet`).
    *_ddf(f"{_OFFICIAL_BLOCK}.conv{{n}}.ddf", f"{_OWN_BLOCK}.conv{{n}}.spatial"),
    *_norm(f"{_OFFICIAL_BLOCK}.conv{{n}}.bn", f"{_OWN_BLOCK}.conv{{n}}.norm"),
    Rule(f"{_OFFICIAL_BLOCK}.conv{{n}}.pointwise.weight", f"{_OWN_BLOCK}.conv{{n}}.pointwise.kernel", CONV),
    # Upsamplers alone, with the names of their packages: DDF-Up's S² branches, CARAFE.
    *_conv("spatial_branch.{n}.{m}", "spatial_branch.{n}.convs.{m}"),
    *_channel_branch("channel_branch.{n}", "channel_branch.{n}"),
    *_conv("channel_compressor", "channel_compressor"),
    *_conv("content_encoder", "content_encoder"),
    # A feature pyramid, with MMDetection's names; its operators behind the sums.
    *_conv("lateral_convs.{n}.conv", "laterals.{n}"),
    *_conv("fpn_convs.{n}.conv", "outputs.{n}"),
    *_involution("fpn_convs.{n}", "outputs.{n}"),
)


def naming_of(names: Iterable[str], *, own: Container[str] = ()) -> Naming:
    """The naming that matches more of the names; those in `own` are ours, whether a rule knows them or not."""
    names = list(names)
    official = sum(bool(_matches(name, "official")) for name in names)
    ours = sum(name in own or bool(_matches(name, "own")) for name in names)
    return "own" if ours > official else "official"


def is_known(name: str) -> bool:
    """Whether a rule matches the name, in either naming."""
    return bool(_matches(name, "official") or _matches(name, "own"))


def unknown_names(names: Iterable[str], naming: Naming) -> list[str]:
    """The names that no rule matches."""
    return [name for name in names if not _matches(name, naming)]


def translate_name(name: str, source: Naming) -> str:
    """The same tensor's name in the other naming."""
    rule, fields = _match(name, source)
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
        rule, fields = _match(name, source)
        layout = rule.layout.to_own if source == "official" else rule.layout.to_official
        try:
            channels = 0 if rule.squeeze is None else _channels(rule.squeeze, fields, tensors, source)
            translated[_format(rule.name(target), fields, target)] = layout(tensor, channels)
        except (IndexError, ValueError) as error:
            raise CheckpointError(
                f"{name} {list(tensor.shape)} does not have the shape of its kind: {error}."
            ) from error
        except KeyError as error:
            raise CheckpointError(f"{name} cannot be laid out without {error}, which is missing.") from error
    return translated


def official_tensors(own: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors in official names and layouts; the batch counters of torch's BatchNorm, which we lack, are 0."""
    counters = {
        name.removesuffix("var") + COUNTER: np.zeros((), np.int64) for name in own if name.rpartition(".")[2] == "var"
    }
    return translate({**own, **counters}, "own")


def _channels(
    squeeze: tuple[str, str], fields: Mapping[str, int], tensors: Mapping[str, np.ndarray], naming: Naming
) -> int:
    if naming == "official":
        return tensors[_format(squeeze[0], fields, naming)].shape[1]
    return tensors[_format(squeeze[1], fields, naming)].shape[0]


def _other(naming: Naming) -> Naming:
    return "own" if naming == "official" else "official"


def _match(name: str, naming: Naming) -> tuple[Rule, dict[str, int]]:
    matches = _matches(name, naming)
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
    # Numbers have no leading zeros, so a name and its fields determine each other.
    return [
        re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>0|[1-9][0-9]*)", re.escape(rule.name(naming)))) for rule in RULES
    ]


def _format(template: str, fields: Mapping[str, int], naming: Naming) -> str:
    if naming == "official" and "stage" in fields:
        fields = {**fields, "stage": fields["stage"] + 1}
    return template.format(**fields)
