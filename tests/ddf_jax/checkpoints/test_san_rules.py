"""Rules of SAN's checkpoints: another order of channels, and names that are other tensors' in a ResNet."""

import numpy as np

from ddf_jax.checkpoints.rules import translate, translate_name


def test_a_sans_channels_of_a_group_are_together_in_ours_and_so_are_the_keys_of_a_tap():
    groups, related, taps = 4, 8, 9
    channels = 8 * groups
    official = {
        "conv_in.weight": np.zeros((1, 1, 1, 1)),
        "conv1.weight": np.zeros((1, 1, 1, 1)),
        "bn1.weight": np.zeros(1),
        "layer1.0.bn2.weight": np.arange(channels),
        "layer1.0.conv.weight": np.arange(2 * channels).reshape(2, channels, 1, 1),
        "layer1.0.sam.conv1.weight": np.zeros((related, 16 * related, 1, 1)),
        "layer1.0.sam.conv3.weight": np.arange(2 * channels).reshape(channels, 2, 1, 1),
        "layer1.0.sam.conv_w.0.weight": np.arange(related + related * taps),
        "layer1.0.sam.conv_w.2.weight": np.arange(2 * (related + related * taps)).reshape(2, -1, 1, 1),
    }
    own = translate(official, "official")
    assert {"transitions.0.kernel", "norms.0.scale"} <= own.keys()
    member, group = 5, 3
    theirs, ours = member * groups + group, group * 8 + member
    assert own["stages.0.0.norm2.scale"][ours] == theirs
    assert own["stages.0.0.expand.kernel"][ours, 1] == official["layer1.0.conv.weight"][1, theirs, 0, 0]
    assert own["stages.0.0.spatial.value.kernel"][1, ours] == official["layer1.0.sam.conv3.weight"][theirs, 1, 0, 0]
    channel, tap = 2, 7
    theirs, ours = related + channel * taps + tap, related + tap * related + channel
    relation = "stages.0.0.spatial.spatial_branch"
    assert own[f"{relation}.norm1.scale"][ours] == theirs
    assert own[f"{relation}.norm1.scale"][channel] == channel
    assert own[f"{relation}.reduce.kernel"][ours, 1] == official["layer1.0.sam.conv_w.2.weight"][1, theirs, 0, 0]
    pairwise = {**official, "layer1.0.sam.conv_w.0.weight": np.arange(related + 2)}
    assert translate(pairwise, "official")[f"{relation}.norm1.scale"].tolist() == list(range(related + 2))


def test_the_same_name_is_of_another_tensor_in_a_san():
    names = {"bn1.weight", "conv1.weight"}
    assert {translate_name(name, "official", names) for name in names} == {"stem.norm.scale", "stem.conv.kernel"}
    names.add("conv_in.weight")
    translated = {translate_name(name, "official", names) for name in names}
    assert translated == {"norms.0.scale", "transitions.0.kernel", "stem.conv_in.kernel"}
