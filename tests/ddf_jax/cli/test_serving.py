"""A trained run exported and served: the same numbers everywhere."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ddf_jax
from ddf_jax.serving.limits import Limits
from ddf_jax.serving.predictor import open_predictor
from experiments.benchmarks.serving import measure
from tests.ddf_jax.serving.brightness import ask, while_served
from tests.imports import ROOT

WITHOUT_US = """
import sys

sys.modules |= dict.fromkeys(("flax", "optax", "orbax", "grain", "PIL", "tyro", "ddf_jax.training", "ddf_jax.data"))
sys.path.insert(0, ROOT)
import numpy as np
from ddf_jax.serving.exported import load_exported

images = np.load("images.npy")
loaded = load_exported("tiny.npz")
np.save("found.npy", loaded({"image": images})["probabilities"])
try:
    loaded({"image": images.astype("float32")})
except ValueError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def exported(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The tiny run in a file, and what the command printed."""
    from ddf_jax.serving.exporting import export_run

    file = tmp_path_factory.mktemp("exported") / "tiny.npz"
    facts = export_run(ddf_jax.load_run(tiny_run), file, platforms=["cpu"])
    return file, json.dumps(facts)


def test_an_exported_file_predicts_as_the_run_does_where_only_jax_is_installed(exported, tiny_run):
    file, facts = exported
    [program] = json.loads(facts)["programs"]
    assert program["inputs"] == {"image": {"dtype": "uint8", "shape": ["b", "h", "w", 1]}}
    assert program["outputs"] == {"probabilities": {"dtype": "float32", "shape": ["b", 10]}}
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    np.save(file.with_name("images.npy"), images)
    source = WITHOUT_US.replace("ROOT", repr(str(ROOT)))
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, cwd=file.parent, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "must be image uint8 [b, h, w, 1]" in done.stdout
    expected = ddf_jax.predict(ddf_jax.load_run(tiny_run), images)
    np.testing.assert_allclose(np.load(file.with_name("found.npy")), expected, rtol=0, atol=1e-6)


def test_a_damaged_file_is_refused(ddf, refused, exported, tmp_path):
    file, _ = exported
    for name, content in (("cut.npz", file.read_bytes()[:-100]), ("text.npz", b"text"), ("empty.npz", b"")):
        (tmp_path / name).write_bytes(content)
        assert "must be a whole file that `ddf export` wrote" in refused("serve", tmp_path / name)
    assert "There is no file" in refused("serve", tmp_path / "none.npz")


def test_a_server_of_a_run_or_a_file_answers_with_the_json_of_ddf_predict(ddf, exported, tiny_run, tmp_path):
    image = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 30), np.uint8)).save(image)
    _, printed, _ = ddf("predict", tiny_run, image, "--json")
    [expected] = json.loads(printed)

    def clients(address):
        [found] = json.loads(ask(address, "POST", "/predict", image.read_bytes()).body)
        assert found["image"] == "image"
        assert [row["class"] for row in found["predictions"]] == [row["class"] for row in expected["predictions"]]
        for row, other in zip(found["predictions"], expected["predictions"], strict=True):
            assert row["probability"] == pytest.approx(other["probability"], abs=1e-6)

    for source in (tiny_run, exported[0]):
        assert while_served(open_predictor(source), clients, Limits(max_batch=1))["answered"] == 1


def test_export_and_serve_refuse_what_they_cannot_do(refused, tiny_run, tmp_path, monkeypatch):
    out = tmp_path / "out.npz"
    assert "OUT must end in .npz" in refused("export", tiny_run, tmp_path / "out")
    assert "`platforms` must be some of cpu, cuda" in refused("export", tiny_run, out, "--platforms", "gpu")
    assert "OUT must be a file in a folder" in refused("export", tiny_run, tmp_path / "none" / "out.npz")
    assert "`checkpoint` must be a step, newest or best" in refused("export", tiny_run, out, "--checkpoint", "last")
    assert "Sizes must be at least 1" in refused("export", tiny_run, out, "--batch-size", "0")
    (tmp_path / "taken").mkdir()
    for format in ("onnx", "savedmodel"):
        assert "--platforms must be left out" in refused(
            "export", tiny_run, out, "--format", format, "--platforms", "cpu"
        )
        assert "got none/out" in refused("export", tiny_run, "none/out", "--format", format)
    assert "that does not exist yet" in refused("export", tiny_run, tmp_path / "taken", "--format", "savedmodel")
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    assert "pip install 'ddf-jax[onnx]'" in refused("export", tiny_run, out, "--format", "onnx")
    assert "`max_batch` must be at least 1" in refused("serve", tiny_run, "--max-batch", "0")
    assert not out.exists()


@pytest.mark.slow
def test_fifty_parallel_clients_get_no_wrong_answer_and_cost_bounded_memory(tiny_run):
    rows = {row["kind"]: row for row in measure(tiny_run, clients=50, seconds=15)}
    assert sum(row["clients"] for row in rows.values()) == 50
    assert [kind for kind, row in rows.items() if row["wrong"]] == []
    assert rows["good"]["requests"] > 100
    memory = rows["good"]
    assert memory["resident_mb_peak_second_half"] < memory["resident_mb_peak_first_half"] + 50
    assert memory["resident_mb_peak_second_half"] < memory["resident_mb_start"] + 300


@pytest.mark.slow
def test_the_program_of_the_documentation_reads_a_file_without_this_package(exported, tiny_run, tmp_path):
    [program] = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/serving.md").read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "digits.npz").write_bytes(exported[0].read_bytes())
    source = f"{program}assert 'flax' not in __import__('sys').modules\nnp.save('found.npy', probabilities)"
    subprocess.run([sys.executable, "-c", source], cwd=tmp_path, timeout=300, check=True)
    expected = ddf_jax.predict(ddf_jax.load_run(tiny_run), np.zeros((2, 8, 8, 1), np.uint8))
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, rtol=0, atol=1e-6)
