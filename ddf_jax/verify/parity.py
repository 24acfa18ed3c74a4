"""`verify`: compares registered models, detectors and upsamplers with their PyTorch ports."""

import fnmatch
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import jax

from ddf_jax import models
from ddf_jax.errors import UserError
from ddf_jax.registered import nearest
from ddf_jax.verify.detectors import compare_detector
from ddf_jax.verify.networks import compare_checkpoint, compare_network
from ddf_jax.verify.report import Report
from ddf_jax.verify.settings import Settings, default_batch, default_size
from ddf_jax.verify.upsamplers import UPSAMPLERS, compare_upsampler


def verify(
    pattern: str = "*",
    *,
    checkpoint: Path | None = None,
    dtype: Literal["float64", "float32"] = "float64",
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    implementation: str | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> list[Report]:
    """Compares models with their PyTorch ports on the same weights and images.

    It compares the output of every layer in evaluation and in training mode, the loss, the gradient of every parameter
    and of the input, the running statistics, and every parameter after a step of SGD. Weights and images are rounded to
    `dtype`, and the port computes in float64, so the errors are those of the Flax model's rounding alone. The relative
    error of a tensor is max|ours - theirs| / max|theirs|. A report passes if no error exceeds its dtype's tolerance
    (`TOLERANCES`).

    Detectors are compared in float64 on two images of their own, as `compare_detector` describes.

    Args:
        pattern: name of a registered model or of an upsampler (`UPSAMPLERS`: its output and gradients), or a shell
            pattern. Models without a port are left out, and detectors, which take minutes each, where the pattern also
            matches other models.
        checkpoint: weights of the one model that is compared, in any form that `load_checkpoint` takes; by default
            random weights.
        dtype: dtype of the Flax side's arithmetic. Use float64 with a checkpoint: in float32 a ReLU's input within
            rounding of 0 may change its sign, or another value become the largest of a max-pool's window, and gradients
            then differ by more than rounding.
        size: height and width of the images; by default 97 and 65, and of SANs 161 and 129.
        batch: number of images; by default 2, and 4 for ODConv.
        implementation: implementation of `dynamic_filter`; by default the best that runs here.
        options: fields of the model's config to replace, or options of the upsampler, on both sides.
        seed: seed of the random weights and images.

    Returns:
        A report for each model and upsampler.

    Raises:
        UserError: torch is missing, no model of that name has a port, or the checkpoint does not fit.
    """
    networks, upsamplers = _find(pattern, among=UPSAMPLERS if checkpoint is None else ())

    def settings(name: str) -> Settings:
        return Settings(
            dtype, size or default_size(name), batch or default_batch(name), implementation, options or {}, seed
        )

    if checkpoint is None:
        reports = _compare_networks({name: settings(name) for name in networks})
        return reports + [compare_upsampler(name, settings(name)) for name in upsamplers]
    if len(networks) > 1:
        names = ", ".join(networks)
        raise UserError(f"A checkpoint is of one model, but {pattern!r} names {len(networks)}: {names}.")
    if _is_detector(networks[0]):
        return [compare_detector(networks[0], checkpoint, settings(networks[0]))]
    return [compare_checkpoint(networks[0], checkpoint, settings(networks[0]))]


def _is_detector(name: str) -> bool:
    return models.get_config(name).task == "detection"


def _find(pattern: str, *, among: Collection[str]) -> tuple[list[str], list[str]]:
    """The networks with a port and the upsamplers that a pattern names.

    Args:
        pattern: a name or shell pattern.
        among: the names of upsamplers.
    """
    try:
        from ddf_jax import torch_port
        from ddf_jax.torch_port import detection
    except ImportError as error:
        raise UserError(
            "Verification compares with PyTorch, which is not installed. Install it: pip install 'ddf-jax[torch]'"
        ) from error
    ports = torch_port.list_models()
    networks = [name for name in models.list_models(pattern) if name in ports]
    upsamplers = fnmatch.filter(among, pattern)
    if not networks and not upsamplers:
        networks = detection.list_models(pattern)
    if not networks and not upsamplers:
        known = [*ports, *among, *detection.list_models()]
        raise UserError(f"No model with a PyTorch port is named {pattern!r}.{nearest(pattern, known)}")
    return networks, upsamplers


def _compare_networks(settings: Mapping[str, Settings]) -> list[Report]:
    import tqdm

    reports = []
    for name, of_network in tqdm.tqdm(settings.items(), unit="model", disable=len(settings) < 2):
        reports.append(
            compare_detector(name, None, of_network) if _is_detector(name) else compare_network(name, of_network)
        )
        if len(settings) > 1:  # a model takes some hundred programs; thirty models would exhaust the memory mappings
            jax.clear_caches()
    return reports
