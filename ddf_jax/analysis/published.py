"""The papers' printed parameters and multiply-accumulates, digit by digit, for comparison with our counts.

A paper's "FLOPs" are multiply-accumulates in one of the conventions of `ddf_jax.analysis.counting`, rarely stated.
Rows without a model are of networks that this project does not implement.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from ddf_jax.layers import CARAFE, Bilinear, DDFUp, Deconvolution, Nearest, PixelShuffle
from ddf_jax.models.binet import DC, DC_CA
from ddf_jax.models.slots import Upsampler, partial_layer


class PaperRow(NamedTuple):
    """One row of a paper's table, its numbers as printed ("" where there is none)."""

    label: str
    params_millions: str
    macs_billions: str
    imagenet_top1: str
    model: str | None = None
    options: Mapping[str, Any] = MappingProxyType({})
    why: str = ""
    """The reason of a difference, where there is one."""
    conventions: tuple[str, ...] = ("core", "mmcv")
    """Of multiply-accumulates, those that its FLOPs may be in."""


_SIGMA = (
    "the paper does not state its convention; mmcv's count and the dynamic filters, without global pooling and the "
    "classifier, are 2.298, 2.299 and 2.300"
)
_RES2NET = "the paper names 14w-8s; the number is that of 26w-4s"
_BINET_38 = "unknown; the same layout gives the published numbers for BiNet-50 and BiNet-101"
_CONTEXT = (
    "the paper's own formula for its cost gives 0.03 G (5×5) and 0.08 G (7×7) more than 3×3 does, not 0.2 and 0.3"
)
_DDF_38 = "not in DDF's own paper; here σ = 0.2 as in DDF-ResNet-50"
_BAM_101 = "49.3 is SE-ResNet-101's, one row above; DDF's Table 5 prints 44.9"
_ADAPTIVE = "its paper (Zamora Esquivel et al., ICCVW 2019) is not at hand but its abstract; no layout has 11.1 M"
_DYNET = "unknown; 16.5 M are the dynamic kernels alone"
_AXIAL = (
    "the paper leaves the widths of its stem open; its public code, with a convolution as stem, has 11.59 M and 2.84 G"
)
_MDDC = "the official code has 29.84 M, and 3.86 G without the dynamic part, with the stride in the first convolutions"
_LR = (
    "there is no code; bottlenecks of 100 to 800 channels fit LR-Net-50's parameters, and no width fits all three "
    "depths; the paper's plain ResNets, too, have about 0.2 G more than ours"
)
_AA_101 = "the attention of the largest maps is pooled here; the paper does not state its pooling"


def _dc(kernel_size: int, dilation: int = 1) -> dict[str, Any]:
    return {"bivolution": DC._replace(context_kernel_size=kernel_size, context_dilation=dilation)}


def _dc_ca(kernel_size: int | None, dilation: int = 1) -> dict[str, Any]:
    """The dc-ca rows have no static branch."""
    options = {"static_kernel_size": None, "context_kernel_size": kernel_size, "context_dilation": dilation}
    return {"bivolution": DC_CA._replace(**options)}


def _san(label: str, params_millions: str, macs_billions: str, imagenet_top1: str, model: str) -> PaperRow:
    """A row whose FLOPs are the counter's of SAN's repository."""
    return PaperRow(label, params_millions, macs_billions, imagenet_top1, model, conventions=("core", "mmcv", "san"))


