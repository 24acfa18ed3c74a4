"""Rules of SAN's checkpoints: another order of channels, and names that are other tensors' in a ResNet."""

import numpy as np
import pytest

from ddf_jax.checkpoints.rules import translate, translate_name
from ddf_jax.checkpoints.tensor_files import CheckpointError


def block(groups: int, shared: int, related: int, taps: int, *, patchwise: bool) -> dict[str, np.ndarray]:
    """Tensors of a network of one block, in official names: each value is its own place."""
    channels = groups * shared
    inputs, hidden = (related * (1 + taps), groups) if patchwise else (related + 2, related)
    shapes = {
        "conv_in.weight": (1, 1, 1, 1),
        "conv1.weight": (1, 1, 1, 1),
        "bn1.weight": (1,),
        "layer1.0.bn2.weight": (channels,),
        "layer1.0.conv.weight": (2, channels, 1, 1),
        "layer1.0.sam.conv1.weight": (related, 40, 1, 1),
        "layer1.0.sam.conv3.weight": (channels, 40, 1, 1),
        "layer1.0.sam.conv_w.0.weight": (inputs,),
        "layer1.0.sam.conv_w.2.weight": (hidden, inputs, 1, 1),
        "layer1.0.sam.conv_w.5.weight": (groups * taps if patchwise else groups, hidden, 1, 1),
    }
    return {name: np.arange(np.prod(shape)).reshape(shape) for name, shape in shapes.items()}


# The paper's ratios, C/16 channels of a relation and 8 that share a filter, and others.
@pytest.mark.parametrize(("shared", "related"), [(8, 2), (3, 5)])
@pytest.mark.parametrize("patchwise", [False, True])
def test_a_sans_channels_of_a_group_are_together_in_ours_and_so_are_the_keys_of_a_tap(shared, related, patchwise):
    groups, taps = 4, 9
    official = block(groups, shared, related, taps, patchwise=patchwise)
    own = translate(official, "official")
    assert {"transitions.0.kernel", "norms.0.scale"} <= own.keys()
    member, group = shared - 1, 3
    theirs, ours = member * groups + group, group * shared + member
    assert own["stages.0.0.norm2.scale"][ours] == theirs
    assert own["stages.0.0.expand.kernel"][ours, 1] == official["layer1.0.conv.weight"][1, theirs, 0, 0]
    assert own["stages.0.0.spatial.value.kernel"][1, ours] == official["layer1.0.sam.conv3.weight"][theirs, 1, 0, 0]
    channel, tap = 1, 7
    place = related + tap * related + channel, related + channel * taps + tap
    ours, theirs = place if patchwise else (related + 1, related + 1)
    relation = "stages.0.0.spatial.spatial_branch"
    assert own[f"{relation}.norm1.scale"][ours] == theirs
    assert own[f"{relation}.norm1.scale"][channel] == channel
    assert own[f"{relation}.reduce.kernel"][ours, 1] == official["layer1.0.sam.conv_w.2.weight"][1, theirs, 0, 0]
    back = translate(own, "own")
    assert back.keys() == official.keys()
    for name, tensor in official.items():
        np.testing.assert_array_equal(back[name], tensor)


def test_a_block_whose_groups_do_not_divide_its_channels_is_refused():
    tensors = block(4, 8, 2, 9, patchwise=False)
    tensors["layer1.0.sam.conv3.weight"] = np.zeros((30, 40, 1, 1))
    with pytest.raises(CheckpointError, match=r"conv3\.weight \[30, 40, 1, 1\] does not have the shape"):
        translate(tensors, "official")


def test_the_same_name_is_of_another_tensor_in_a_san():
    names = {"bn1.weight", "conv1.weight"}
    assert {translate_name(name, "official", names) for name in names} == {"stem.norm.scale", "stem.conv.kernel"}
    names.add("conv_in.weight")
    translated = {translate_name(name, "official", names) for name in names}
    assert translated == {"norms.0.scale", "transitions.0.kernel", "stem.conv_in.kernel"}
