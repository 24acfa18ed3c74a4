"""The papers' numbers equal ours, except those that are listed, each with a reason."""

import functools

import pytest
from flax import nnx

from ddf_jax.analysis.comparison import NAMES, Cell, compare, count, has_digits, markdown, rounded_twice
from ddf_jax.analysis.counting import complexity
from ddf_jax.analysis.published import PUBLISHED, TABLES
from ddf_jax.analysis.published_detectors import DETECTOR_TABLES, PUBLISHED_DETECTORS
from ddf_jax.models import get_config, list_models
from tests.ddf_jax.models.pinned import PARAMETERS

# Table and row, and which of the two numbers is not equal: parameters, FLOPs or both.
UNEQUAL = {
    ("DDF, Table 1", "DDF"): "p",
    **{("DDF, Table 3c", f"σ = {ratio}"): "F" for ratio in (0.2, 0.3, 0.4)},
    ("DDF, Table 5", "Res2Net50 (14w-8s)"): "p",
    **{("DDF, Table 6", upsampler): "F" for upsampler in ("Deconv", "CARAFE")},
    ("DDF, Table 4", "R18 DyNet"): "p",
    ("Bi-volution, Table 1", "BiNet-38 (dc)"): "p",
    ("Bi-volution, Table 1", "DDF-ResNet-38"): "p",
    ("Bi-volution, Table 1", "BiNet-38 (dc-ca)"): "p",
    ("Bi-volution, Table 1", "Res2Net-50 (14w-8s)"): "p",
    ("Bi-volution, Table 1", "BiNet-50 (dc-ca)"): "p",
    ("Bi-volution, Table 1", "LR-Net-50"): "F",
    ("Bi-volution, Table 1", "LR-Net-101"): "pF",
    ("Bi-volution, Table 1", "BAM-ResNet-101"): "p",
    ("Bi-volution, Table 4", "dc-ca 5×5"): "F",
    ("Bi-volution, Table 4", "dc-ca 7×7"): "F",
    ("Bi-volution, Table 1", "Axial ResNet-S"): "p",
    ("DCDC, Table I", "Axial ResNet-S"): "p",
    ("DCDC, Table I", "LR-Net-26"): "pF",
    ("DCDC, Table I", "LR-Net-50"): "F",
    ("DCDC, Table I", "LR-Net-101"): "pF",
    ("DCDC, Table II", "MDDC-50"): "pF",
    ("DCDC, Table VII", "PFPN, DCDC-ResNet50, DCDC neck"): "p",
    ("DCDC, Table VII", "PFPN, ResNet101, convolution"): "p",
}
UNCOUNTED = "Bi-volution, Table 2"  # by the paper

QUICK = ("DDF, Table 1", "SAN repository, README", "DDF, Table 6")


@functools.cache
def compared(table: str) -> list[Cell]:
    return list(compare(table))


@pytest.mark.parametrize(
    "table",
    [table if table in QUICK else pytest.param(table, marks=pytest.mark.slow) for table in NAMES if table != UNCOUNTED],
)
def test_counts_are_the_papers_but_the_known_ones(table):
    cells = [cell for cell in compared(table) if cell.equal is not None]
    assert cells
    unequal: dict[tuple[str, str], str] = {}
    for cell in cells:
        if not cell.equal:
            key = cell.table, cell.row
            unequal[key] = unequal.get(key, "") + cell.column[0]
            assert set(cell.note.split("; ")) - {"", "core", "mmcv", "san", "total"}, f"{cell} needs a reason"
    assert unequal == {key: columns for key, columns in UNEQUAL.items() if key[0] == table}


@pytest.mark.slow
def test_counts_are_the_pinned_ones():
    assert {name: count(name).params for name in PARAMETERS} == PARAMETERS


def test_upsamplers_cost_what_their_formulas_state_for_the_maps_of_an_image_of_1280_by_800():
    computed = {cell.row: cell.computed for cell in compared("DDF, Table 6")}
    pixels, channels = 100 * 160 + 50 * 80 + 25 * 40 + 13 * 20, 256  # of P3 to P6
    compressed = channels * 64 + 64 * 9 * 4 * 25
    squeezed = 51  # of each of the four channel branches at each of the four levels
    expected = {
        "Nearest (base)": 0,
        "Bilinear": pixels * 4 * channels,
        "Deconv": pixels * (9 * channels**2 + 4 * channels),  # mmcv counts the bias
        "P.S.": pixels * 4 * channels * (9 * channels + 1),
        "CARAFE": pixels * (compressed + 4 * 25 * channels),
        "DDF-Up": pixels * 3 * 4 * 9 * channels + 4 * 4 * (channels * squeezed + squeezed * 9 * channels),
    }
    assert computed == {row: round(macs / 1e9, 4) for row, macs in expected.items()}


@pytest.mark.slow
@pytest.mark.parametrize("table", ["DCDC, Table I", "DCDC, Table III", "DCDC, Table IV"])
def test_dcdc_and_rednet_print_what_mmcv_counts(table):
    rows = [row for row in TABLES[table] if row.model and row.model.startswith(("dcdc_", "rednet"))]
    assert len(rows) in (8, 5, 9)
    for row in rows:
        counts = count(row.model, tuple(row.options.items()))
        assert has_digits(counts.macs_mmcv / 1e9, row.macs_billions), row


