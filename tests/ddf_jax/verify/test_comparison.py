"""Quantities against recorded ones: which differences show, and as what."""

import numpy as np
import pytest

from ddf_jax.verify.comparison import TOLERANCE, Comparison, compare, format_comparisons
from ddf_jax.verify.reference import summary

RNG = np.random.default_rng(0)
FOUND = {
    "eval/neck0": RNG.standard_normal((2, 3, 8, 9)),
    "eval/proposals0": np.concatenate([224 * RNG.random((6, 4)), RNG.random((6, 1))], 1),
    "eval/labels0": np.arange(6, dtype=np.int32),
    "eval/masks0": RNG.random((12, 5, 7)) > 0.5,
    "losses/loss_cls": np.float64(0.25),
    "grad_norm/neck.weight": np.float64(3.0),
    "samples": np.array([[3, 5], [2, 6]]),
}
RECORDED = {
    "eval/neck0": summary(FOUND["eval/neck0"], 20),
    "eval/proposals0": FOUND["eval/proposals0"],
    "eval/labels0": FOUND["eval/labels0"].astype(np.int16),
    "eval/masks0_first10_packbits": np.packbits(FOUND["eval/masks0"][:10]),
    "losses/loss_cls": np.array(0.25),
    "grad_norm/neck.weight": np.array(3.0),
    "grad_norm/stem.weight": None,
    "samples": FOUND["samples"],
}


def failing(recorded, found=FOUND):
    comparisons = compare(recorded, found, lambda _: TOLERANCE)
    assert [c.quantity for c in comparisons] == list(recorded)
    return {c.quantity: c for c in comparisons if not c.passed}


def test_equal_quantities_pass_whole_or_as_summaries_bits_and_nothing():
    assert failing(RECORDED) == {}
    assert failing({"eval/neck0": FOUND["eval/neck0"]}) == {}
    assert failing({"eval/neck0": summary(FOUND["eval/neck0"], 64)}) == {}


def changed(name, place, difference):
    array = RECORDED[name].astype(np.float64)
    array[place] += difference
    return {**RECORDED, name: array}


@pytest.mark.parametrize(
    ("name", "place", "difference", "scale"),
    [
        ("eval/neck0", 0, 1e-7, np.sqrt(RECORDED["eval/neck0"][1])),  # the sum
        ("eval/neck0", 1, 1e-6, RECORDED["eval/neck0"][1]),  # of squares: some hundreds, much more than an element
        ("eval/neck0", 9, 1e-8, np.abs(RECORDED["eval/neck0"][2:]).max()),
        ("eval/proposals0", (2, 1), 1e-6, np.abs(FOUND["eval/proposals0"][:, :4]).max()),
        ("eval/proposals0", (2, 4), 1e-8, FOUND["eval/proposals0"][:, 4].max()),  # a score, not in pixels
        ("losses/loss_cls", (), 1e-9, 0.25),
    ],
)
def test_an_error_is_relative_to_what_has_the_same_scale(name, place, difference, scale):
    [(failed, comparison)] = failing(changed(name, place, difference)).items()
    assert failed == name
    assert comparison.relative_error == pytest.approx(difference / scale, rel=1e-3)


def test_the_share_of_different_integers_and_bits_counts():
    labels = RECORDED["eval/labels0"].copy()
    labels[2:4] += 1
    bits = RECORDED["eval/masks0_first10_packbits"].copy()
    bits[5] ^= 0b10010
    recorded = {**RECORDED, "eval/labels0": labels, "eval/masks0_first10_packbits": bits}
    errors = {name: c.relative_error for name, c in failing(recorded).items()}
    assert errors == {"eval/labels0": pytest.approx(2 / 6), "eval/masks0_first10_packbits": 2 / (8 * bits.size)}


@pytest.mark.parametrize(
    ("name", "theirs", "reason"),
    [
        ("eval/labels0", np.arange(7), "has the shape [7] there, [6] here"),
        ("eval/labels0", np.zeros((6, 1), int), "has the shape [6, 1] there"),
        ("eval/neck0", np.zeros((2, 3, 9, 8)), "has the shape [2, 3, 9, 8] there"),
        ("eval/masks0_first3_packbits", np.zeros(9, np.uint8), "there, [14] here"),
        ("eval/masks1_first3_packbits", np.zeros(9, np.uint8), "not computed"),
        ("eval/scores0", np.zeros(6), "not computed here"),
        ("grad_norm/stem.weight", np.array(1.0), "not computed here"),
        ("grad_norm/neck.weight", None, "frozen there, trained here"),
        ("losses/loss_cls", np.array(np.nan), "not finite"),
        ("losses/loss_cls", np.array(0.0), "0 or not finite"),
    ],
)
def test_what_cannot_be_compared_fails_with_the_reason(name, theirs, reason):
    [comparison] = failing({name: theirs}).values()
    assert reason in comparison.reason
    assert comparison.as_json() == {
        "quantity": name,
        "relative_error": None,
        "passed": False,
        "tolerance": TOLERANCE,
    }


def test_numbers_of_ours_that_are_not_finite_fail():
    found = {**FOUND, "eval/proposals0": np.where(np.arange(5) == 4, np.nan, FOUND["eval/proposals0"])}
    assert list(failing(RECORDED, found)) == ["eval/proposals0"]


def test_a_table_has_failures_first_then_the_worst_and_counts_all():
    comparisons = [Comparison(f"q{n}", n * 1e-11, 1e-9) for n in range(40)]
    comparisons += [Comparison("lost", np.inf, 1e-9, "not computed here"), Comparison("wrong", 1e-3, 1e-6)]
    lines = format_comparisons(comparisons, "file").splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["lost", "wrong", "q39", "q38"]
    assert lines[1].endswith("not computed here  1e-09      FAILED")
    assert lines[-2] == "… and 25 more, which pass, with at most 2.4e-10"
    assert lines[-1] == "file: 2 of 42 quantities FAILED"
    assert format_comparisons(comparisons[:3], "file").splitlines()[-1] == "file: all 3 quantities passed"
