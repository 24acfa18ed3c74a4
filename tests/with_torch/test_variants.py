"""Each family with official names against its port: small, with blocks that change the shape and one that does not."""

import pytest

from ddf_jax.verify import format_table, verify

# Width for which every group has channels.
WIDTHS = {
    "rednet26": 32,
    "se_resnet50": 32,
    "eca_resnet50": 32,
    "resnext50_32x4d": 32,
    "res2net50_26w_4s": 64,
    "res2net50_14w_8s": 64,
    "fca_resnet50": 16,
    "odconv_resnet50": 32,
    "odconv_resnet50_4x": 32,
    "dcd_resnet50": 32,
    "axial_resnet_s": 16,
}


@pytest.mark.parametrize("size", [(49, 33), (64, 64)])
@pytest.mark.parametrize("name", WIDTHS)
def test_every_number_is_the_ports(name, size):
    reports = verify(name, size=size, options={"width": WIDTHS[name], "blocks": (2, 1)})
    assert all(report.passed for report in reports), format_table(reports)