@pytest.mark.parametrize(
    ("name", "gigamacs"),
    [
        ("rednet26", 1.676),
        *(
            pytest.param(name, gigamacs, marks=pytest.mark.slow)
            for name, gigamacs in (("rednet38", 2.148), ("rednet50", 2.619), ("rednet101", 4.606))
        ),
    ],
)
def test_rednets_count_as_their_own_counter_does(name, gigamacs):
    assert count(name).macs_mmcv / 1e9 == pytest.approx(gigamacs, abs=0.0006)


@pytest.mark.parametrize(
    ("name", "gigamacs"),
    [
        ("san10", 2.155),
        ("san15", 3.023),
        ("san19", 3.844),
        ("san10_patchwise", 1.865),
        ("san15_patchwise", 2.583),
        ("san19_patchwise", 3.259),
    ],
)
def test_sans_count_as_their_own_counter_does(name, gigamacs):
    assert count(name).macs_san / 1e9 == pytest.approx(gigamacs, abs=0.0011)  # without the coordinates' convolution


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dcdc_resnet26", {"width": 16, "blocks": (4, 1, 3), "group_channels": 4}),
        ("san10", {"width": 32, "blocks": (2, 1), "stem_blocks": 3, "kernel_size": 3}),
    ],
)
def test_a_block_that_repeats_costs_as_much_as_the_one_that_is_traced(name, options):
    config = get_config(name, **options)
    whole = complexity(nnx.eval_shape(lambda: config.build(rngs=nnx.Rngs(0))), *config.inputs(224, 224))
    assert count(name, tuple(options.items())) == whole


def test_published_rows_are_of_registered_models():
    assert set(PUBLISHED) <= set(list_models(task="classification"))
    assert set(PUBLISHED_DETECTORS) <= set(list_models(task="detection"))


def test_rows_of_detectors_have_the_accuracies_of_their_columns_in_percent():
    for table in DETECTOR_TABLES.values():
        assert max(len(row.accuracies) for row in table.rows) == len(table.columns)
        assert len({row.label for row in table.rows}) == len(table.rows)
        for row in table.rows:
            assert len(row.accuracies) in (len(table.columns), len(table.columns) // 2)
            assert all(10 < float(accuracy) < 90 for accuracy in row.accuracies)


def test_what_is_printed_for_a_detector_is_of_its_first_table():
    faster = PUBLISHED_DETECTORS["faster_rcnn_rednet50"]
    assert (faster.params_millions, faster.macs_billions, faster.box_ap, faster.mask_ap) == (31.6, 176.4, 0.395, None)
    assert faster.source.endswith("2022, Table V")
    assert PUBLISHED_DETECTORS["mask_rcnn_binet50"].mask_ap == 0.364
    assert PUBLISHED_DETECTORS["panoptic_fpn_resnet50"].pq == 0.403


@pytest.mark.slow
def test_counts_are_shown_next_to_accuracies_where_a_paper_has_none():
    cells = compared(UNCOUNTED)
    counted = [cell for cell in cells if cell.computed is not None]
    assert len(counted) == 16
    assert {(cell.published, cell.equal) for cell in counted} == {(None, None)}
    text = markdown(cells)
    assert "| Mask R-CNN, ResNet50, convolution | FLOPs (G) |  | 260.1375 |  | mmcv |" in text
    assert "| Faster R-CNN, ResNet50, convolution | 37.7 | 58.7 | 40.8 | 21.7 | 41.6 | 48.4 |  |" in text


def test_mmcv_rounds_to_two_digits_before_a_table_rounds_to_one():
    assert rounded_twice(185_048_000_000, 10**9, 1) == "185.1"
    assert rounded_twice(185_044_000_000, 10**9, 1) == "185.0"
    assert rounded_twice(28_985_424, 10**6, 1) == "29.0"


@pytest.mark.slow
def test_numbers_that_nothing_computes_are_shown_without_a_verdict():
    [cell] = [cell for cell in compared("DDF, Table 4") if cell.computed is None]
    assert (cell.row, cell.published, cell.equal) == ("R18 Adaptive", 11.1, None)
    assert cell.note.startswith("not built here; of its paper")
    assert markdown([cell]).endswith("0 of 0 numbers are equal.")


def test_a_number_that_is_not_rounded_states_how_it_was_made():
    [cell] = [cell for cell in compared("DDF, Table 6") if cell.row == "DDF-Up"]
    assert (cell.published, cell.equal, cell.note) == (0.58, True, "core; truncated")


def test_the_summary_marks_each_number():
    text = markdown(compared("DDF, Table 1"))
    assert "| Conv | parameters | 589,824 | 589,824 | ✓ |  |" in text
    assert "| DDF | parameters | 133,376 | 137,532 | ✗ |" in text
    assert "| DyFilter | parameters | 150,994,944 | 150,994,944 | ✓ |" in text
    assert text.endswith("4 of 5 numbers are equal.")
