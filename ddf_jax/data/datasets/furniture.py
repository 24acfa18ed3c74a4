"""Random furniture. A thing is what a person would give one name: a table with its legs, a pole with its head."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ddf_jax.data.datasets.bodies import Box, Paint, Sphere, plain_paint, random_paint, rotation

CLASSES = ("cupboard", "table", "pole", "board", "shelf", "ball")
"""Of things, in the order of their numbers."""

Body = Box | Sphere


@dataclasses.dataclass(frozen=True)
class Thing:
    """One piece of furniture.

    Args:
        name: its class, one of `CLASSES`.
        bodies: what it consists of. A table's legs and a pole's head belong to it; the ball on a table is another
            thing, as it can be taken away.
    """

    name: str
    bodies: Sequence[Body]


def furnish(rng: np.random.Generator, size: np.ndarray, eye: np.ndarray) -> list[Thing]:
    """Random things in a room of the size [3], without the bodies around the camera."""
    things: list[Thing] = []
    for _ in range(rng.integers(9, 17)):
        things += _MAKERS[rng.choice(len(_MAKERS), p=_SHARES)](rng, size)
    seen = [Thing(thing.name, [body for body in thing.bodies if _clearance(body, eye) > 0.3]) for thing in things]
    return [thing for thing in seen if thing.bodies]


def plain_thing(rng: np.random.Generator, name: str, size: np.ndarray) -> Thing:
    """A random thing of a class in a room of the size [3], of one colour."""
    thing = next(thing for thing in _MAKERS[CLASSES.index(name)](rng, size) if thing.name == name)
    paint = plain_paint(rng)
    return Thing(name, [dataclasses.replace(body, paint=paint) for body in thing.bodies])


def bounds(thing: Thing) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest coordinates [3] of a thing."""
    reach = [body.radius if isinstance(body, Sphere) else np.abs(body.turn) @ body.half for body in thing.bodies]
    middles = [body.centre for body in thing.bodies]
    low = np.min([middle - far for middle, far in zip(middles, reach, strict=True)], 0)
    high = np.max([middle + far for middle, far in zip(middles, reach, strict=True)], 0)
    return low, high


def _clearance(body: Body, eye: np.ndarray) -> float:
    radius = body.radius if isinstance(body, Sphere) else np.linalg.norm(body.half)
    return float(np.linalg.norm(body.centre - eye) - radius)


def _somewhere(rng: np.random.Generator, size: np.ndarray) -> tuple[float, float]:
    """A random place on the floor, mostly in front of the camera."""
    return rng.uniform(0.08, 0.92) * size[0], rng.uniform(0.25, 0.95) * size[2]


def _cupboard(rng: np.random.Generator, size: np.ndarray) -> list[Thing]:
    x, z = _somewhere(rng, size)
    half = rng.uniform((0.12, 0.1, 0.12), (0.5, 0.8, 0.4))
    return [Thing("cupboard", [_box(rng, (x, half[1], z), half, yaw=rng.uniform(-50, 50))])]


def _table(rng: np.random.Generator, size: np.ndarray) -> list[Thing]:
    x, z = _somewhere(rng, size)
    turn, paint = rotation(yaw=rng.uniform(-60, 60)), random_paint(rng)
    length, depth, top = rng.uniform(0.3, 0.7), rng.uniform(0.25, 0.45), rng.uniform(0.4, 0.8)
    parts: list[Body] = [_at((x, top, z), (length, 0.025, depth), turn, paint)]
    for i in (-0.92, 0.92):
        for j in (-0.92, 0.92):
            dx, _, dz = turn @ np.array([i * length, 0, j * depth])
            parts.append(_at((x + dx, top / 2, z + dz), (0.04, top / 2, 0.04), turn, paint))
    radius = rng.uniform(0.06, 0.15)
    ball = Sphere(np.array([x, top + 0.025 + radius, z], np.float32), radius, random_paint(rng))
    return [Thing("table", parts), Thing("ball", [ball])]


def _pole(rng: np.random.Generator, size: np.ndarray) -> list[Thing]:
    x, z = _somewhere(rng, size)
    half = np.array([rng.uniform(0.04, 0.09), rng.uniform(0.5, 1.1), rng.uniform(0.04, 0.09)])
    head = Sphere(np.array([x, 2 * half[1], z], np.float32), rng.uniform(0.08, 0.2), random_paint(rng))
    return [Thing("pole", [_box(rng, (x, half[1], z), half, yaw=rng.uniform(0, 90)), head])]


def _board(rng: np.random.Generator, size: np.ndarray) -> list[Thing]:
    x, z = _somewhere(rng, size)
    half = np.array([rng.uniform(0.2, 0.6), rng.uniform(0.3, 0.9), 0.02])
    lean = rng.uniform(-40, 40)
    middle = (x, half[1] * np.cos(np.radians(lean)), z)
    return [Thing("board", [_box(rng, middle, half, yaw=rng.uniform(-60, 60), pitch=lean)])]


def _shelf(rng: np.random.Generator, size: np.ndarray) -> list[Thing]:
    side = rng.choice([-1, 0, 1])
    height, depth = rng.uniform(0.3, 0.8) * size[1], rng.uniform(0.1, 0.25)
    half = np.array([rng.uniform(0.2, 0.7), rng.uniform(0.02, 0.3), depth])
    if side == 0:
        middle = (rng.uniform(0.1, 0.9) * size[0], height, size[2] - depth)
        return [Thing("shelf", [_box(rng, middle, half)])]
    x = depth if side < 0 else size[0] - depth
    return [Thing("shelf", [_box(rng, (x, height, rng.uniform(0.3, 0.9) * size[2]), half, yaw=90)])]


def _ball(rng: np.random.Generator, size: np.ndarray) -> list[Thing]:
    x, z = _somewhere(rng, size)
    radius = rng.uniform(0.08, 0.4)
    y = radius if rng.random() < 0.6 else rng.uniform(0.5, 0.85) * size[1]
    return [Thing("ball", [Sphere(np.array([x, y, z], np.float32), radius, random_paint(rng))])]


_MAKERS = (_cupboard, _table, _pole, _board, _shelf, _ball)  # in the order of `CLASSES`
_SHARES = (0.28, 0.14, 0.14, 0.14, 0.14, 0.16)


def _box(rng: np.random.Generator, centre: Any, half: Any, *, yaw: float = 0.0, pitch: float = 0.0) -> Box:
    return _at(centre, half, rotation(yaw=yaw, pitch=pitch), random_paint(rng))


def _at(centre: Any, half: Any, turn: np.ndarray, paint: Paint) -> Box:
    return Box(np.array(centre, np.float32), np.array(half, np.float32), turn.astype(np.float32), paint)
