"""Looks into a network while it runs, without a line about it in the network."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from flax import nnx
from jax import Array

Call = Callable[[nnx.Module, Array], Array]
Around = Callable[[tuple[Any, ...], Call, nnx.Module, Array], Array]


@contextlib.contextmanager
def intercepted(root: nnx.Module, around: Around) -> Iterator[None]:
    """While it lasts, every call of a submodule of `root` goes through `around`.

    `around(path, call, module, x)` stands for `call(module, x)`: it may use x, the result, or others in their place.
    Modules made or merged in the meantime are none of `root`'s.
    """
    paths = {id(module): path for path, module in nnx.iter_modules(root)}

    def through(call: Call) -> Call:
        def intercepted_call(module: nnx.Module, x: Array) -> Array:
            path = paths.get(id(module))
            return call(module, x) if path is None else around(path, call, module, x)

        return intercepted_call

    kinds: Any = {type(module) for path, module in nnx.iter_modules(root) if path and callable(module)}
    # All calls are looked up before the first is replaced: a class may inherit another's.
    calls = {kind: kind.__call__ for kind in kinds}
    with contextlib.ExitStack() as stack:
        for kind, call in calls.items():
            stack.enter_context(mock.patch.object(kind, "__call__", through(call)))
        yield
