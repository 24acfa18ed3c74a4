"""All pictures that apply to a run's network."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from ddf_jax.data.transforms import Normalize
from ddf_jax.inspect.draw import Panel, SpectrumRow, draw_grid, draw_spectra, heat, pixels
from ddf_jax.inspect.filter_panels import PANELS
from ddf_jax.inspect.grad_cam import grad_cam
from ddf_jax.inspect.noise import NOISES
from ddf_jax.inspect.observe import Observation, ends_of_stages, find_layer, generators, layer_shapes, observe
from ddf_jax.inspect.spectrum import power_spectrum
from ddf_jax.training.run import Run

MOST_IMAGES = 16


class Picture(NamedTuple):
    """A figure, what it shows, and of which layer."""

    kind: str
    layer: str
    figure: Figure


def inspect_run(run: Run, images: Sequence[np.ndarray], *, layer: str | None = None) -> list[Picture]:
    """Draws what the network of a run does with images.

    The filters that are generated in a layer, where there are any; Grad-CAM of the end of every stage and of the layer;
    images, the layer's output and the spectra of both, clean and under noise.

    Args:
      images: as `read_image` prepares them, each [H, W, C].
      layer: a module's path such as "stages.1.0.conv2"; default: the last block of the last stage but one.

    Raises:
      ValueError: there are no images or more than 16, no layer of that name, nothing to draw of it, or the network's
        outputs are not finite.
    """
    if not 1 <= len(images) <= MOST_IMAGES:
        raise ValueError(f"There must be 1 to {MOST_IMAGES} images, a row of the pictures for each, got {len(images)}.")
    model, normalize = run.model(), Normalize(run.info.channels)
    stages = ends_of_stages(model)
    shapes = layer_shapes(model, jax.ShapeDtypeStruct((1, *images[0].shape), jnp.float32))
    chosen = stages[max(len(stages) - 2, 0)] if layer is None else find_layer(shapes, layer)
    makers = generators(shapes, chosen)
    # Of a single pixel there is neither a map nor a spectrum.
    maps = [name for name in dict.fromkeys([*stages, chosen]) if len(shapes[name]) == 4 and max(shapes[name][1:3]) > 1]
    if chosen not in maps and not makers:
        raise ValueError(
            f"There is nothing to draw of {chosen!r}, whose output is {shapes[chosen]}. `--layer` must name one whose "
            f"output is [B, H, W, C] with more than one pixel, or that generates filters, such as {', '.join(stages)}."
        )
    rng, clean = np.random.default_rng(0), normalize.undo(np.stack(images))
    versions = {"clean": clean, **{name: noise(clean, rng).astype(np.float32) for name, noise in NOISES.items()}}
    batch = np.concatenate([normalize.map({"image": 255 * version})["image"] for version in versions.values()])
    seen = observe(model, jnp.asarray(batch), [*makers, *maps], gradients=maps)
    seen = jax.tree.map(lambda value: np.asarray(value, np.float32), seen)
    if not np.isfinite(seen.logits).all():
        raise ValueError("The network's outputs for these images must be finite to be drawn; some are infinite or NaN.")
    guesses = [_guess(logits, run.info.class_names) for logits in seen.logits]
    first = list(map(pixels, guesses, clean))

    pictures = []
    for name, kind in makers.items():
        title, panels = PANELS[kind]
        rows = [[image, *others] for image, others in zip(first, panels(seen.outputs[name][: len(clean)]), strict=True)]
        pictures.append(Picture(kind, name, draw_grid(rows, f"{title} of {name}")))
    if maps:
        pictures.append(Picture("grad_cam", chosen, _grad_cam(first, clean, seen, maps)))
    if chosen in maps:
        pictures.append(Picture("spectrum", chosen, _spectrum(versions, seen.outputs[chosen], guesses, chosen)))
    return pictures


def _grad_cam(first: Sequence[Panel], clean: np.ndarray, seen: Observation, layers: Sequence[str]) -> Figure:
    rows = [[panel] for panel in first]
    for name in layers:
        cams = np.asarray(grad_cam(seen.outputs[name], seen.gradients[name]))
        for row, image, cam in zip(rows, clean, cams, strict=False):
            # Lighter, so that black shows the map's colours too.
            panel = pixels(f"{name}\n{cam.shape[0]}×{cam.shape[1]}", 0.4 + 0.6 * image)
            row.append(panel._replace(overlay=cam))
    return draw_grid(rows, "Grad-CAM of the likeliest class: what is red speaks for it")


def _spectrum(versions: dict[str, np.ndarray], features: np.ndarray, guesses: Sequence[str], layer: str) -> Figure:
    count, labels = len(versions["clean"]), list(versions)
    images = np.concatenate(list(versions.values()))
    strength = np.abs(features).mean(-1)
    spectra = [power_spectrum(jnp.asarray(maps)) for maps in (images, features)]
    rows = []
    for row in range(count):
        indices = range(row, len(images), count)  # clean and then each noise
        largest = strength[list(indices)].max()
        scale = np.linalg.norm(features[row]) or 1.0
        image_panels, feature_panels, curves = [], [], ({}, {})
        for index, label in zip(indices, labels, strict=True):
            change = np.linalg.norm(features[index] - features[row]) / scale
            image_panels.append(pixels(f"{label}\n{guesses[index]}", images[index]))
            feature_panels.append(heat("" if index == row else f"changed by {change:.0%}", strength[index], largest))
            for curve, (frequencies, powers) in zip(curves, spectra, strict=True):
                curve[label] = (frequencies, np.asarray(powers[index]))
        rows.append(SpectrumRow(image_panels, feature_panels, *curves))
    return draw_spectra(
        rows, layer, f"Images, mean |output| of {layer}, and the power of their discrete cosine transforms"
    )


def _guess(logits: np.ndarray, names: Sequence[str]) -> str:
    chances = np.exp(logits - logits.max())
    return f"{names[int(logits.argmax())]} ({chances.max() / chances.sum():.0%})"
