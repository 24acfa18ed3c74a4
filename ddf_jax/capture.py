"""Captures or replaces intermediate activations of a model: forward hooks for Flax NNX.

`nnx.capture` collects what a model sows. With `method_outputs` it needs no `sow`, but it misses inherited methods,
changes classes for all threads and replaces nothing. These hooks belong to one model, one thread and one `with` block.
"""

import contextlib
import difflib
import functools
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, TypeAlias

from flax import nnx

from ddf_jax.errors import UserError

Hook: TypeAlias = Callable[..., Any]
"""`hook(name, call, *args, **kwargs)` returns a submodule's output; `call(*args, **kwargs)` computes the usual one."""

_HOOKS: ContextVar[Mapping[int, tuple[str, tuple[Hook, ...]]]] = ContextVar("hooks", default={})  # noqa: B039, not mutated

# How many blocks need a class's `__call__` to look for hooks, and the method that it defines itself, if any.
_LOCK = threading.Lock()
_USES: Counter[type] = Counter()
_OWN_CALLS: dict[type, Any] = {}


def submodules(model: nnx.Module) -> dict[str, nnx.Module]:
    """The callable submodules of a model by name: their paths joined by dots, such as "stages.1.0.conv2"."""
    modules = {".".join(map(str, path)): module for path, module in nnx.iter_modules(model) if path}
    return {name: module for name, module in modules.items() if callable(module)}


@contextlib.contextmanager
def capture(model: nnx.Module, names: Collection[str] | None = None) -> Iterator[dict[str, Any]]:
    """Captures the outputs of submodules within a `with` block.

    Within a traced function, such as one under `jax.jit`, enter the block inside the function and return the
    activations. Modules that are created or merged within the block are not captured.

    >>> import jax.numpy as jnp
    >>> model = nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.relu)
    >>> with capture(model) as activations:
    ...     y = model(jnp.ones((1, 2)))
    >>> {name: output.shape for name, output in activations.items()}
    {'layers.0': (1, 3)}

    Args:
        model: the model whose submodules are captured.
        names: the submodules, named as `submodules` names them; by default all.

    Yields:
        The outputs by name, in the order of the calls. The last call of a submodule counts.

    Raises:
        UserError: the model has no submodule of one of the names.
    """
    if names is not None:
        _check_names(model, names)
    activations: dict[str, Any] = {}

    def record(name: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        output = call(*args, **kwargs)
        if names is None or name in names:
            activations[name] = output
        return output

    with hook_calls(model, record):
        yield activations


@contextlib.contextmanager
def replace(model: nnx.Module, replacements: Mapping[str, Callable[[Any], Any]]) -> Iterator[None]:
    """Replaces the outputs of submodules within a `with` block.

    Args:
        model: the model whose submodules' outputs are replaced.
        replacements: by name, as `submodules` names them, a function from a submodule's output to its replacement.

    Raises:
        UserError: the model has no submodule of one of the names.
    """
    _check_names(model, replacements)

    def change(name: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        output = call(*args, **kwargs)
        return replacements[name](output) if name in replacements else output

    with hook_calls(model, change):
        yield


@contextlib.contextmanager
def hook_calls(model: nnx.Module, hook: Hook) -> Iterator[None]:
    """Every call of a submodule goes through `hook` within a `with` block.

    Blocks nest: the hook of an inner block sees the outputs of an outer block's hook.

    Args:
        model: the model whose submodules are hooked. The model itself is not.
        hook: receives a call and returns its output, see `Hook`. It must not call the module itself.
    """
    modules = submodules(model)
    hooks = dict(_HOOKS.get())
    for name, module in modules.items():
        hooks[id(module)] = name, (*hooks.get(id(module), ("", ()))[1], hook)
    kinds = {type(module) for module in modules.values()}
    _look_for_hooks(kinds)
    token = _HOOKS.set(hooks)
    try:
        yield
    finally:
        _HOOKS.reset(token)
        _stop_looking(kinds)


def _look_for_hooks(kinds: Collection[type]) -> None:
    with _LOCK:
        for kind in kinds:
            if not _USES[kind]:
                _OWN_CALLS[kind] = vars(kind).get("__call__")
                kind.__call__ = _with_hooks(kind, kind.__call__)
            _USES[kind] += 1


def _stop_looking(kinds: Collection[type]) -> None:
    with _LOCK:
        for kind in kinds:
            _USES[kind] -= 1
            if not _USES[kind]:
                own = _OWN_CALLS.pop(kind)
                if own is None:
                    del kind.__call__
                else:
                    kind.__call__ = own


def _with_hooks(kind: Any, call: Callable[..., Any]) -> Callable[..., Any]:
    """A class's `__call__` that goes through the hooks of this module in this context, if there are any."""

    @functools.wraps(call)
    def hooked_call(self: nnx.Module, *args: Any, **kwargs: Any) -> Any:
        bound = functools.partial(call, self)
        # A subclass that calls `super().__call__` has gone through its hooks already.
        name, hooks = _HOOKS.get().get(id(self), ("", ())) if type(self) is kind else ("", ())
        for hook in hooks:
            bound = functools.partial(hook, name, bound)
        return bound(*args, **kwargs)

    return hooked_call


def _check_names(model: nnx.Module, names: Collection[str]) -> None:
    known = submodules(model)
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.0)
            raise UserError(f"There must be a submodule of that name, got {name!r}. Nearest: {', '.join(nearest)}.")
