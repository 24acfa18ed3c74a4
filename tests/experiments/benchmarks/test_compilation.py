"""The benchmark of compilation: seconds and sizes of a program, anew each time."""

import jax
import pytest

from experiments.benchmarks import compilation
from experiments.benchmarks.compilation import Part, lower_operator
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.spec import FilterSpec

SMALL = ArgSpec("1x2x3x4", (1, 2, 3, 4), FilterSpec(1))


def test_a_part_is_lowered_anew_in_each_round_and_its_program_measured():
    lowered = []

    def lower() -> jax.stages.Lowered:
        lowered.append(1)
        return lower_operator(SMALL, "forward")

    [row] = compilation.measure(iter([Part("operator", "dynamic_filter", SMALL.name, "forward", lower)]), rounds=2)
    assert len(lowered) == row["n"] == 2
    assert row["lower_s"] > 0
    assert row["compile_s"] > 0
    assert row["instructions"] > 1
    assert row["program_bytes"] > 100
    assert row["peak_bytes"] >= 4 * (2 * 24 + 6 + 4)
    assert "dynamic_filter" in compilation.to_table([row])


def test_operator_layers_and_networks_are_compiled_in_both_passes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compilation, "MODELS", ("ddf_resnet18",))
    monkeypatch.setattr(compilation, "COMPILED_LAYERS", ("depthwise3x3", "ddf"))
    parts = [(part.part, part.name, part.which) for part in compilation.all_parts()]
    assert {part[:2] for part in parts} == {
        ("operator", "dynamic_filter"),
        ("layer", "depthwise3x3"),
        ("layer", "ddf"),
        ("model", "ddf_resnet18"),
    }
    assert len(parts) == len({*parts}) == 8
