"""Pictures of the network of a run: generated filters, class activation maps, spectra under noise."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from ddf_jax.capture import submodules
from ddf_jax.data.transforms import Normalize
from ddf_jax.errors import UserError
from ddf_jax.inspect.attribution import (
    Activations,
    compute_activations,
    find_layer,
    grad_cam,
    last_blocks,
    layer_shapes,
)
from ddf_jax.inspect.figures import (
    Panel,
    SpectrumRow,
    draw_grid,
    draw_spectra,
    heat_panel,
    image_panel,
    signed_panel,
)
from ddf_jax.inspect.filters import (
    filter_generators,
    filter_grid,
    kernel_matrix,
    mosaic,
    similarity_colours,
    tap_sums,
)
from ddf_jax.inspect.spectra import NOISES, power_spectrum
from ddf_jax.layers.filter_norm import used_filters
from ddf_jax.training.run import Run

MAX_IMAGES = 16
# A panel has room for so many groups, pixels along an axis, and channels.
_GROUPS, _PIXELS, _CHANNELS = 2, 16, 64


class Picture(NamedTuple):
    """A figure about a layer.

    Attributes:
        kind: "spatial_filters", "channel_filters", "shared_kernels", "grad_cam" or "spectrum".
        layer: the layer's name.
        figure: the figure.
    """

    kind: str
    layer: str
    figure: Figure


def inspect_run(run: Run, images: Sequence[np.ndarray], *, layer: str | None = None) -> list[Picture]:
    """Draws the activations of a run's network for images.

    The pictures are the filters that are generated in a layer, if any; Grad-CAM of the last block of every stage and of
    the layer; and the images and the layer's output with their spectra, clean and under noise.

    Args:
        run: the run, such as `load_run` returns.
        images: 1 to 16 images [H, W, C], prepared by `read_image`.
        layer: a module's path such as "stages.1.0.conv2"; by default the last block of the last stage but one.

    Raises:
        UserError: the number of images is out of range, the network has no layer of that name, the layer has nothing to
            draw, or the network's outputs are not finite.
    """
    if not 1 <= len(images) <= MAX_IMAGES:
        raise UserError(f"There must be 1 to {MAX_IMAGES} images, a row of the pictures for each, got {len(images)}.")
    model, normalize = run.model(), Normalize(run.info.channels, run.recipe.data.mean, run.recipe.data.std)
    blocks = last_blocks(model)
    shapes = layer_shapes(model, jax.ShapeDtypeStruct((1, *images[0].shape), jnp.float32))
    chosen = blocks[max(len(blocks) - 2, 0)] if layer is None else find_layer(shapes, layer)
    generators = filter_generators(shapes, chosen)
    # A single pixel has neither a map nor a spectrum.
    maps = [name for name in dict.fromkeys([*blocks, chosen]) if len(shapes[name]) == 4 and max(shapes[name][1:3]) > 1]
    if chosen not in maps and not generators:
        raise UserError(
            f"There is nothing to draw of {chosen!r}, whose output is {shapes[chosen]}. `--layer` must name one whose "
            f"output is [B, H, W, C] with more than one pixel, or that generates filters, such as {', '.join(blocks)}."
        )
    rng, clean = np.random.default_rng(0), normalize.undo(np.stack(images))
    versions = {"clean": clean, **{name: noise(clean, rng).astype(np.float32) for name, noise in NOISES.items()}}
    batch = np.concatenate([normalize.map({"image": 255 * version})["image"] for version in versions.values()])
    activations = compute_activations(model, jnp.asarray(batch), [*generators, *maps], gradients=maps)
    activations = jax.tree.map(lambda value: np.asarray(value, np.float32), activations)
    modules = submodules(model)
    used = {name: np.asarray(used_filters(modules[name], activations.outputs[name])) for name in generators}
    if not np.isfinite(activations.logits).all():
        raise UserError("The network's outputs for these images must be finite to be drawn; some are infinite or NaN.")
    guesses = [_guess(logits, run.info.class_names) for logits in activations.logits]
    first = list(map(image_panel, guesses, clean))

    pictures = []
    for name, kind in generators.items():
        title, panels = _FILTER_PANELS[kind]
        rows = [[image, *others] for image, others in zip(first, panels(used[name][: len(clean)]), strict=True)]
        pictures.append(Picture(kind, name, draw_grid(rows, f"{title} of {name}")))
    if maps:
        pictures.append(Picture("grad_cam", chosen, _grad_cam(first, clean, activations, maps)))
    if chosen in maps:
        pictures.append(Picture("spectrum", chosen, _spectrum(versions, activations.outputs[chosen], guesses, chosen)))
    return pictures


def _grad_cam(first: Sequence[Panel], clean: np.ndarray, activations: Activations, layers: Sequence[str]) -> Figure:
    rows = [[panel] for panel in first]
    for name in layers:
        cams = np.asarray(grad_cam(activations.outputs[name], activations.gradients[name]))
        for row, image, cam in zip(rows, clean, cams, strict=False):
            # A lighter image shows the map's colours on black too.
            panel = image_panel(f"{name}\n{cam.shape[0]}×{cam.shape[1]}", 0.4 + 0.6 * image)
            row.append(panel._replace(overlay=cam))
    return draw_grid(rows, "Class activation maps (Grad-CAM) of the most likely class; red: large")


def _spectrum(versions: dict[str, np.ndarray], features: np.ndarray, guesses: Sequence[str], layer: str) -> Figure:
    count, labels = len(versions["clean"]), list(versions)
    images = np.concatenate(list(versions.values()))
    strength = np.abs(features).mean(-1)
    spectra = [jax.device_get(power_spectrum(jnp.asarray(maps))) for maps in (images, features)]
    rows = []
    for row in range(count):
        indices = range(row, len(images), count)  # clean and then each noise
        largest = strength[list(indices)].max()
        scale = np.linalg.norm(features[row]) or 1.0
        image_panels, feature_panels, curves = [], [], ({}, {})
        for index, label in zip(indices, labels, strict=True):
            change = np.linalg.norm(features[index] - features[row]) / scale
            image_panels.append(image_panel(f"{label}\n{guesses[index]}", images[index]))
            feature_panels.append(
                heat_panel("" if index == row else f"changed by {change:.0%}", strength[index], largest)
            )
            for curve, (frequencies, powers) in zip(curves, spectra, strict=True):
                curve[label] = (frequencies, powers[index])
        rows.append(SpectrumRow(image_panels, feature_panels, *curves))
    return draw_spectra(
        rows, layer, f"Images, mean |output| of {layer}, and the power of their discrete cosine transforms"
    )


def _spatial_panels(filters: np.ndarray) -> list[list[Panel]]:
    """Panels of each image: colours of similar filters, then tap sums (unless all are 0) and filters of some groups.

    The groups are those whose filters vary most.
    """
    groups = np.argsort(-filters.std((0, 1, 2)).mean(-1), kind="stable")[:_GROUPS]
    step = -(-max(filters.shape[1:3]) // _PIXELS)
    colours, chosen = similarity_colours(filters), filters[:, :, :, groups]
    sums, mosaics = tap_sums(chosen), mosaic(chosen[:, ::step, ::step])
    has_sums = np.abs(sums).max() > 1e-4 * np.abs(filters).sum(-1).max()
    every = f", 1 in {step}×{step}" if step > 1 else ""
    rows = [[image_panel("alike filters,\nalike colours", colour)] for colour in colours]
    for index, group in enumerate(groups):
        of_group = f" of group {group}" if filters.shape[3] > 1 else ""
        if has_sums:
            _add_panels(rows, f"sums of taps{of_group}", sums[:, index])
        _add_panels(rows, f"filters{of_group}{every}", mosaics[:, index], tile=math.isqrt(filters.shape[-1]))
    return rows


def _channel_panels(filters: np.ndarray) -> list[list[Panel]]:
    filters = filters[..., :_CHANNELS]
    title = f"filters of {filters.shape[-1]} channels"
    return _with_deviations(title, filter_grid(filters), tile=math.isqrt(filters.shape[1]))


def _shared_panels(kernels: np.ndarray) -> list[list[Panel]]:
    kernels = kernels[..., :_CHANNELS, :_CHANNELS]
    title = f"from {kernels.shape[-2]} to {kernels.shape[-1]} channels"
    return _with_deviations(title, kernel_matrix(kernels), tile=kernels.shape[1])


def _with_deviations(title: str, values: np.ndarray, *, tile: int) -> list[list[Panel]]:
    """The values of each image and, if there are several images, their deviations from the mean of the images."""
    rows: list[list[Panel]] = [[] for _ in values]
    _add_panels(rows, title, values, tile=tile)
    if len(values) > 1:
        _add_panels(rows, "minus the images' mean", values - values.mean(0), tile=tile)
    return rows


def _add_panels(rows: list[list[Panel]], title: str, values: np.ndarray, *, tile: int = 0) -> None:
    """Adds a panel to each row, all on one scale. One value of 200 may exceed it."""
    largest = float(np.nanquantile(np.abs(values), 0.995)) or 1.0
    for row, image in zip(rows, values, strict=True):
        row.append(signed_panel(title, image, largest, tile=tile))


# By kind: a title, and the function from the filters of B images to B rows of panels.
_FILTER_PANELS: dict[str, tuple[str, Callable[[np.ndarray], list[list[Panel]]]]] = {
    "spatial_filters": ("Spatial filters", _spatial_panels),
    "channel_filters": ("Channel filters", _channel_panels),
    "shared_kernels": ("Shift-invariant kernels", _shared_panels),
}


def _guess(logits: np.ndarray, names: Sequence[str]) -> str:
    chances = np.exp(logits - logits.max())
    return f"{names[int(logits.argmax())]} ({chances.max() / chances.sum():.0%})"
