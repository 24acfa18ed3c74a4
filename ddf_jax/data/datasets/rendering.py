"""Renders furnished rooms with a pinhole camera: colour, exact depth and segments of every pixel, by ray casting.

Metres; x to the right, y up, z along the room. One ray goes through the centre of each pixel, so a pixel lies on one
surface only: depth has no values between those of two surfaces, and every pixel belongs to one segment.
"""

import concurrent.futures
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from ddf_jax.data.datasets.bodies import WALL_COLOUR, Box, Paint, plain_paint, random_paint, rotation
from ddf_jax.data.datasets.furniture import Body, Thing, bounds, furnish, plain_thing

STUFF = ("wall", "floor", "ceiling")
"""Classes of the room itself, in the order of their numbers. Posters belong to their wall, rugs to the floor."""


Rendered = TypeVar("Rendered")


class View(NamedTuple):
    """The camera's image, its depth and its segments.

    Args:
        image: uint8 [H, W, 3].
        depth: float32 [H, W], metres along the camera's axis.
        segments: uint16 [H, W], the number of what is nearest at each pixel: that of a class of `STUFF`, or
            `len(STUFF)` and on for the things of the room, visible or not.
        names: the class of each segment by its number, one of `STUFF` or of `furniture.CLASSES`.
    """

    image: np.ndarray
    depth: np.ndarray
    segments: np.ndarray
    names: tuple[str, ...]


def render_rooms(seed: int, count: int, height: int, width: int) -> Iterator[View]:
    """The rooms of a split in their order: room i is that of `render_room` from the seed (seed, i)."""
    return in_threads(lambda index: render_room(np.random.default_rng([seed, index]), height, width), count)


def in_threads(render: Callable[[int], Rendered], count: int) -> Iterator[Rendered]:
    """`render(0)` to `render(count - 1)` in their order.

    In threads, one for each core: nearly all of the time is spent in NumPy, which lets others run.
    """
    threads = os.cpu_count() or 1
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for start in range(0, count, 16 * threads):  # what waits to be written is bounded
            yield from pool.map(render, range(start, min(start + 16 * threads, count)))


def render_room(rng: np.random.Generator, height: int, width: int) -> View:
    """Renders a random room: size, camera, furniture, textures, posters, lamps and shadows.

    Floor, walls and ceiling are the inside of a box. The furniture is boxes (cupboards, tables on legs, poles, boards)
    and spheres. Stripes, checks, grain and posters give colour edges without depth edges. A few bodies have the colour
    of the wall behind them and give depth edges with hardly any colour edge.

    Args:
        rng: the random generator of everything in the room.
        height: the image's height in pixels.
        width: the image's width in pixels.
    """
    size = _room_size(rng)
    eye, rays = _camera(rng, size, height, width)
    things = furnish(rng, size, eye)
    return _render(rng, size, eye, rays, things, (height, width))


def render_thing(rng: np.random.Generator, name: str, height: int, width: int) -> np.ndarray:
    """Renders a random thing of a class in a room that is empty but for it, both without patterns: uint8 [H, W, 3].

    The camera is anywhere in the room, and looks at the thing so closely that the sphere around it takes 65 to 100 % of
    the image's height, a little off its centre.

    Args:
        rng: the random generator of everything in the room.
        name: one of `furniture.CLASSES`.
        height: the image's height in pixels.
        width: the image's width in pixels.
    """
    size = _room_size(rng)
    thing = plain_thing(rng, name, size)
    low, high = bounds(thing)
    centre, radius = (low + high) / 2, float(np.linalg.norm(high - low)) / 2
    eyes = rng.uniform((0.1, 0.3, 0.08), (0.9, 0.7, 0.92), (20, 3)) * size
    distances = np.linalg.norm(eyes - centre, axis=-1)
    far = np.flatnonzero(distances > radius + 0.5)
    chosen = far[0] if len(far) else distances.argmax()
    eye, distance = eyes[chosen].astype(np.float32), float(distances[chosen])
    x, y, z = (centre - eye).tolist()
    yaw, pitch = np.degrees([np.arctan2(x, z), np.arctan2(-y, np.hypot(x, z))])
    focal = rng.uniform(0.65, 1.0) * height / 2 * distance / radius
    off = rng.uniform(-0.08, 0.08, 2) * (height, width)
    rays = _rays(height, width, focal, rotation(yaw=yaw, pitch=pitch, roll=rng.uniform(-5, 5)), off)
    return _render(rng, size, eye, rays, [thing], (height, width), plain_paint).image


