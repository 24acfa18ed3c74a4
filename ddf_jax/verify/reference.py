"""References: numbers recorded from other implementations, whose weights and inputs are drawn from a seed."""

import math
import re
from collections.abc import Iterable, Mapping

import numpy as np

_NORMS = re.compile(r"\.bn|^bn1|downsample\.1\.|\.gn\.")


def reference_weights(
    shapes: Mapping[str, tuple[int, ...]], seed: int, scales: Iterable[tuple[str, float]] = ()
) -> dict[str, np.ndarray]:
    """The tensors of a reference, float64, by their official names.

    One stream of normal numbers n fills the tensors in the order of their names. Normalisations have a scale 1 + n/10,
    a bias and a mean n/10 and a variance 1 + |n|/10; other biases are n/20, other weights n/√(inputs). Counters are 0.

    Args:
        shapes: by name.
        seed: of the stream.
        scales: regular expressions and factors of the tensors in whose names they are found.
    """
    generator = np.random.Generator(np.random.Philox(seed))
    tensors = {}
    for name in sorted(shapes):
        shape = tuple(shapes[name])
        if name.endswith("num_batches_tracked"):
            tensors[name] = np.zeros(shape, np.int64)
            continue
        drawn = generator.standard_normal(shape)
        if name.endswith("running_var"):
            drawn = 1 + 0.1 * np.abs(drawn)
        elif name.endswith("running_mean"):
            drawn = 0.1 * drawn
        elif _NORMS.search(name):
            drawn = (1 if name.endswith("weight") else 0) + 0.1 * drawn
        else:
            drawn = 0.05 * drawn if name.endswith("bias") else drawn / math.sqrt(math.prod(shape[1:]))
        tensors[name] = drawn * math.prod(factor for pattern, factor in scales if re.search(pattern, name))
    return tensors


def summary(array: np.ndarray, count: int) -> np.ndarray:
    """The sum, the sum of squares and `count` evenly spaced elements of an array."""
    flat = array.ravel()
    places = np.floor(np.linspace(0, flat.size - 1, count)).astype(int)
    return np.concatenate([[flat.sum(), (flat**2).sum()], flat[places]])
