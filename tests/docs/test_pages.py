"""The documentation: its links, its code and the examples."""

import ast
import contextlib
import inspect
import json
import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import jax
import matplotlib.pyplot as plt
import pytest
import yaml

import pallas_kernels
from ddf_jax.cli.arguments import parse
from ddf_jax.data.registered_transforms import TRANSFORMS
from ddf_jax.models.registry import MODELS
from ddf_jax.training.losses import LOSSES, METRICS
from ddf_jax.training.optimizer_config import OPTIMIZERS
from ddf_jax.training.recipe import TASKS
from pallas_kernels import IMPLEMENTATIONS
from tests.docs.page_inputs import ONE_AFTER_ANOTHER, PREPARED
from tests.docs.pages import EXAMPLES, PAGES, blocks, program
from tests.imports import ROOT


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


RUN_OF_DIGITS = [ROOT / "docs" / f"{name}.md" for name in ONE_AFTER_ANOTHER]
PROGRAMS = [RUN_OF_DIGITS, *([page] for page in PAGES if program(page) and page not in RUN_OF_DIGITS)]
"""Pages with Python code: each block of each is executed, a new one as well."""


@pytest.mark.parametrize("pages", PROGRAMS, ids=lambda pages: "-".join(page.stem for page in pages))
def test_the_code_of_a_page_runs(pages: list[Path], user: pytest.MonkeyPatch) -> None:
    for page in pages:
        PREPARED.get(page.stem, lambda patch: None)(user)
        execute(program(page), page, user)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_block_of_a_page_is_of_a_known_language_and_no_other_hides_python(page: Path) -> None:
    for language, text, line in blocks(page.read_text()):
        assert language in ("", "json", "python", "sh"), f"{page}:{line}"
        assert not re.search(r"python3? (-c|-) |<<", text), f"{page}:{line}: a block of Python is run by the tests"
        if language in ("", "sh"):
            with pytest.raises(SyntaxError):
                ast.parse(text)


def test_blocks_in_lists_count_and_lines_are_those_of_the_page(tmp_path: Path, user: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "1. Two\n\n   ```python\n   if x := 1:\n       y = 2\n   ```\n\n```sh\nls\n```\n\n```python\nx / (y - 2)\n```\n"
    )
    with pytest.raises(ZeroDivisionError) as error:
        execute(program(page), page, user)
    assert (error.traceback[-1].path, error.traceback[-1].lineno + 1) == (page, 13)


def test_the_signatures_on_the_page_of_the_operator_are_those_of_the_functions() -> None:
    texts = [text for language, text, _ in blocks((ROOT / "docs" / "operator.md").read_text()) if not language]
    for text in texts:
        call = re.match(r"\w+\(.*?\)(?= ->)", text, re.DOTALL)
        assert call
        shown = ast.parse(f"def {call[0]}: ...").body[0]
        assert isinstance(shown, ast.FunctionDef)
        actual = inspect.signature(getattr(pallas_kernels, shown.name))
        bare = [each.replace(annotation=each.empty) for each in actual.parameters.values()]
        assert f"({ast.unparse(shown.args)})" == str(inspect.Signature(bare)).replace(": ", ""), shown.name
    assert len(texts) == 2


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A user's process, in an empty folder; what it registers is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["program"])
    registries = [each.entries for each in (LOSSES, METRICS, MODELS, OPTIMIZERS, TRANSFORMS)]
    with contextlib.ExitStack() as stack:
        for names in (*registries, TASKS, IMPLEMENTATIONS, os.environ):
            stack.enter_context(mock.patch.dict(names))
        stack.enter_context(jax.numpy_dtype_promotion("standard"))
        stack.enter_context(jax.numpy_rank_promotion("allow"))
        yield monkeypatch


def execute(source: str, file: Path, patch: pytest.MonkeyPatch) -> None:
    """Runs a program as Python would."""
    main = types.ModuleType("__main__")
    patch.setitem(sys.modules, "__main__", main)
    exec(compile(source, str(file), "exec"), main.__dict__)


ONE_RUN = ("03_train_on_digits.py", "04_predict.py", "10_export.py")
"""The run of the first is read by the others."""
LONG = "09_detect_in_your_coco_folder.py"


def test_every_example_is_short_and_listed() -> None:
    listed = re.findall(r"^\| \[`(\w+\.\w+)`\]", (ROOT / "examples" / "README.md").read_text(), re.MULTILINE)
    assert listed == [file.name for file in EXAMPLES] + ["tour.ipynb"]
    assert all(len(file.read_text().splitlines()) < 80 for file in EXAMPLES)


@pytest.mark.parametrize("file", [file for file in EXAMPLES if file.name not in (*ONE_RUN, LONG)], ids=lambda f: f.name)
def test_an_example_runs(file: Path, user: pytest.MonkeyPatch) -> None:
    execute(file.read_text(), file, user)


@pytest.mark.slow
def test_the_examples_of_training_prediction_and_export_run(user: pytest.MonkeyPatch) -> None:
    for file in (ROOT / "examples" / name for name in ONE_RUN):
        execute(file.read_text(), file, user)


@pytest.mark.slow
def test_the_example_of_detection_runs_on_one_device(tmp_path: Path) -> None:
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, ROOT / "examples" / LONG], cwd=tmp_path, env=environment, timeout=600, check=True)


@pytest.mark.parametrize("steps", [5, pytest.param(300, marks=pytest.mark.slow)])
def test_the_notebook_runs_from_top_to_bottom(steps: int, user: pytest.MonkeyPatch) -> None:
    notebook = ROOT / "examples" / "tour.ipynb"
    cells = [cell["source"] for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    source = "\n".join(line for cell in cells for line in "".join(cell).splitlines())
    assert source.count("range(300)") == 1
    execute(source.replace("range(300)", f"range({steps})"), notebook, user)
    plt.close("all")


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