def _room_size(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform((3.0, 2.3, 3.5), (6.5, 3.2, 7.5)).astype(np.float32)


def _render(
    rng: np.random.Generator,
    size: np.ndarray,
    eye: np.ndarray,
    rays: np.ndarray,
    things: Sequence[Thing],
    shape: tuple[int, int],
    paint: Callable[[np.random.Generator], Paint] = random_paint,
) -> View:
    """The view of things in a room of that size; its sides, with their `paint`, and lamps are random."""
    room = Box(size / 2, size / 2, np.eye(3, dtype=np.float32))

    depth, point = room.leave(eye, rays)
    colour, normal = _walls(rng, room, point, paint)
    segments = _stuff(normal)
    for number, thing in enumerate(things, len(STUFF)):
        for body in thing.bodies:
            seen, distance = body.hit(eye, rays)
            nearer = distance < depth[seen]
            seen, distance = seen[nearer], distance[nearer]
            depth[seen] = distance
            point[seen] = eye + distance[:, None] * rays[seen]
            colour[seen], normal[seen] = body.surface(point[seen])
            segments[seen] = number

    bodies = [body for thing in things for body in thing.bodies]
    light = np.full_like(colour, rng.uniform(0.15, 0.35))
    for lamp in rng.uniform(0.15, 0.85, (2, 3)).astype(np.float32) * size + (0, 0.1 * size[1], 0):
        light += _lamp(lamp.astype(np.float32), point, normal, bodies) * rng.uniform(0.5, 0.9)
    image = np.clip(colour * light, 0, 1) ** (1 / 2.2) + rng.normal(0, 0.012, colour.shape)
    pixels = np.clip(np.round(image * 255), 0, 255).astype(np.uint8)
    return View(
        pixels.reshape(*shape, 3),
        depth.reshape(shape),
        segments.reshape(shape),
        (*STUFF, *(thing.name for thing in things)),
    )


def _camera(rng: np.random.Generator, size: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The camera's position and a ray [H·W, 3] through each pixel, of length 1 m of depth."""
    eye = np.array([rng.uniform(0.25, 0.75) * size[0], rng.uniform(1.0, 1.8), rng.uniform(0.05, 0.2) * size[2]])
    focal = 0.5 * width / np.tan(np.radians(rng.uniform(50, 70)) / 2)
    turn = rotation(yaw=rng.uniform(-25, 25), pitch=rng.uniform(2, 22), roll=rng.uniform(-3, 3))
    return eye.astype(np.float32), _rays(height, width, focal, turn)


def _rays(
    height: int, width: int, focal: float, turn: np.ndarray, off: Sequence[float] | np.ndarray = (0.0, 0.0)
) -> np.ndarray:
    """Rays [H·W, 3] of a camera; `off` is where it looks to, in pixels down and right of the image's centre."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    middle = height / 2 + off[0], width / 2 + off[1]
    rays = np.stack([columns - middle[1], middle[0] - rows, np.full(rows.shape, focal)], -1) / focal
    return (rays.reshape(-1, 3) @ turn.T).astype(np.float32)


def _walls(
    rng: np.random.Generator, room: Box, point: np.ndarray, new_paint: Callable[[np.random.Generator], Paint]
) -> tuple[np.ndarray, np.ndarray]:
    """Colours and inward normals of points on the room's six sides, each with its paint and posters."""
    place, (axis, sign) = room.place(point)
    normal = np.zeros_like(point)
    normal[np.arange(len(point)), axis] = -sign
    colour = np.empty_like(point)
    for face in np.ndindex(3, 2):
        on = np.flatnonzero((axis == face[0]) & (sign == 2 * face[1] - 1))
        floor_or_ceiling = face[0] == 1
        paint = new_paint(rng)
        if not (floor_or_ceiling and face[1] == 0) and rng.random() < 0.2:
            paint = dataclasses.replace(paint, colours=np.stack([WALL_COLOUR * rng.uniform(0.8, 1.2)] * 2))
        flat = place[on]
        flat[:, face[0]] = 0.0
        colour[on] = paint.at(flat)
        across = [other for other in range(3) if other != face[0]]
        for _ in range(rng.integers(0, 4)):  # posters; on the floor, rugs
            middle = rng.uniform(-0.9, 0.9, 2) * room.half[across]
            inside = (np.abs(flat[:, across] - middle) < rng.uniform(0.1, 0.6, 2)).all(-1)
            colour[on[inside]] = new_paint(rng).at(flat[inside])
    return colour, normal


def _stuff(normal: np.ndarray) -> np.ndarray:
    """The number in `STUFF` of each point on the room's sides, from its inward normal [N, 3]."""
    wall, floor, ceiling = (np.uint16(STUFF.index(name)) for name in ("wall", "floor", "ceiling"))
    return np.select([normal[:, 1] > 0, normal[:, 1] < 0], [floor, ceiling], wall)


def _lamp(lamp: np.ndarray, point: np.ndarray, normal: np.ndarray, bodies: Sequence[Body]) -> np.ndarray:
    """Light [N, 1] of a lamp on points: less with distance and slant, none in shadow."""
    rays = point - lamp
    distance = np.linalg.norm(rays, axis=-1)
    slant = np.maximum(-np.einsum("ij,ij->i", rays, normal) / distance, 0)
    shadowed = np.zeros(len(point), bool)
    for body in bodies:
        rays_hit, at = body.hit(lamp, rays)
        shadowed[rays_hit[at < 0.995]] = True
    return (np.where(shadowed, 0, slant) * 4 / (2 + distance**2))[:, None]
