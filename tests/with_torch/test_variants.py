"""Each family with official names against its port: small, with blocks that change the shape and one that does not.

Of the two stages of NAT the second has maps smaller than a window.
"""

import pytest

from ddf_jax.verify import format_table, verify

# Width for which every group has channels, and other options.
OPTIONS = {
    "rednet26": {"width": 32},
    "se_resnet50": {"width": 32},
    "eca_resnet50": {"width": 32},
    "resnext50_32x4d": {"width": 32},
    "res2net50_26w_4s": {"width": 64},
    "res2net50_14w_8s": {"width": 64},
    "fca_resnet50": {"width": 16},
    "odconv_resnet50": {"width": 32},
    "odconv_resnet50_4x": {"width": 32},
    "dcd_resnet50": {"width": 32},
    "axial_resnet_s": {"width": 16},
    "nat_mini": {"width": 32},
    "san10": {"width": 32, "stem_blocks": 1, "kernel_size": 3},
    "san10_patchwise": {"width": 32, "stem_blocks": 1, "kernel_size": 3},
}


@pytest.mark.parametrize("size", [(49, 33), (64, 64)])
@pytest.mark.parametrize("name", OPTIONS)
def test_every_number_is_the_ports(name, size):
    reports = verify(name, size=size, options={**OPTIONS[name], "blocks": (2, 1)})
    assert all(report.passed for report in reports), format_table(reports)
