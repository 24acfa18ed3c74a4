"""Renders furnished rooms with a pinhole camera: colour and exact depth of every pixel, by ray casting in numpy.

Metres; x to the right, y up, z along the room. One ray goes through the centre of each pixel, so a pixel lies on one
surface only and depth has no values between those of two surfaces.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np


class View(NamedTuple):
    """The camera's image and its depth."""

    image: np.ndarray  # [H, W, 3] uint8
    depth: np.ndarray  # [H, W] float32, metres along the camera's axis


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
    size = rng.uniform((3.0, 2.3, 3.5), (6.5, 3.2, 7.5)).astype(np.float32)
    eye, rays = _camera(rng, size, height, width)
    things = _furniture(rng, size, eye)
    room = Box(size / 2, size / 2, np.eye(3, dtype=np.float32))

    depth, point = room.leave(eye, rays)
    colour, normal = _walls(rng, room, point)
    for thing in things:
        seen, distance = thing.hit(eye, rays)
        nearer = distance < depth[seen]
        seen, distance = seen[nearer], distance[nearer]
        depth[seen] = distance
        point[seen] = eye + distance[:, None] * rays[seen]
        colour[seen], normal[seen] = thing.surface(point[seen])

    light = np.full_like(colour, rng.uniform(0.15, 0.35))
    for lamp in rng.uniform(0.15, 0.85, (2, 3)).astype(np.float32) * size + (0, 0.1 * size[1], 0):
        light += _lamp(lamp.astype(np.float32), point, normal, things) * rng.uniform(0.5, 0.9)
    image = np.clip(colour * light, 0, 1) ** (1 / 2.2) + rng.normal(0, 0.012, colour.shape)
    pixels = np.clip(np.round(image * 255), 0, 255).astype(np.uint8)
    return View(pixels.reshape(height, width, 3), depth.reshape(height, width))


@dataclasses.dataclass(frozen=True)
class Paint:
    """A colour and a pattern of a second colour, as functions of the place on a body."""

    colours: np.ndarray  # [2, 3]
    pattern: str = "plain"
    direction: np.ndarray = dataclasses.field(default_factory=lambda: np.array([1.0, 0.0, 0.0]))
    period: float = 0.3  # metres

    def at(self, place: np.ndarray) -> np.ndarray:
        """Places [N, 3] to colours [N, 3]."""
        along = place @ self.direction.astype(np.float32) / np.float32(self.period)
        share = {
            "plain": lambda: np.zeros_like(along),
            "stripes": lambda: (along % 1 < 0.4).astype(np.float32),
            "checks": lambda: (np.floor(place / np.float32(self.period) + 0.37).sum(-1) % 2).astype(np.float32),
            "grain": lambda: 0.5 + 0.5 * np.sin(6 * along + 2 * np.sin(9 * place[:, 1]) + np.sin(7 * place[:, 0])),
        }[self.pattern]()
        first, second = self.colours.astype(np.float32)
        return first + share[:, None] * (second - first)


