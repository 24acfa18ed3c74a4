"""What the kernels take, as rows and a table."""

import json

from experiments.reports import kernels
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.spec import FilterSpec
from tests.aot import needs_triton, uninstall


@needs_triton
def test_each_call_has_a_row_for_each_kernel_and_a_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(kernels, "FOLDER", tmp_path)
    monkeypatch.setattr(kernels, "CALLS", (ArgSpec("small", (8, 14, 14, 256), FilterSpec(1)),))
    assert kernels.main([]) == 0
    rows = json.loads((tmp_path / "kernels.json").read_text())
    assert [row["kernel"] for row in rows if row["implementation"] == "triton"] == ["forward", "input", "filters"]
    for row in rows:
        assert (row["call"], row["device"], row["spill_bytes"]) == ("small", "NVIDIA H200", 0)
        assert set(row["versions"]) == {"jax", "triton"}
    assert capsys.readouterr().out == (tmp_path / "kernels.md").read_text() + "\n"


def test_without_a_compiler_it_states_what_to_install(monkeypatch, capsys):
    uninstall(monkeypatch, "triton")
    assert kernels.main([]) == 2
    assert "pip install triton" in capsys.readouterr().err


def test_the_committed_tables_are_those_of_the_committed_rows():
    assert kernels.report(kernels.stored_rows()) == (kernels.FOLDER / "kernels.md").read_text()
