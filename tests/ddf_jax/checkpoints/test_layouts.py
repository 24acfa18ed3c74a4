"""Layouts of tensors, and names that no rule fits."""

import jax.numpy as jnp
import numpy as np
import pytest

from ddf_jax.checkpoints.rules import translate
from ddf_jax.checkpoints.tensor_files import CheckpointError


def test_layouts_follow_the_meaning_of_the_axes():
    channels, taps = 3, 9
    official = {
        "conv1.weight": np.arange(5 * 4 * 7 * 7).reshape(5, 4, 7, 7),
        "layer2.0.conv1.weight": np.arange(6 * 5).reshape(6, 5, 1, 1),
        "fc.weight": np.arange(2 * 6).reshape(2, 6),
        "layer1.0.conv2.channel_branch.1.weight": np.arange(2 * channels).reshape(2, channels, 1, 1),
        "layer1.0.conv2.channel_branch.3.weight": np.arange(channels * taps * 2).reshape(channels * taps, 2, 1, 1),
        "layer1.0.conv2.channel_branch.3.bias": np.arange(channels * taps),
        "layer1.0.conv2.channel_branch.4.std": np.arange(channels * taps),
    }
    own = translate(official, "official")
    assert own["stem.conv.kernel"][1, 2, 3, 4] == official["conv1.weight"][4, 3, 1, 2]
    assert own["stages.1.0.conv1.kernel"][3, 4] == official["layer2.0.conv1.weight"][4, 3, 0, 0]
    assert own["head.kernel"][3, 1] == official["fc.weight"][1, 3]
    branch = "stages.0.0.conv2.channel_branch"
    channel, tap = 2, 5
    theirs, ours = channel * taps + tap, tap * channels + channel
    assert (
        own[f"{branch}.excite.kernel"][1, ours] == official["layer1.0.conv2.channel_branch.3.weight"][theirs, 1, 0, 0]
    )
    assert own[f"{branch}.excite.bias"][ours] == theirs
    assert own[f"{branch}.norm.scale"][tap, channel] == theirs


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"conv1.weight": np.zeros((1, 1, 7, 7)), "conv1.waight": 0, "bn9.bias": 0}, "know: conv1.waight, bn9.bias"),
        ({"layer01.0.bn1.bias": np.zeros(1)}, "know: layer01.0.bn1.bias"),
        ({"conv1.weight": np.zeros(3)}, r"conv1.weight \[3\] does not have the shape of its kind"),
        ({"layer1.0.conv2.channel_branch.4.std": np.zeros(9)}, "without 'layer1.0.conv2.channel_branch.1.weight'"),
    ],
)
def test_what_no_rule_fits_is_named(tensors, message):
    with pytest.raises(CheckpointError, match=message):
        translate(tensors, "official")


def test_values_are_not_cast():
    weight = np.ones((2, 3, 1, 1), jnp.bfloat16)
    assert translate({"layer1.0.conv1.weight": weight}, "official")["stages.0.0.conv1.kernel"].dtype == jnp.bfloat16
