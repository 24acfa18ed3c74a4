"""The port's networks: pinned counts, official names, every parameter used."""

import pytest
import torch

from ddf_jax import torch_port

# name: state-dict entries, parameters
PINNED = {
    "resnet18": (122, 11_689_512),
    "resnet26": (176, 13_696_552),
    "resnet34": (218, 21_797_672),
    "resnet38": (248, 19_626_792),
    "resnet50": (320, 25_557_032),
    "resnet101": (626, 44_549_160),
    "resnet152": (932, 60_192_808),
    "ddf_resnet18": (314, 7_697_816),
    "ddf_resnet26": (224, 9_812_896),
    "ddf_resnet38": (320, 13_328_322),
    "ddf_resnet50": (416, 16_843_748),
    "ddf_resnet101": (824, 28_146_912),
    "ddf_resnet152": (1232, 37_462_900),
    "ddf_add_resnet50": (416, 16_843_748),
    "ddf_add_resnet101": (824, 28_146_912),
    "ddf_add_resnet152": (1232, 37_462_900),
    "rednet26": (251, 9_233_166),
    "rednet38": (351, 12_386_986),
    "rednet50": (451, 15_540_806),
    "rednet101": (876, 25_652_950),
    "rednet152": (1301, 33_984_582),
    "se_resnet50": (384, 28_088_024),
    "se_resnet101": (758, 49_326_872),
    "eca_resnet50": (336, 25_557_118),
    "eca_resnet101": (659, 44_549_331),
    "resnext50_32x4d": (320, 25_028_904),
    "resnext101_32x4d": (626, 44_177_704),
    "res2net50_26w_4s": (512, 25_699_120),
    "res2net101_26w_4s": (1022, 45_206_688),
    "res2net50_14w_8s": (896, 25_059_816),
    "fca_resnet50": (368, 28_071_976),
    "fca_resnet101": (725, 49_292_328),
    "odconv_resnet50": (832, 28_635_112),
    "odconv_resnet50_4x": (928, 90_670_888),
    "dcd_resnet50": (1104, 29_835_056),
    "axial_resnet_s": (800, 11_586_216),
    "nat_mini": (253, 19_984_174),
    "nat_tiny": (409, 27_901_582),
    "san10": (368, 10_531_848),
    "san15": (533, 14_065_436),
    "san19": (665, 17_596_156),
    "san10_patchwise": (348, 11_841_124),
    "san15_patchwise": (503, 16_181_310),
    "san19_patchwise": (627, 20_518_470),
}


def test_every_network_is_pinned():
    assert sorted(torch_port.list_models()) == sorted(PINNED)


@pytest.mark.parametrize("name", PINNED)
def test_entries_and_parameters_are_those_published(name):
    with torch.device("meta"):
        model = torch_port.create(name)
    assert (len(model.state_dict()), sum(value.numel() for value in model.parameters())) == PINNED[name]


def test_names_are_those_of_timm_and_of_the_official_repository():
    with torch.device("meta"):
        names = set(torch_port.create("ddf_resnet50").state_dict())
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    ddf = ("spatial_branch.0.weight", "spatial_branch.0.bias", "channel_branch.4.std")
    ddf += tuple(f"channel_branch.{layer}.{kind}" for layer in (1, 3) for kind in ("weight", "bias"))
    expected = {"conv1.weight", "fc.weight", "fc.bias", *(f"bn1.{kind}" for kind in norm)}
    for stage, depth in enumerate((3, 4, 6, 3), 1):
        expected |= {f"layer{stage}.0.downsample.{kind}" for kind in ("0.weight", *(f"1.{kind}" for kind in norm))}
        for block in range(depth):
            kinds = ["conv1.weight", "conv3.weight", *(f"conv2.{kind}" for kind in ddf)]
            kinds += [f"bn{index}.{kind}" for index in (1, 2, 3) for kind in norm]
            expected |= {f"layer{stage}.{block}.{kind}" for kind in kinds}
    assert names == expected


@pytest.mark.parametrize("name", ["resnet18", "resnet26", "ddf_resnet18", "ddf_resnet26"])
@pytest.mark.parametrize("stem", ["imagenet", "small"])
def test_every_parameter_gets_a_gradient(name, stem):
    model = torch_port.create(name, num_classes=7, stem=stem)
    logits = model(torch.randn(2, 3, 33, 19))
    logits.square().mean().backward()
    assert logits.shape == (2, 7)
    assert [
        key for key, value in model.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0
    ] == []


def test_runs_in_half_precision():
    model = torch_port.create("ddf_resnet26", num_classes=7).bfloat16()
    assert model(torch.randn(2, 3, 33, 19).bfloat16()).dtype == torch.bfloat16


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"No port is named 'ddf_resnet51'\. Did you mean 'ddf_resnet"):
        torch_port.create("ddf_resnet51")