@dataclasses.dataclass(frozen=True)
class Box:
    """A box whose axes are the columns of `turn`."""

    centre: np.ndarray  # [3]
    half: np.ndarray  # [3], half its sides
    turn: np.ndarray  # [3, 3]
    paint: Paint = Paint(np.ones((2, 3)))

    def hit(self, eye: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the rays that hit the body, and the distances in lengths of the ray."""
        near = _near_sphere(eye, rays, self.centre, np.linalg.norm(self.half))
        enter, leave = self._slabs(eye, rays[near])
        hits = (enter < leave) & (enter > 0)
        return near[hits], enter[hits]

    def leave(self, eye: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The distance of each ray from inside to a wall, and the point there."""
        distance = self._slabs(eye, rays)[1]
        return distance, eye + distance[:, None] * rays

    def surface(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Colours and outward normals at points on the surface."""
        place, face = self.place(point)
        axis, sign = face
        rows = np.arange(len(point))
        flat = place.copy()
        flat[rows, axis] = 0.0  # rounding must not decide on which side of a pattern's edge a face lies
        return self.paint.at(flat), (self.turn[:, axis] * sign).T

    def place(self, point: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """Points in the box's own axes, and the axis and sign of each one's face."""
        place = (point - self.centre) @ self.turn
        axis = np.argmax(np.abs(place) / self.half, axis=-1)
        return place, (axis, np.sign(place[np.arange(len(point)), axis]))

    def _slabs(self, eye: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        origin, along = (eye - self.centre) @ self.turn, rays @ self.turn
        along = np.where(np.abs(along) < 1e-7, np.float32(1e-7), along)
        first, second = (-self.half - origin) / along, (self.half - origin) / along
        return np.minimum(first, second).max(-1), np.maximum(first, second).min(-1)


@dataclasses.dataclass(frozen=True)
class Sphere:
    """A sphere."""

    centre: np.ndarray
    radius: float
    paint: Paint

    def hit(self, eye: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the rays that hit the body, and the distances in lengths of the ray."""
        near = _near_sphere(eye, rays, self.centre, self.radius)
        rays, origin = rays[near], eye - self.centre
        a, b, c = np.einsum("ij,ij->i", rays, rays), rays @ origin, origin @ origin - np.float32(self.radius**2)
        distance = (-b - np.sqrt(np.maximum(b * b - a * c, 0))) / a
        return near[distance > 0], distance[distance > 0]

    def surface(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Colours and outward normals at points on the surface."""
        place = point - self.centre
        return self.paint.at(place), place / np.float32(self.radius)


def _near_sphere(eye: np.ndarray, rays: np.ndarray, centre: np.ndarray, radius: Any) -> np.ndarray:
    """Indices of the rays that pass a point in front of the eye within a radius. This cheap test leaves few rays."""
    to_centre = centre - eye
    ahead = rays @ to_centre
    passes = ahead**2 >= (to_centre @ to_centre - np.float32(radius) ** 2) * np.einsum("ij,ij->i", rays, rays)
    return np.flatnonzero(passes & (ahead > 0))


def _camera(rng: np.random.Generator, size: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The camera's position and a ray [H·W, 3] through each pixel, of length 1 m of depth."""
    eye = np.array([rng.uniform(0.25, 0.75) * size[0], rng.uniform(1.0, 1.8), rng.uniform(0.05, 0.2) * size[2]])
    focal = 0.5 * width / np.tan(np.radians(rng.uniform(50, 70)) / 2)
    rows, columns = np.mgrid[:height, :width] + 0.5
    rays = np.stack([columns - width / 2, height / 2 - rows, np.full(rows.shape, focal)], -1) / focal
    turn = rotation(yaw=rng.uniform(-25, 25), pitch=rng.uniform(2, 22), roll=rng.uniform(-3, 3))
    return eye.astype(np.float32), (rays.reshape(-1, 3) @ turn.T).astype(np.float32)


def _furniture(rng: np.random.Generator, size: np.ndarray, eye: np.ndarray) -> list[Box | Sphere]:
    """Random bodies, without those around the camera."""
    things: list[Box | Sphere] = []
    for _ in range(rng.integers(9, 17)):
        things += _MAKERS[rng.choice(len(_MAKERS), p=_SHARES)](rng, size)
    return [thing for thing in things if _clearance(thing, eye) > 0.3]


def _clearance(thing: Box | Sphere, eye: np.ndarray) -> float:
    radius = thing.radius if isinstance(thing, Sphere) else np.linalg.norm(thing.half)
    return float(np.linalg.norm(thing.centre - eye) - radius)


def _somewhere(rng: np.random.Generator, size: np.ndarray) -> tuple[float, float]:
    """A random place on the floor, mostly in front of the camera."""
    return rng.uniform(0.08, 0.92) * size[0], rng.uniform(0.25, 0.95) * size[2]


def _cupboard(rng: np.random.Generator, size: np.ndarray) -> list[Box | Sphere]:
    x, z = _somewhere(rng, size)
    half = rng.uniform((0.12, 0.1, 0.12), (0.5, 0.8, 0.4))
    return [_box(rng, (x, half[1], z), half, yaw=rng.uniform(-50, 50))]


def _table(rng: np.random.Generator, size: np.ndarray) -> list[Box | Sphere]:
    x, z = _somewhere(rng, size)
    turn, paint = rotation(yaw=rng.uniform(-60, 60)), _paint(rng)
    length, depth, top = rng.uniform(0.3, 0.7), rng.uniform(0.25, 0.45), rng.uniform(0.4, 0.8)
    parts: list[Box | Sphere] = [_at((x, top, z), (length, 0.025, depth), turn, paint)]
    for i in (-0.92, 0.92):
        for j in (-0.92, 0.92):
            dx, _, dz = turn @ np.array([i * length, 0, j * depth])
            parts.append(_at((x + dx, top / 2, z + dz), (0.04, top / 2, 0.04), turn, paint))
    radius = rng.uniform(0.06, 0.15)
    return [*parts, Sphere(np.array([x, top + 0.025 + radius, z], np.float32), radius, _paint(rng))]


def _pole(rng: np.random.Generator, size: np.ndarray) -> list[Box | Sphere]:
    x, z = _somewhere(rng, size)
    half = np.array([rng.uniform(0.04, 0.09), rng.uniform(0.5, 1.1), rng.uniform(0.04, 0.09)])
    head = Sphere(np.array([x, 2 * half[1], z], np.float32), rng.uniform(0.08, 0.2), _paint(rng))
    return [_box(rng, (x, half[1], z), half, yaw=rng.uniform(0, 90)), head]


def _board(rng: np.random.Generator, size: np.ndarray) -> list[Box | Sphere]:
    x, z = _somewhere(rng, size)
    half = np.array([rng.uniform(0.2, 0.6), rng.uniform(0.3, 0.9), 0.02])
    lean = rng.uniform(-40, 40)
    return [_box(rng, (x, half[1] * np.cos(np.radians(lean)), z), half, yaw=rng.uniform(-60, 60), pitch=lean)]


def _shelf(rng: np.random.Generator, size: np.ndarray) -> list[Box | Sphere]:
    side = rng.choice([-1, 0, 1])
    height, depth = rng.uniform(0.3, 0.8) * size[1], rng.uniform(0.1, 0.25)
    half = np.array([rng.uniform(0.2, 0.7), rng.uniform(0.02, 0.3), depth])
    if side == 0:
        return [_box(rng, (rng.uniform(0.1, 0.9) * size[0], height, size[2] - depth), half)]
    x = depth if side < 0 else size[0] - depth
    return [_box(rng, (x, height, rng.uniform(0.3, 0.9) * size[2]), half, yaw=90)]


def _ball(rng: np.random.Generator, size: np.ndarray) -> list[Box | Sphere]:
    x, z = _somewhere(rng, size)
    radius = rng.uniform(0.08, 0.4)
    y = radius if rng.random() < 0.6 else rng.uniform(0.5, 0.85) * size[1]
    return [Sphere(np.array([x, y, z], np.float32), radius, _paint(rng))]


_MAKERS = (_cupboard, _table, _pole, _board, _shelf, _ball)
_SHARES = (0.28, 0.14, 0.14, 0.14, 0.14, 0.16)


def _box(rng: np.random.Generator, centre: Any, half: Any, *, yaw: float = 0.0, pitch: float = 0.0) -> Box:
    return _at(centre, half, rotation(yaw=yaw, pitch=pitch), _paint(rng))


def _at(centre: Any, half: Any, turn: np.ndarray, paint: Paint) -> Box:
    return Box(np.array(centre, np.float32), np.array(half, np.float32), turn.astype(np.float32), paint)


def _paint(rng: np.random.Generator) -> Paint:
    hue = rng.permutation([0.0, rng.uniform(), 1.0])
    base = rng.uniform(0.1, 0.9) * (1 - rng.uniform(0.1, 0.9) * hue)
    if rng.random() < 0.02:
        base = _WALL * rng.uniform(0.85, 1.1)
    other = np.clip(base + rng.normal(0, 0.25, 3), 0.02, 0.98)
    direction = rotation(yaw=rng.uniform(0, 90), pitch=rng.uniform(0, 90))[:, 0]
    pattern = rng.choice(["plain", "stripes", "checks", "grain"], p=[0.35, 0.25, 0.15, 0.25])
    return Paint(np.stack([base, other]), str(pattern), direction, rng.uniform(0.12, 0.45))


_WALL = np.array([0.62, 0.58, 0.5])  # the colour of some walls and a few bodies


def _walls(rng: np.random.Generator, room: Box, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours and inward normals of points on the room's six sides, each with its paint and posters."""
    place, (axis, sign) = room.place(point)
    normal = np.zeros_like(point)
    normal[np.arange(len(point)), axis] = -sign
    colour = np.empty_like(point)
    for face in np.ndindex(3, 2):
        on = np.flatnonzero((axis == face[0]) & (sign == 2 * face[1] - 1))
        floor_or_ceiling = face[0] == 1
        paint = _paint(rng)
        if not (floor_or_ceiling and face[1] == 0) and rng.random() < 0.2:
            paint = dataclasses.replace(paint, colours=np.stack([_WALL * rng.uniform(0.8, 1.2)] * 2))
        flat = place[on]
        flat[:, face[0]] = 0.0
        colour[on] = paint.at(flat)
        across = [other for other in range(3) if other != face[0]]
        for _ in range(rng.integers(0, 4)):  # posters; on the floor, rugs
            middle = rng.uniform(-0.9, 0.9, 2) * room.half[across]
            inside = (np.abs(flat[:, across] - middle) < rng.uniform(0.1, 0.6, 2)).all(-1)
            colour[on[inside]] = _paint(rng).at(flat[inside])
    return colour, normal


def _lamp(lamp: np.ndarray, point: np.ndarray, normal: np.ndarray, things: list[Box | Sphere]) -> np.ndarray:
    """Light [N, 1] of a lamp on points: less with distance and slant, none in shadow."""
    rays = point - lamp
    distance = np.linalg.norm(rays, axis=-1)
    slant = np.maximum(-np.einsum("ij,ij->i", rays, normal) / distance, 0)
    shadowed = np.zeros(len(point), bool)
    for thing in things:
        rays_hit, at = thing.hit(lamp, rays)
        shadowed[rays_hit[at < 0.995]] = True
    return (np.where(shadowed, 0, slant) * 4 / (2 + distance**2))[:, None]


def rotation(*, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """The rotation [3, 3] about z by `roll`, then x by `pitch`, then y by `yaw`, in degrees; float64."""
    y, x, z = np.radians([yaw, pitch, roll])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return about_y @ about_x @ about_z
