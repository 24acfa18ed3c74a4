"""Generated filters as images, against independent formulas."""

import numpy as np

from ddf_jax.inspect.filters import filter_grid, kernel_matrix, mosaic, similarity_colours, tap_sums


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_a_filter_is_drawn_at_its_pixel():
    filters = values(2, 3, 5, 4, 9)
    drawn = mosaic(filters)
    assert drawn.shape == (2, 4, 9, 15)
    np.testing.assert_array_equal(drawn[1, 2, 3:6, 12:15], filters[1, 1, 4, 2].reshape(3, 3))
    np.testing.assert_allclose(tap_sums(filters)[1, 2, 1, 4], sum(filters[1, 1, 4, 2]), rtol=1e-5)


def test_similar_filters_have_similar_colours():
    filters = values(2, 3, 4, 2, 9)
    filters[1, 2, 3] = filters[0, 0, 0]
    colours = similarity_colours(filters)
    assert colours.shape == (2, 3, 4, 3)
    assert colours.min() >= 0
    assert colours.max() <= 1
    np.testing.assert_allclose(colours[1, 2, 3], colours[0, 0, 0])
    # Three components hold everything about filters of three values in all, so distances are kept.
    few = values(1, 4, 5, 3, 1)
    ratios = distances(similarity_colours(few)) / distances(few)
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-5)


def distances(points: np.ndarray) -> np.ndarray:
    """Distances between any two of twenty points in space."""
    apart = points.reshape(20, 1, 3) - points.reshape(1, 20, 3)
    return np.linalg.norm(apart, axis=-1)[np.triu_indices(20, 1)]


def test_the_same_filter_everywhere_is_grey():
    np.testing.assert_allclose(similarity_colours(np.ones((1, 2, 1, 1, 9))), 0.5)


def test_channels_are_drawn_row_by_row_and_missing_ones_are_nan():
    filters = values(2, 9, 7)
    grid = filter_grid(filters)
    assert grid.shape == (2, 9, 9)
    np.testing.assert_array_equal(grid[1, 3:6, 3:6], filters[1, :, 4].reshape(3, 3).astype(np.float64))
    assert np.isnan(grid[0]).sum() == 2 * 9


def test_a_kernel_is_drawn_with_outputs_down_and_inputs_across():
    kernels = values(2, 3, 3, 4, 5)
    drawn = kernel_matrix(kernels)
    assert drawn.shape == (2, 15, 12)
    np.testing.assert_array_equal(drawn[1, 12:15, 6:9], kernels[1, :, :, 2, 4])
    np.testing.assert_array_equal(kernel_matrix(kernels[:, :1, :1])[0], kernels[0, 0, 0].T)
