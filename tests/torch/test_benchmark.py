"""The benchmark's PyTorch peer computes the same, and its memory is measured."""

import math

import numpy as np
import torch

from experiments.benchmarks import torch_unfold
from pallas_kernels.ops.arg_specs import ArgSpec
from tests.pallas_kernels import oracle, suite

ARG = ArgSpec("small", (2, 6, 5, 4))


def test_the_peer_computes_the_operator_and_its_gradients():
    run, _ = torch_unfold.program(ARG, backward=True)
    y, dx, dspatial, dchannel = (tensor.detach().numpy() for tensor in run())
    expected = oracle.evaluate(ARG, *ARG.arrays(), ARG.cotangent())
    suite.assert_close(y.transpose(0, 2, 3, 1), expected.y, 1e-5, "y")
    suite.assert_close(dx.transpose(0, 2, 3, 1), expected.x, 1e-5, "dx")
    suite.assert_close(dspatial.transpose(0, 2, 3, 1)[:, :, :, None, None], expected.spatial, 1e-5, "dspatial")
    suite.assert_close(dchannel.transpose(0, 2, 1)[:, None], expected.channel, 1e-5, "dchannel")


def test_the_peak_holds_what_is_alive_at_once_and_forgets_what_was_released():
    megabyte = np.zeros(2**20, np.uint8)

    def run():
        for _ in range(3):
            first = torch.from_numpy(megabyte).clone()
            second = first.clone()
            del first, second

    assert 2 * 2**20 <= torch_unfold.allocated_bytes(run) < 2.1 * 2**20


def test_the_peak_includes_every_tap_of_every_channel():
    _, peak_bytes = torch_unfold.program(ARG, backward=False)
    assert peak_bytes > 4 * ARG.spec.taps * math.prod(ARG.x)