TABLES: dict[str, tuple[PaperRow, ...]] = {
    "DDF, Table 3c": (
        PaperRow("σ = 0.2", "16.8", "2.298", "79.1", "ddf_resnet50", why=_SIGMA),
        PaperRow("σ = 0.3", "18.1", "2.299", "79.0", "ddf_resnet50", {"squeeze_ratio": 0.3}, _SIGMA),
        PaperRow("σ = 0.4", "19.4", "2.300", "79.2", "ddf_resnet50", {"squeeze_ratio": 0.4}, _SIGMA),
    ),
    "DDF, Table 4": (
        PaperRow("R18 base", "11.7", "1.8", "69.6", "resnet18"),
        PaperRow("R18 Adaptive", "11.1", "", "70.2", why=_ADAPTIVE),
        PaperRow("R18 DyNet", "16.6", "0.6", "69.0", "dynet18", why=_DYNET),
        PaperRow("R18 DDF", "7.7", "0.4", "70.6", "ddf_resnet18"),
        PaperRow("R50 base", "25.6", "4.1", "77.2", "resnet50"),
        PaperRow("R50 DyNet", "", "1.1", "76.3", "dynet50"),
        PaperRow("R50 CondConv", "104.8", "4.2", "78.6", "condconv_resnet50"),
        PaperRow("R50 DwCondConv", "14.5", "2.3", "78.3", "dwcondconv_resnet50"),
        PaperRow("R50 DwWeightNet", "14.4", "2.3", "78.0", "dwweightnet_resnet50"),
        PaperRow("R50 DDF", "16.8", "2.3", "79.1", "ddf_resnet50"),
    ),
    "DDF, Table 5": (
        PaperRow("ResNet50 (base)", "25.6", "4.1", "77.2", "resnet50"),
        PaperRow("SE-ResNet50", "28.1", "4.1", "77.8", "se_resnet50"),
        PaperRow("BAM-ResNet50", "25.9", "4.2", "76.0", "bam_resnet50"),
        PaperRow("CBAM-ResNet50", "28.1", "4.1", "77.3", "cbam_resnet50"),
        PaperRow("AA-ResNet50", "25.8", "4.2", "77.7", "aa_resnet50"),
        PaperRow("ResNeXt50 (32×4d)", "25.0", "4.3", "78.2", "resnext50_32x4d"),
        PaperRow("Res2Net50 (14w-8s)", "25.7", "4.2", "78.0", "res2net50_14w_8s", why=_RES2NET),
        PaperRow("DDF-ResNet50", "16.8", "2.3", "79.1", "ddf_resnet50"),
        PaperRow("ResNet101 (base)", "44.5", "7.8", "78.9", "resnet101"),
        PaperRow("SE-ResNet101", "49.3", "7.8", "79.3", "se_resnet101"),
        PaperRow("BAM-ResNet101", "44.9", "7.9", "77.6", "bam_resnet101"),
        PaperRow("CBAM-ResNet101", "49.3", "7.8", "78.5", "cbam_resnet101"),
        PaperRow("AA-ResNet101", "45.4", "8.1", "78.7", "aa_resnet101", why=_AA_101),
        PaperRow("ResNeXt101 (32×4d)", "44.2", "8.0", "79.5", "resnext101_32x4d"),
        PaperRow("Res2Net101 (26w-4s)", "45.2", "8.1", "79.2", "res2net101_26w_4s"),
        PaperRow("DDF-ResNet101", "28.1", "4.1", "80.2", "ddf_resnet101"),
    ),
    "SAN repository, README": (
        _san("SAN10-pair.", "10.5", "2.2", "74.9", "san10"),
        _san("SAN10-patch.", "11.8", "1.9", "77.1", "san10_patchwise"),
        _san("SAN15-pair.", "14.1", "3.0", "76.6", "san15"),
        _san("SAN15-patch.", "16.2", "2.6", "78.0", "san15_patchwise"),
        _san("SAN19-pair.", "17.6", "3.8", "76.9", "san19"),
        _san("SAN19-patch.", "20.5", "3.3", "78.2", "san19_patchwise"),
    ),
    "Bi-volution, Table 1": (
        PaperRow("ResNet-38", "19.6", "3.2", "76.0", "resnet38"),
        PaperRow("Stand-Alone ResNet-38", "14.1", "3.0", "76.9", "sasa_resnet38"),
        _san("SAN15", "14.1", "3.0", "77.1", "san15"),
        PaperRow("RedNet-38", "12.4", "2.2", "77.3", "rednet38"),
        PaperRow("BiNet-38 (dc)", "13.2", "2.2", "78.2", "binet38", why=_BINET_38),
        PaperRow("DDF-ResNet-38", "13.1", "1.9", "78.3", "ddf_resnet38", why=_DDF_38),
        PaperRow("BiNet-38 (dc-ca)", "14.8", "2.1", "78.7", "binet38_dc_ca", why=_BINET_38),
        PaperRow("ResNet-50", "25.6", "4.1", "76.8", "resnet50"),
        PaperRow("ResNeXt-50 (32×4d)", "25.0", "4.3", "77.8", "resnext50_32x4d"),
        PaperRow("SE-ResNet-50", "28.1", "4.1", "77.6", "se_resnet50"),
        PaperRow("Res2Net-50 (14w-8s)", "25.7", "4.2", "78.0", "res2net50_14w_8s", why=_RES2NET),
        PaperRow("LR-Net-50", "23.3", "4.3", "77.3", "lrnet50", why=_LR),
        PaperRow("AA-ResNet-50", "25.8", "4.2", "77.7", "aa_resnet50"),
        PaperRow("Stand-Alone ResNet-50", "18.0", "3.6", "77.6", "sasa_resnet50"),
        _san("SAN19", "17.6", "3.8", "77.4", "san19"),
        PaperRow("ECA-ResNet-50", "25.6", "4.1", "77.5", "eca_resnet50"),
        PaperRow("Axial ResNet-S", "12.5", "3.3", "78.1", "axial_resnet_s", {"stem": "axial"}, _AXIAL),
        PaperRow("Fca-ResNet-50", "28.1", "4.1", "78.5", "fca_resnet50"),
        PaperRow("RedNet-50", "15.5", "2.7", "78.1", "rednet50"),
        PaperRow("BiNet-50 (dc)", "17.6", "2.8", "78.8", "binet50"),
        PaperRow("DDF-ResNet-50", "16.8", "2.3", "79.1", "ddf_resnet50"),
        PaperRow("BiNet-50 (dc-ca)", "19.3", "2.7", "79.6", "binet50_dc_ca", why="19.23 rounds to 19.2"),
        PaperRow("ResNet-101", "44.6", "7.9", "78.5", "resnet101"),
        PaperRow("ResNeXt-101 (32×4d)", "44.2", "8.0", "78.8", "resnext101_32x4d"),
        PaperRow("SENet ResNet-101", "49.3", "7.9", "77.6", "se_resnet101"),
        PaperRow("BAM-ResNet-101", "49.3", "7.8", "78.3", "bam_resnet101", why=_BAM_101),
        PaperRow("CBAM-ResNet-101", "49.3", "7.8", "78.5", "cbam_resnet101"),
        PaperRow("LR-Net-101", "42.0", "8.0", "78.5", "lrnet101", why=_LR),
        PaperRow("AA-ResNet-101", "45.4", "8.1", "78.7", "aa_resnet101", why=_AA_101),
        PaperRow("Res2Net-101 (26w-4s)", "45.2", "8.1", "79.2", "res2net101_26w_4s"),
        PaperRow("ECANet ResNet-101", "44.6", "7.9", "78.7", "eca_resnet101"),
        PaperRow("FcaNet ResNet-101", "49.3", "7.9", "79.6", "fca_resnet101"),
        PaperRow("RedNet-101", "25.6", "4.7", "78.8", "rednet101"),
        PaperRow("BiNet-101 (dc)", "29.5", "4.9", "79.7", "binet101"),
        PaperRow("DDF-ResNet-101", "28.1", "4.1", "80.2", "ddf_resnet101"),
        PaperRow("BiNet-101 (dc-ca)", "33.0", "4.7", "80.7", "binet101_dc_ca"),
    ),
    "Bi-volution, Table 4": (
        PaperRow("dc 1×1", "15.5", "2.7", "78.1", "rednet50"),
        PaperRow("dc 3×3", "17.5", "2.8", "78.5", "binet50", _dc(3)),
        PaperRow("dc 3×3, dilation 2", "17.5", "2.8", "78.2", "binet50", _dc(3, 2)),
        PaperRow("dc 5×5", "17.6", "2.8", "78.6", "binet50", _dc(5)),
        PaperRow("dc 7×7", "17.7", "2.9", "78.6", "binet50", _dc(7)),
        PaperRow("dc-ca 1×1", "16.8", "2.3", "79.1", "binet50_dc_ca", _dc_ca(None)),
        PaperRow("dc-ca 3×3", "18.1", "2.3", "79.3", "binet50_dc_ca", _dc_ca(3)),
        PaperRow("dc-ca 3×3, dilation 2", "18.1", "2.3", "79.3", "binet50_dc_ca", _dc_ca(3, 2)),
        PaperRow("dc-ca 5×5", "18.2", "2.5", "79.4", "binet50_dc_ca", _dc_ca(5), _CONTEXT),
        PaperRow("dc-ca 7×7", "18.2", "2.6", "79.4", "binet50_dc_ca", _dc_ca(7), _CONTEXT),
    ),
    "DCDC, Table I": (
        PaperRow("ResNet-26", "13.7", "2.4", "73.6", "resnet26"),
        PaperRow("LR-Net-26", "14.7", "2.6", "75.7", "lrnet26", why=_LR),
        PaperRow("SA-ResNet-26", "10.3", "2.4", "74.8", "sasa_resnet26"),
        _san("SAN-10", "10.5", "2.2", "75.5", "san10"),
        PaperRow("RedNet-26", "9.23", "1.67", "75.9", "rednet26"),
        PaperRow("DCDC-ResNet-26", "9.36", "1.71", "77.4", "dcdc_resnet26"),
        PaperRow("ResNet-38", "19.6", "3.2", "76.0", "resnet38"),
        PaperRow("SA-ResNet-38", "14.1", "3.0", "76.9", "sasa_resnet38"),
        _san("SAN-15", "14.1", "3.0", "77.1", "san15"),
        PaperRow("RedNet-38", "12.4", "2.15", "77.6", "rednet38"),
        PaperRow("DCDC-ResNet-38", "12.58", "2.2", "78.5", "dcdc_resnet38"),
        PaperRow("ResNet-50", "25.6", "4.1", "77.2", "resnet50"),
        PaperRow("LR-Net-50", "23.3", "4.3", "77.3", "lrnet50", why=_LR),
        PaperRow("CBAM-ResNet-50", "28.1", "4.1", "77.3", "cbam_resnet50"),
        PaperRow("AA-ResNet-50", "25.8", "4.2", "77.7", "aa_resnet50"),
        PaperRow("SA-ResNet-50", "18.0", "3.6", "77.6", "sasa_resnet50"),
        _san("SAN-19", "17.6", "3.8", "77.4", "san19"),
        PaperRow("SENet-50", "28.1", "4.1", "77.8", "se_resnet50"),
        PaperRow("Axial ResNet-S", "12.5", "3.3", "78.1", "axial_resnet_s", {"stem": "axial"}, _AXIAL),
        PaperRow("ResNeXt-50", "25.0", "4.3", "78.2", "resnext50_32x4d"),
        PaperRow("Res2Net-50", "25.7", "4.2", "78.0", "res2net50_26w_4s"),
        PaperRow("DDF-ResNet-50", "16.8", "2.3", "79.1", "ddf_resnet50"),
        PaperRow("RedNet-50", "15.54", "2.62", "79.4", "rednet50"),
        PaperRow("DCDC-ResNet-50", "15.8", "2.68", "80.1", "dcdc_resnet50"),
        PaperRow("ResNet-101", "44.6", "7.9", "78.9", "resnet101"),
        PaperRow("LR-Net-101", "42.0", "8.0", "78.5", "lrnet101", why=_LR),
        PaperRow("CBAM-ResNet-101", "49.3", "7.8", "78.5", "cbam_resnet101"),
        PaperRow("AA-ResNet-101", "45.4", "8.1", "78.7", "aa_resnet101", why=_AA_101),
        PaperRow("SENet-101", "49.3", "7.8", "79.3", "se_resnet101"),
        PaperRow("ResNeXt-101", "44.2", "8.0", "79.5", "resnext101_32x4d"),
        PaperRow("Res2Net-101", "45.2", "8.1", "79.2", "res2net101_26w_4s"),
        PaperRow("RedNet-101", "25.65", "4.6", "79.1", "rednet101"),
        PaperRow("DDF-ResNet-101", "28.1", "4.1", "80.2", "ddf_resnet101"),
        PaperRow("DCDC-ResNet-101", "26.19", "4.71", "80.8", "dcdc_resnet101"),
    ),
    "DCDC, Table II": (
        PaperRow("DyNet-50", "", "1.1", "76.3", "dynet50"),
        PaperRow("CondConv-50", "104.8", "4.2", "78.6", "condconv_resnet50"),
        PaperRow("MDDC-50", "30.7", "3.9", "77.9", "dcd_resnet50", {"stride_in": "conv1"}, _MDDC),
        PaperRow("ODConv-50", "28.64", "3.9", "78.0", "odconv_resnet50", {"stride_in": "conv1"}),
        PaperRow("DwCondConv-50", "14.5", "2.3", "78.3", "dwcondconv_resnet50"),
        PaperRow("DwWeightNet-50", "14.4", "2.3", "78.0", "dwweightnet_resnet50"),
        PaperRow("DDF-ResNet-50", "16.8", "2.3", "79.1", "ddf_resnet50"),
        PaperRow("RedNet-50", "15.54", "2.62", "79.4", "rednet50"),
        PaperRow("DCDC-ResNet-50", "15.8", "2.68", "80.1", "dcdc_resnet50"),
    ),
    "DCDC, Table III": (
        PaperRow("RedNet-26", "9.23", "1.67", "75.9", "rednet26"),
        PaperRow("LSA", "9.26", "1.69", "76.7", "dcdc_resnet26", {"shared": None}),
        PaperRow("LSA + Conv_small", "9.34", "1.72", "76.9", "dcdc_resnet26", {"shared": "conv_small"}),
        PaperRow("LSA + Conv_large", "14.32", "2.73", "77.4", "dcdc_resnet26", {"shared": "conv_large"}),
        PaperRow("LSA + GSI", "9.36", "1.71", "77.4", "dcdc_resnet26"),
    ),
    "DCDC, Table IV": (
        PaperRow("k_dw 3, k_gsi 1, λ 1", "9.36", "1.71", "77.38", "dcdc_resnet26"),
        PaperRow("k_dw 5", "9.39", "1.73", "77.55", "dcdc_resnet26", {"context_kernel_size": 5}),
        PaperRow("k_dw 7", "9.45", "1.76", "77.63", "dcdc_resnet26", {"context_kernel_size": 7}),
        PaperRow("k_gsi 3", "9.61", "1.71", "77.39", "dcdc_resnet26", {"shared_kernel_size": 3}),
        PaperRow("k_gsi 5", "10.12", "1.71", "77.40", "dcdc_resnet26", {"shared_kernel_size": 5}),
        PaperRow("λ 1.5", "9.46", "1.72", "77.53", "dcdc_resnet26", {"width_factor": 1.5}),
        PaperRow("λ 2", "9.64", "1.73", "77.67", "dcdc_resnet26", {"width_factor": 2.0}),
        # The settings of the last two rows are illegible in our copy; these count as printed.
        PaperRow(
            "k_dw 7, λ 2", "9.74", "1.78", "77.80", "dcdc_resnet26", {"context_kernel_size": 7, "width_factor": 2.0}
        ),
        PaperRow(
            "k_gsi 7, λ 2", "21.88", "1.74", "77.90", "dcdc_resnet26", {"shared_kernel_size": 7, "width_factor": 2.0}
        ),
    ),
}


