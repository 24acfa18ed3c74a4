"""What papers print for the registered models, digit by digit: targets that our own counts are shown beside.

A paper's "FLOPs" are multiply-accumulates, in one of the two conventions of `ddf_jax.models.counting`. Where papers
differ, the row is that of the paper nearest to the model.
"""

from typing import NamedTuple


class Published(NamedTuple):
    """One row of a paper's table."""

    params_millions: float
    macs_billions: float
    imagenet_top1: float
    """Percent."""
    source: str


_DDF = "Zhou et al., Decoupled Dynamic Filter Networks, CVPR 2021"
_BINET = "Hu et al., Bi-volution, 2022"
_DCDC = "Yan et al., Dual Complementary Dynamic Convolution, 2022"

PUBLISHED = {
    "resnet18": Published(11.7, 1.8, 69.6, f"{_DDF}, Table 4"),
    "resnet26": Published(13.7, 2.4, 73.6, f"{_DCDC}, Table I"),
    "resnet38": Published(19.6, 3.2, 76.0, f"{_DCDC}, Table I"),
    "resnet50": Published(25.6, 4.1, 77.2, f"{_DDF}, Table 5"),
    "resnet101": Published(44.5, 7.8, 78.9, f"{_DDF}, Table 5"),
    "ddf_resnet18": Published(7.7, 0.4, 70.6, f"{_DDF}, Table 4"),
    "ddf_resnet38": Published(13.1, 1.9, 78.3, f"{_BINET}, Table 1"),
    "ddf_resnet50": Published(16.8, 2.298, 79.1, f"{_DDF}, Table 3c"),
    "ddf_resnet101": Published(28.1, 4.1, 80.2, f"{_DDF}, Table 5"),
}
