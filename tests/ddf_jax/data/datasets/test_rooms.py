"""Rendered rooms: seeds, sizes, and rays against geometry."""

import numpy as np

from ddf_jax.data.datasets import rooms
from ddf_jax.data.datasets.bodies import Box, Paint, Sphere
from ddf_jax.data.datasets.furniture import CLASSES, furnish
from ddf_jax.data.datasets.rendering import STUFF, _camera, _lamp, render_room
from tests.imports import ROOT

EYE, RAYS = np.zeros(3, np.float32), np.array([[0.0, 0.0, 1.0], [0.0, 0.1, 1.0], [0.0, 9.0, 1.0]], np.float32)


def test_rooms_are_seeded_and_have_the_depth_of_a_room():
    first, again, other = (render_room(np.random.default_rng(seed), 24, 32) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.depth, again.depth)
    assert not np.array_equal(first.depth, other.depth)
    for view in (first, other):
        assert view.image.shape == (24, 32, 3)
        assert view.depth.dtype == np.float32
        assert view.depth.min() > 0.2
        assert view.depth.max() < 10


def test_the_rooms_are_those_that_were_recorded():
    """`rooms.npz` has the first two at 24×32 pixels. Another processor may round numbers differently."""
    with np.load(ROOT / "tests" / "golden" / "rooms.npz") as recorded:
        for index in range(2):
            view = render_room(np.random.default_rng([0, index]), 24, 32)
            levels = np.abs(view.image.astype(int) - recorded["image"][index])
            assert (levels <= 1).mean() > 0.99
            assert (np.abs(view.depth - recorded["depth"][index]) < 1e-3).mean() > 0.99


def test_every_pixel_shows_the_nearest_thing_or_the_rooms_side():
    """Against the distances to each body alone."""
    view, rng = render_room(np.random.default_rng(3), 24, 32), np.random.default_rng(3)
    size = rng.uniform((3.0, 2.3, 3.5), (6.5, 3.2, 7.5)).astype(np.float32)
    eye, rays = _camera(rng, size, 24, 32)
    things = furnish(rng, size, eye)
    distance = np.full((len(things), len(rays)), np.inf)
    for row, thing in zip(distance, things, strict=True):
        for body in thing.bodies:
            hit, at = body.hit(eye, rays)
            row[hit] = np.minimum(row[hit], at)
    nearest = np.where(np.isfinite(distance.min(0)), distance.argmin(0), -1)
    shown = view.segments.reshape(-1).astype(int) - len(STUFF)
    np.testing.assert_array_equal(np.maximum(shown, -1), nearest)
    assert view.names == (*STUFF, *(thing.name for thing in things))
    # Below the horizon a side of the room is floor or wall, above it ceiling or wall.
    stuff, up = np.array(STUFF)[view.segments.reshape(-1)[shown < 0]], rays[shown < 0, 1] > 0
    assert {*stuff[up]} <= {"ceiling", "wall"}
    assert {*stuff[~up]} == {"floor", "wall"}


def test_a_table_has_its_legs_and_a_pole_its_head_but_no_ball():
    found = {name: set() for name in CLASSES}
    for seed in range(30):
        rng = np.random.default_rng(seed)
        for thing in furnish(rng, np.array([5.0, 2.5, 6.0]), np.array([-9.0, 1.0, -9.0])):
            found[thing.name].add(tuple(type(body).__name__ for body in thing.bodies))
    single = {("Box",)}
    assert found == {
        **dict.fromkeys(("cupboard", "board", "shelf"), single),
        "table": {("Box",) * 5},
        "pole": {("Box", "Sphere")},
        "ball": {("Sphere",)},
    }


def test_the_splits_have_their_sizes():
    assert rooms.SIZES["train"] >= 600
    assert rooms.SIZES["test"] == 100


def test_rays_hit_bodies_at_the_right_distance():
    centre, turn = np.array([0.0, 0.0, 3.0], np.float32), np.eye(3, dtype=np.float32)
    hit, distance = Sphere(centre, 1.0, Paint(np.ones((2, 3)))).hit(EYE, RAYS)
    np.testing.assert_array_equal(hit, [0, 1])  # the third ray passes above
    b = 3 / 1.01  # of t² · 1.01 - 6 t + 8 = 0
    np.testing.assert_allclose(distance, [2, b - np.sqrt(b**2 - 8 / 1.01)], rtol=1e-5)
    box = Box(centre, np.array([1.0, 1.0, 0.5], np.float32), turn)
    np.testing.assert_allclose(box.hit(EYE, RAYS)[1], [2.5, 2.5], rtol=1e-6)
    np.testing.assert_allclose(box.surface(np.array([[0.3, 0.2, 2.5]], np.float32))[1], [[0, 0, -1]])
    assert len(Box(-centre, box.half, turn).hit(EYE, RAYS)[0]) == 0  # behind the eye


def test_a_lamps_light_falls_with_distance_and_slant_and_lights_nothing_behind():
    points, up = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 2.0]]), np.array([0.0, 1.0, 0.0])
    light = _lamp(np.array([0.0, 1.0, 0.0]), points, np.broadcast_to(up, points.shape), [])
    distance = np.sqrt([1, 2, 5])
    np.testing.assert_allclose(light[:, 0], 1 / distance * 4 / (2 + distance**2))
    assert not _lamp(np.array([0.0, -1.0, 0.0]), points, np.broadcast_to(up, points.shape), []).any()
