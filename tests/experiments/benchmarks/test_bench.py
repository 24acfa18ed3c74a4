"""`ddf bench`: which peers take part, and where the rows go."""

import csv
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ddf_jax.errors import UserError
from experiments.benchmarks import bench
from experiments.benchmarks.bench import Benchmark, Settings


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Settings]]:
    """The settings that two benchmarks get, each of which has one row."""
    found: list[tuple[str, Settings]] = []

    def make(name: str, *peers: str) -> Benchmark:
        def measure(settings: Settings) -> list[dict[str, Any]]:
            found.append((name, settings))
            return [{"implementation": name, "median_ms": settings.turns(5)}]

        return Benchmark(peers, measure, lambda rows: f"table of {name}")

    monkeypatch.setattr(bench, "BENCHMARKS", {"a": make("a", "torch", "timm"), "b": make("b", "torch")})
    for name in ("torch", "timm"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    return found


def test_rows_are_added_to_a_file_of_each_benchmark_with_the_peers_that_it_knows(asked, tmp_path: Path):
    tables: list[str] = []
    settings = Settings(("torch", "timm"))
    for rounds in (None, 2):
        rows = bench.run(["a", "b"], settings._replace(rounds=rounds), tmp_path / "new", tables.append)
    assert [(name, each.against) for name, each in asked[:2]] == [("a", ("torch", "timm")), ("b", ("torch",))]
    assert rows == [{"benchmark": name, "implementation": name, "median_ms": 2} for name in "ab"]
    kept = list(csv.DictReader((tmp_path / "new" / "a_cpu.csv").read_text().splitlines()))
    assert [row["median_ms"] for row in kept] == ["5", "2"]
    assert tables[0] == f"table of a\n1 rows added to {tmp_path / 'new' / 'a_cpu.csv'}"


def test_a_peer_that_no_benchmark_knows_is_refused(asked, tmp_path: Path):
    with pytest.raises(UserError, match="`ddf bench b` compares with torch, got --against timm"):
        bench.run(["b"], Settings(("timm",)), tmp_path, print)
    assert not asked


@pytest.mark.parametrize("peer", ["torch", "timm"])
def test_a_peer_that_is_not_installed_is_one_line_with_the_command(asked, peer, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, peer, None)
    with pytest.raises(UserError, match=f"needs {peer}, which cannot be imported .* pip install .*{peer}"):
        bench.run(["a"], Settings((peer,)), tmp_path, print)
    assert not asked


def test_torchvision_may_be_in_another_python(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    for python, message in ((None, "import of torchvision halted"), (sys.executable, "No module named 'torchvision'")):
        with pytest.raises(UserError, match=message):
            bench.check_peers(["detection"], Settings(("torchvision",), peer_python=python))


def test_each_benchmark_names_peers_whose_installation_is_known():
    assert {peer for benchmark in bench.BENCHMARKS.values() for peer in benchmark.peers} == {*bench.PEERS}
    assert {*bench.TIMED_PARTS} < {
        *bench.detection_inputs.part_shapes(bench.detection_inputs.make_inputs((64, 96), (64, 64), 60))
    }