class UpsamplerRow(NamedTuple):
    """One row of DDF's Table 6: the multiply-accumulates of all upsamplers of an FPN, as they are printed.

    The paper does not state which maps; pixel shuffle's number is that of P6 to P3 of an image of 1280×800 pixels.
    """

    label: str
    macs_billions: str
    upsampler: Upsampler
    why: str = ""


_DECONVOLUTION = "counters of the time added a bias of 256·outH² here: 12.5745"
_CARAFE = "one more count for each output would give 2.1424"

UPSAMPLER_ROWS = (
    UpsamplerRow("Nearest (base)", "0.00", Nearest),
    UpsamplerRow("Bilinear", "0.02", Bilinear),
    UpsamplerRow("Deconv", "12.57", partial_layer(Deconvolution, kernel_size=3), _DECONVOLUTION),
    UpsamplerRow("P.S.", "50.18", partial_layer(PixelShuffle, kernel_size=3)),
    UpsamplerRow("CARAFE", "2.14", CARAFE, _CARAFE),
    UpsamplerRow("DDF-Up", "0.58", DDFUp),
)


PAPERS = {
    "DDF": "Zhou et al., Decoupled Dynamic Filter Networks, CVPR 2021",
    "Bi-volution": "Hu et al., Bi-volution, 2022",
    "DCDC": "Yan et al., Dual Complementary Dynamic Convolution, 2022",
    "SAN repository": "github.com/hszhao/SAN of Zhao et al., Exploring Self-attention for Image Recognition, CVPR 2020",
    "Involution repository": "github.com/d-li14/involution of Li et al., Involution, CVPR 2021",
}


class Published(NamedTuple):
    """What is printed for a registered model."""

    params_millions: float | None
    """None where the paper prints none."""
    macs_billions: float
    imagenet_top1: float
    """Percent."""
    source: str


def table_source(table: str) -> str:
    """The paper of a table, and its number."""
    paper, _, number = table.partition(", ")
    return f"{PAPERS[paper]}, {number}"


def _published(table: str, row: PaperRow) -> Published:
    params = float(row.params_millions) if row.params_millions else None
    return Published(params, float(row.macs_billions), float(row.imagenet_top1), table_source(table))


# Where several tables have a model, the row of the paper nearest to it.
PUBLISHED: dict[str, Published] = {
    row.model: _published(table, row)
    for table, rows in reversed(TABLES.items())
    for row in reversed(rows)
    if row.model is not None and not row.options
}
