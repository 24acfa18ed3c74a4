"""Registry of models: a name maps to a function that returns a frozen configuration."""

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from ddf_jax.checkpoints import load_checkpoint
from ddf_jax.checkpoints.fitting import Head, InChannels
from ddf_jax.errors import UserError
from ddf_jax.registered import Registry, nearest


class ModelBuilder(Protocol):
    """A model's configuration: a frozen dataclass with everything but the parameters."""

    task: ClassVar[str]
    """The task: "classification", called as `model(images)`, or "depth_upsampling", as `model(images, low)`."""

    def inputs(self, height: int, width: int) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and dtypes of the inputs for one image of this size."""
        ...

    def build(self, *, rngs: nnx.Rngs) -> nnx.Module: ...


Factory = TypeVar("Factory", bound=Callable[..., ModelBuilder])
MODELS = Registry("model")

RENAMED_OPTIONS = {"sweeps": "iterations"}
"""Options of models under their former names, to their names now."""


def register(factory: Factory) -> Factory:
    """Registers a function that returns a configuration, under the function's own name.

    Raises:
        UserError: another function has the name.
    """
    return MODELS.register(factory)


def list_models(pattern: str = "*", *, task: str | None = None) -> list[str]:
    """The registered names that a shell-style pattern matches, sorted; with a `task`, those of its models.

    >>> list_models("ddf_resnet1*")
    ['ddf_resnet101', 'ddf_resnet152', 'ddf_resnet18']
    >>> list_models(task="depth_upsampling")
    ['ddf_up_net', 'djf', 'djf_plus', 'dmsg', 'pac_net']
    """
    return [name for name in MODELS.names(pattern) if task in (None, MODELS.get(name)().task)]


def is_registered(name: str) -> bool:
    """Whether a model has this name."""
    return name in MODELS


def get_config(name: str, **options: Any) -> Any:
    """The configuration of a registered model, with some of its fields or of its name's options replaced.

    Raises:
        UserError: the name or an option is unknown; the message lists the nearest ones. Or an option has no effect.
    """
    own = inspect.signature(MODELS.get(name)).parameters
    config = _configured(name, options)
    for key, value in options.items():
        without_effect = key in getattr(config, "unused", ())  # the blocks or the stem have no such option
        if key in own and value != own[key].default:  # another option may override it
            others = {other: options[other] for other in options if other != key}
            with contextlib.suppress(UserError):  # the others need it
                without_effect |= config == _configured(name, others)
        if without_effect:
            raise UserError(f"`{key}` has no effect on {name!r} with its other options: leave it out, got {value!r}.")
    return config


def _configured(name: str, options: Mapping[str, Any]) -> Any:
    factory = MODELS.get(name)
    own = inspect.signature(factory).parameters
    config = factory(**{key: value for key, value in options.items() if key in own})
    fields = [field.name for field in dataclasses.fields(config)]
    for key in options:
        if key not in own and key not in fields:
            known = [*own, *fields]
            if (renamed := RENAMED_OPTIONS.get(key)) in known:
                raise UserError(f"`{key}` of {name!r} is now `{renamed}`.")
            raise UserError(f"{name!r} has no option {key!r}.{nearest(key, known)}")
    replaced = {key: _merged(getattr(config, key), value, key) for key, value in options.items() if key not in own}
    return dataclasses.replace(config, **replaced)


def _merged(settings: Any, value: Any, name: str) -> Any:
    """The value of an option; a mapping replaces some fields of settings that are a dataclass."""
    if not isinstance(value, Mapping) or not dataclasses.is_dataclass(settings):
        return tuple(value) if isinstance(value, list) else value
    known = [field.name for field in dataclasses.fields(settings)]
    for key in value:
        if key not in known:
            raise UserError(f"`{name}` has no field {key!r}.{nearest(key, known)}")
    fields = {key: _merged(getattr(settings, key), item, f"{name}.{key}") for key, item in value.items()}
    return dataclasses.replace(settings, **fields)  # pyright: ignore[reportArgumentType]


def create(
    name: str,
    *,
    num_classes: int | None = None,
    checkpoint: str | Path | None = None,
    head: Head | str = "loaded",
    init_in_channels: InChannels | None = None,
    strict: bool = True,
    dtype: jnp.dtype | type = jnp.float32,
    param_dtype: jnp.dtype | type = jnp.float32,
    rngs: nnx.Rngs,
    **options: Any,
) -> Any:
    """A registered model, randomly initialised or with the parameters of a checkpoint.

    With a checkpoint and its head the model is in evaluation mode, ready to predict. Without one, or with a fresh head,
    it is in training mode: BatchNorm uses the batch's statistics until `model.eval()`.

    Args:
        name: one of `list_models()`.
        num_classes: outputs of a classifier; by default its configuration's, 1000.
        checkpoint: a `.safetensors` or `.pth` file with the official (PyTorch) names or our own.
        head: "fresh" keeps a random head, for other classes than the checkpoint's. Any other value is that of the
            configuration's own option `head`, as detectors have one.
        init_in_channels: "average" or "repeat" adapts the checkpoint's first convolution to another `in_channels`, as
            `load_checkpoint` describes.
        strict: False loads what fits, and warns of what did not.
        dtype: compute dtype.
        param_dtype: storage dtype.
        rngs: `nnx.Rngs(seed)`; stochastic depth also draws from it.
        options: fields of the configuration to replace, such as `stem="small"` or `squeeze_ratio=0.3`.

    Raises:
        UserError: a name or an option is unknown or without effect, or the checkpoint does not fit.

    >>> from flax import nnx
    >>> import jax.numpy as jnp
    >>> model = create("resnet18", num_classes=10, stem="small", width=8, blocks=(1, 1), rngs=nnx.Rngs(0))
    >>> model.eval()
    >>> model(jnp.zeros((1, 32, 32, 3))).shape
    (1, 10)
    """
    if num_classes is not None:
        options["num_classes"] = num_classes
    fresh = head == "fresh"
    if head not in get_args(Head):
        options["head"] = head
    config = get_config(name, dtype=dtype, param_dtype=param_dtype, **options)
    model = config.build(rngs=rngs)
    if checkpoint is not None:
        of_checkpoint: Head = "fresh" if fresh else "loaded"
        load_checkpoint(model, checkpoint, head=of_checkpoint, in_channels=init_in_channels, strict=strict)
        if not fresh:
            model.eval()
    return model


def abstract(name: str, **options: Any) -> Any:
    """A registered model with shapes and dtypes in place of arrays; it allocates nothing.

    Args:
        name: one of `list_models()`.
        options: of `create`, except `rngs` and `checkpoint`.

    Raises:
        UserError: a name or an option is unknown.

    >>> abstract("resnet18", num_classes=10).head.kernel.shape
    (512, 10)
    """
    return nnx.eval_shape(lambda: create(name, rngs=nnx.Rngs(0), **options))
