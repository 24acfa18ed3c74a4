"""The parts that the detector's benchmark times compute the same in ddf_jax and in the port."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments.benchmarks import detection_jax, detection_port
from experiments.benchmarks.detection_inputs import make_inputs, make_weights, part_shapes, write_arrays
from experiments.benchmarks.torch_parts import torch_part

CHEAP = ("nms_1000", "roi_align_mask", "paste_masks")
OTHERS = ("backbone", "pyramid", "rpn_head", "proposals", "nms_4000", "roi_align_box", "box_head", "detections")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arrays")
    write_arrays(folder / "inputs.npz", make_inputs((160, 224), (64, 96), 60))
    return folder


@pytest.fixture(scope="module")
def folder_with_weights(folder: Path) -> Path:
    write_arrays(folder / "weights.npz", make_weights())
    return folder


def arrays_of(result: Any) -> list[np.ndarray]:
    """Tensors of the port in our order of axes; boxes with scores apart."""
    if isinstance(result, torch.Tensor):
        array = result.numpy()
        return [np.moveaxis(array, 1, -1) if array.ndim == 4 else array]
    if isinstance(result, list | tuple):
        return [array for part in result if part is not None for array in arrays_of(part)]
    return [np.asarray(result)]


def compare(name: str, folder: Path) -> None:
    ours, port = (module.make_parts(folder)[name]() for module in (detection_jax, detection_port))
    found, expected = arrays_of(ours.run()), arrays_of(port.run())
    if name.startswith(("nms", "detections", "proposals")):  # padded; the last is how many there are
        *found, number = found
        found = [array.reshape(-1, *array.shape[number.ndim + 1 :])[: int(number.max())] for array in found]
    if name == "proposals":  # the port has boxes and scores in one
        expected = np.split(expected[0], [4], axis=1)
    assert found
    assert [array.size for array in found] == [array.size for array in expected]
    for array, other in zip(found, expected, strict=True):
        scale = max(1.0, float(np.abs(other).max()))
        np.testing.assert_allclose(array.reshape(other.shape), other, rtol=0, atol=2e-4 * scale, err_msg=name)
    assert ours.peak_bytes() > 0
    assert port.peak_bytes() > 0


@pytest.mark.parametrize("name", CHEAP)
def test_parts_without_weights_are_the_ports(name, folder):
    compare(name, folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_parts_with_weights_are_the_ports(name, folder_with_weights):
    compare(name, folder_with_weights)


@pytest.mark.slow
def test_both_have_every_part_and_train(folder_with_weights):
    parts = [module.make_parts(folder_with_weights) for module in (detection_jax, detection_port)]
    shapes = part_shapes(dict(np.load(folder_with_weights / "inputs.npz")))
    for of_one in parts:
        assert of_one.keys() == shapes.keys()
        of_one["training_step"]().run()


def test_a_part_in_pytorch_computes_no_derivatives_and_counts_its_arguments():
    weight = torch.ones(1000, requires_grad=True)
    part = torch_part(lambda: weight * 2, weight, [torch.ones(500)])
    result = part.run()
    assert isinstance(result, torch.Tensor)
    assert not result.requires_grad
    assert part.peak_bytes() >= 4 * (1000 + 500 + 1000)
