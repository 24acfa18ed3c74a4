"""Classical upsampling of depth against its formulas."""

import jax
import numpy as np
import pytest

from ddf_jax import functional

fill_holes = jax.jit(functional.fill_holes)
bicubic_upsample = jax.jit(functional.bicubic_upsample, static_argnames=("height", "width", "scale"))
joint_bilateral_upsample = jax.jit(functional.joint_bilateral_upsample, static_argnames=("scale", "radius"))
guided_upsample = jax.jit(functional.guided_upsample, static_argnames=("scale", "radius"))
space_to_depth = jax.jit(functional.space_to_depth, static_argnums=1)
depth_to_space = jax.jit(functional.depth_to_space, static_argnums=1)


def test_holes_are_filled_from_the_nearest_block_and_samples_stay():
    depth = np.zeros((2, 5, 7, 1), np.float32)
    depth[0, 0, 0], depth[0, 4, 6] = 2, 6
    filled = np.asarray(fill_holes(depth))
    assert (filled[0, 0, 0], filled[0, 4, 6], filled[0, 1, 1], filled[0, 4, 5]) == (2, 6, 2, 6)
    assert set(np.unique(filled[0])) <= {2, 4, 6}
    assert not filled[1].any()  # where nothing was measured at all, there is nothing to fill from
    whole = np.random.default_rng(0).uniform(1, 2, depth.shape).astype(np.float32)
    np.testing.assert_array_equal(fill_holes(whole), whole)


@pytest.mark.parametrize(("height", "width", "scale"), [(16, 24, 4), (13, 22, 4), (9, 7, 3), (20, 17, 8), (4, 5, 1)])
def test_bicubic_goes_through_every_sample_and_reproduces_a_plane(height: int, width: int, scale: int):
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    take = tuple(slice(scale // 2, None, scale) for _ in range(2))
    shape = (-(-height // scale), -(-width // scale))
    low = np.random.default_rng(0).uniform(1, 2, shape).astype(np.float32)
    up = np.asarray(bicubic_upsample(low[None, ..., None], height=height, width=width, scale=scale))
    assert up.shape == (1, height, width, 1)
    through = up[0, ..., 0][take]
    np.testing.assert_allclose(through, low[: through.shape[0], : through.shape[1]], rtol=1e-5)
    plane = 5 + 0.1 * (np.arange(shape[0])[:, None] * scale + 2.0 * np.arange(shape[1]) * scale).astype(np.float32)
    up = np.asarray(bicubic_upsample(plane[None, ..., None], height=height, width=width, scale=scale))[0, ..., 0]
    inner = (slice(2 * scale, height - 3 * scale), slice(2 * scale, width - 3 * scale))
    expected = 5 + 0.1 * (rows - scale // 2 + 2 * (columns - scale // 2))
    np.testing.assert_allclose(up[inner], expected[inner], rtol=1e-5)


def inputs(height: int, width: int, scale: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    low = rng.uniform(1, 5, (2, -(-height // scale), -(-width // scale), 1)).astype(np.float32)
    low[0, 1, 1] = low[1, 0] = 0
    return low, rng.random((2, height, width, 3), np.float32)


@pytest.mark.parametrize(("height", "width", "scale", "radius"), [(12, 16, 4, 1), (11, 14, 4, 2), (7, 9, 3, 1)])
def test_joint_bilateral_upsampling_is_its_formula(height: int, width: int, scale: int, radius: int):
    low, image = inputs(height, width, scale)
    options = {"sigma_space": 0.7, "sigma_colour": 0.3}
    found = np.asarray(joint_bilateral_upsample(low, image, scale=scale, radius=radius, **options))
    assert found.shape == (2, height, width, 1)
    rows, columns = low.shape[1:3]
    for b, y, x in [(0, 0, 0), (0, 5, 6), (1, height - 1, width - 1), (1, 6, 0)]:
        total = weight = 0.0
        for i in range(max(0, y // scale - radius), min(rows, y // scale + radius + 1)):
            for j in range(max(0, x // scale - radius), min(columns, x // scale + radius + 1)):
                if low[b, i, j, 0] == 0:
                    continue
                at = (i * scale + scale // 2, j * scale + scale // 2)
                colour = image[b, min(at[0], height - 1), min(at[1], width - 1)]
                far = ((at[0] - y) ** 2 + (at[1] - x) ** 2) / scale**2
                unlike = ((colour - image[b, y, x]) ** 2).sum()
                w = np.exp(-far / (2 * 0.7**2) - unlike / (2 * 0.3**2))
                total, weight = total + w * low[b, i, j, 0], weight + w
        assert float(found[b, y, x, 0]) == pytest.approx(total / weight, rel=1e-4)


def test_the_guided_filter_is_a_local_linear_fit_to_the_image():
    low, image = inputs(11, 13, 4)
    radius, epsilon = 2, 1e-2
    found = np.asarray(guided_upsample(low, image, scale=4, radius=radius, epsilon=epsilon))
    x = np.asarray(bicubic_upsample(low, height=11, width=13, scale=4), np.float64)[..., 0]

    def window(values: np.ndarray, row: int, column: int) -> np.ndarray:
        cut = values[max(0, row - radius) : row + radius + 1, max(0, column - radius) : column + radius + 1]
        return cut.reshape(-1, *values.shape[2:])

    a, b = np.zeros((11, 13, 3)), np.zeros((11, 13))
    for row, column in np.ndindex(11, 13):
        colours, depths = window(image[0].astype(np.float64), row, column), window(x[0], row, column)
        centred = colours - colours.mean(0)
        sigma = centred.T @ centred / len(colours) + epsilon * np.eye(3)
        a[row, column] = np.linalg.solve(sigma, centred.T @ (depths - depths.mean()) / len(colours))
        b[row, column] = depths.mean() - a[row, column] @ colours.mean(0)
    for row, column in [(0, 0), (5, 6), (10, 12)]:
        expected = window(a, row, column).mean(0) @ image[0, row, column] + window(b, row, column).mean()
        assert float(found[0, row, column, 0]) == pytest.approx(expected, rel=1e-3)


def test_pixels_fold_into_channels_and_out_again():
    x = np.arange(2 * 6 * 9 * 2, dtype=np.float32).reshape(2, 6, 9, 2)
    folded = np.asarray(space_to_depth(x, 3))
    assert folded.shape == (2, 2, 3, 18)
    np.testing.assert_array_equal(folded[1, 1, 2, 2 * (3 * 2 + 1) : 2 * (3 * 2 + 1) + 2], x[1, 5, 7])
    np.testing.assert_array_equal(depth_to_space(folded, 3), x)
