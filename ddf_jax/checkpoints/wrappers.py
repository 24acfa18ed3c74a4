"""Elements that frameworks and training scripts put into the names of tensors, around or inside a network."""

import functools
import itertools
from collections.abc import Container, Iterable, Iterator, Sequence

from ddf_jax.checkpoints.rules import is_known
from ddf_jax.checkpoints.tensor_files import CheckpointError

# DataParallel, torch.compile, FSDP, activation checkpointing, and the attributes that hold a network or its head.
WRAPPERS = frozenset(
    {
        *("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"),
        *("model", "base_model", "ema_model", "net", "network", "backbone", "encoder", "trunk", "head"),
    }
)


def without_wrappers(names: Iterable[str], *, own: Container[str] = ()) -> dict[str, str]:
    """Each name, and the name that a rule or `own` knows: without the fewest wrappers that keep it from one.

    >>> without_wrappers(["backbone.conv1.weight", "head.fc.bias", "head.bias"])
    {'backbone.conv1.weight': 'conv1.weight', 'head.fc.bias': 'fc.bias', 'head.bias': 'head.bias'}

    Raises:
        CheckpointError: two names become the same.
    """
    names = list(names)
    in_detector = any("neck" in name.split(".") for name in names)
    known: dict[str, str] = {}  # and where it comes from
    for name in names:
        inner = next(filter(functools.partial(_is_known, own, in_detector), _shorter(name)), name)
        if inner in known:
            raise CheckpointError(f"{known[inner]} and {name} are both {inner}; keep one of them.")
        known[inner] = name
    return {name: inner for inner, name in known.items()}


def _is_known(own: Container[str], in_detector: bool, name: str) -> bool:
    # A detector has a backbone and a neck. Elsewhere `backbone` is a wrapper.
    return name in own or (is_known(name) and (in_detector or not name.startswith("backbone.")))


def _shorter(name: str) -> Iterator[str]:
    """The name without some of its wrappers, beginning with the name itself."""
    elements = name.split(".")
    wrappers = [index for index, element in enumerate(elements) if element in WRAPPERS]
    for count in range(len(wrappers) + 1):
        for left_out in itertools.combinations(wrappers, count):
            shorter = ".".join(element for index, element in enumerate(elements) if index not in left_out)
            yield shorter
            if shorter.startswith("classifier.1."):  # DCD's, behind dropout
                yield shorter.replace("1", "0", 1)


def common_prefix(names: Sequence[str]) -> str:
    """The likely cause where many names are unknown: a sentence for an error, or nothing."""
    first = {name.partition(".")[0] for name in names}
    return f" All of them begin with `{first.pop()}.`." if len(first) == 1 < len(names) else ""
