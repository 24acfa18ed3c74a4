"""Painted boxes and spheres, and where rays hit them. Metres; x to the right, y up, z along the room."""

import dataclasses
from typing import Any

import numpy as np

WALL_COLOUR = np.array([0.62, 0.58, 0.5])
"""Of some walls and a few bodies."""


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


def rotation(*, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """The rotation [3, 3] about z by `roll`, then x by `pitch`, then y by `yaw`, in degrees; float64."""
    y, x, z = np.radians([yaw, pitch, roll])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def random_paint(rng: np.random.Generator) -> Paint:
    """A paint of random colours and pattern; a few have the colour of a wall."""
    hue = rng.permutation([0.0, rng.uniform(), 1.0])
    base = rng.uniform(0.1, 0.9) * (1 - rng.uniform(0.1, 0.9) * hue)
    if rng.random() < 0.02:
        base = WALL_COLOUR * rng.uniform(0.85, 1.1)
    other = np.clip(base + rng.normal(0, 0.25, 3), 0.02, 0.98)
    direction = rotation(yaw=rng.uniform(0, 90), pitch=rng.uniform(0, 90))[:, 0]
    pattern = rng.choice(["plain", "stripes", "checks", "grain"], p=[0.35, 0.25, 0.15, 0.25])
    return Paint(np.stack([base, other]), str(pattern), direction, rng.uniform(0.12, 0.45))


def plain_paint(rng: np.random.Generator) -> Paint:
    """A paint of one random colour."""
    return dataclasses.replace(random_paint(rng), pattern="plain")
