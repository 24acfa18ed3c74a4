"""Rendered rooms: seeds, sizes, and rays against geometry."""

import numpy as np

from ddf_jax.data.datasets import rooms
from ddf_jax.data.datasets.rendering import Box, Paint, Sphere, _lamp, render_room

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
