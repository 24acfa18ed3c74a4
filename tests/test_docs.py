"""The documentation: its links, its code and the examples."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import pytest
import yaml

from ddf_jax.cli.arguments import parse
from tests.imports import ROOT

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.md")]
EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*.py"))


def code_blocks(page: Path, language: str = "python") -> str:
    """All ```python blocks of a page as one program. Blocks that need files of the user are marked ```py."""
    return "\n".join(re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_links_to_files_and_headings_that_exist(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if not re.match("https?:", link):
            path, _, heading = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), link
            if line := re.fullmatch(r"L(\d+)", heading):
                assert int(line[1]) <= len(target.read_text().splitlines()), link
                continue
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if heading else []
            assert not heading or heading in [
                re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings
            ], link


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 110


QUICK = (ROOT / "README.md", ROOT / "docs" / "operators_gallery.md")
OTHERS = [page for page in PAGES if page.parent.name == "docs" and page not in QUICK and code_blocks(page)]


@pytest.mark.parametrize("page", QUICK, ids=lambda page: page.name)
def test_the_code_of_a_quick_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "page.py"
    program.write_text(code_blocks(page))
    assert "import" in program.read_text()
    run_examples([program], tmp_path, monkeypatch)


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=() if page.stem in ("own_cnn", "extending") else pytest.mark.slow) for page in OTHERS],
    ids=lambda page: page.name,
)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    run(code_blocks(page), tmp_path, devices=8)


RUN_PAGES = ("training", "inspect", "serving")
PREPARED = """
import dataclasses
from PIL import Image
import ddf_jax.recipes.digits as shipped
from ddf_jax.cli import main
from ddf_jax.data.datasets.digits import load_digits

shipped.recipe = dataclasses.replace(shipped.recipe, epochs=3)
images, labels = load_digits()
for name, digit in (("seven.png", 7), ("one.png", 1)):
    Image.fromarray(images[labels == digit][0] * 15).save(name)
"""


@pytest.mark.slow
def test_the_code_that_needs_a_run_runs_on_a_short_one_of_digits(tmp_path: Path) -> None:
    training, inspection, serving = (code_blocks(ROOT / "docs" / f"{name}.md", "py") for name in RUN_PAGES)
    export = 'assert main(["export", "runs/digits", "digits.npz"]) == 0'
    run("\n".join([PREPARED, training, inspection, export, serving]), tmp_path)


def run(program: str, folder: Path, devices: int = 1) -> None:
    """Runs a program as a user would."""
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{program}"
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=600, env=environment
    )
    assert done.returncode == 0, done.stderr


TOGETHER = ("03_train_on_digits.py", "04_predict.py", "10_export.py")
"""The run of the first is read by the others."""
TOO_LONG = "09_detect_in_your_coco_folder.py"


def test_every_example_is_short_and_listed() -> None:
    listed = re.findall(r"^\| \[`(\w+\.\w+)`\]", (ROOT / "examples" / "README.md").read_text(), re.MULTILINE)
    assert listed == [file.name for file in EXAMPLES] + ["tour.ipynb"]
    assert all(len(file.read_text().splitlines()) < 80 for file in EXAMPLES)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(file.name, marks=pytest.mark.slow) if file.name == TOO_LONG else file.name
        for file in EXAMPLES
        if file.name not in TOGETHER
    ],
)
def test_an_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_examples([ROOT / "examples" / name], tmp_path, monkeypatch)


@pytest.mark.slow
def test_the_examples_of_training_prediction_and_export_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_examples([ROOT / "examples" / name for name in TOGETHER], tmp_path, monkeypatch)


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    run(
        f"import nbclient, nbformat; book = nbformat.read({str(ROOT / 'examples' / 'tour.ipynb')!r}, 4); "
        "nbclient.NotebookClient(book, timeout=600).execute()",
        tmp_path,
    )


def run_examples(files: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["example"])
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # as a user would
        for file in files:
            runpy.run_path(str(file), run_name="__main__")


@pytest.mark.parametrize("name", ["slurm.sbatch", "mpi.sh"])
def test_a_script_for_a_cluster_can_be_read_by_its_shell(name: str) -> None:
    subprocess.run(["bash", "-n", ROOT / "docs" / "clusters" / name], check=True)


def test_the_pods_of_the_job_find_the_first_of_them() -> None:
    service, job = yaml.safe_load_all((ROOT / "docs" / "clusters" / "kubernetes.yaml").read_text())
    name, spec = job["metadata"]["name"], job["spec"]
    assert (spec["completionMode"], spec["completions"]) == ("Indexed", spec["parallelism"])
    assert service["spec"]["selector"] == {"job-name": name}
    pod = spec["template"]["spec"]
    assert pod["subdomain"] == service["metadata"]["name"]
    [container] = pod["containers"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert environment["JAX_COORDINATOR_ADDRESS"].startswith(f"{name}-0.{pod['subdomain']}:")
    assert environment["JAX_NUM_PROCESSES"] == str(spec["completions"])
    assert parse(container["args"][1:]).__class__.__name__ == "TrainCommand"
