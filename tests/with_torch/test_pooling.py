"""Pooling against torch's."""

import jax
import numpy as np
import torch

from ddf_jax.functional import max_pool


def test_max_pool_chooses_as_torch_among_equal_values():
    rng = np.random.default_rng(0)
    for height, width in ((8, 8), (7, 10), (1, 3)):
        x = rng.integers(-1, 3, (2, height, width, 3)).astype(np.float32)
        theirs = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
        expected = torch.nn.functional.max_pool2d(theirs, 3, 2, padding=1)
        dy = rng.integers(-9, 9, tuple(expected.permute(0, 2, 3, 1).shape)).astype(np.float32)
        expected.backward(torch.tensor(dy.transpose(0, 3, 1, 2)))
        y, vjp = jax.vjp(max_pool, x)
        np.testing.assert_array_equal(y, expected.detach().permute(0, 2, 3, 1))
        assert theirs.grad is not None
        np.testing.assert_array_equal(vjp(dy)[0], theirs.grad.permute(0, 2, 3, 1))
