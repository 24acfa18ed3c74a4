"""What a release states about itself, and the workflow that publishes it."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.imports import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = PYPROJECT["project"]["version"]
WORKFLOWS = {file.stem: yaml.safe_load(file.read_text()) for file in (ROOT / ".github" / "workflows").glob("*.yml")}
JOBS = [(name, job) for name, workflow in WORKFLOWS.items() for job in workflow["jobs"].values()]


def steps(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps of a job; one that calls another workflow has none."""
    return job.get("steps", [])


def test_project_citation_and_changelog_agree_on_version_and_date() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == VERSION
    assert headings[:2] == ["[Unreleased]", f"[{VERSION}] - {citation['date-released']}"]
    released = "\n".join(headings[1:])
    dates = re.findall(r"^\[\d+\.\d+\.\d+\] - (\d{4}-\d\d-\d\d)$", released, re.MULTILINE)
    assert dates == sorted(dates, reverse=True)
    assert len(dates) == len(headings) - 1


def test_the_description_on_pypi_has_no_link_into_the_checkout_and_installs_by_name() -> None:
    hook = PYPROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    page, more = hook["fragments"]
    text, end, _ = (ROOT / page["path"]).read_text().partition(page["end-before"])
    assert end
    text += more["text"]
    for each in hook["substitutions"]:
        text, count = re.subn(each["pattern"], each["replacement"], text)
        assert count, each["pattern"]
    assert not re.findall(r"\]\(|<!--|!\[|pip install '?\.|[Cc]heckout", text)
    assert f"pip install {PYPROJECT['project']['name']} " in text
    assert [line for line in text.splitlines() if line.startswith("## ")][-1] == "## More"


@pytest.mark.parametrize("tag", [f"v{VERSION}", "v9.9.9", VERSION])
def test_only_the_tag_of_the_version_is_published(tag: str, tmp_path: Path) -> None:
    publish = WORKFLOWS["publish"]
    assert publish[True] == {"push": {"tags": ["v*"]}}  # YAML takes `on` for true
    [check] = [step["run"] for step in steps(publish["jobs"]["version"]) if "run" in step]
    (tmp_path / "python").symlink_to(sys.executable)
    environment = os.environ | {"GITHUB_REF_NAME": tag, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-e", "-c", check], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode == 0) == (tag == f"v{VERSION}"), done.stderr
    assert done.returncode == 0 or f"got {tag}" in done.stderr


def test_what_the_tests_have_passed_is_published_by_the_one_job_that_may() -> None:
    jobs = WORKFLOWS["publish"]["jobs"]
    assert (jobs["ci"]["needs"], jobs["publish"]["needs"]) == ("version", "ci")
    assert jobs["ci"]["uses"] == "./.github/workflows/ci.yml"
    assert "workflow_call" in WORKFLOWS["ci"][True]
    assert [job["environment"] for _, job in JOBS if "id-token" in job.get("permissions", {})] == ["pypi"]
    assert all(workflow["permissions"] == {"contents": "read"} for workflow in WORKFLOWS.values())

    [built] = [step["with"] for step in steps(WORKFLOWS["ci"]["jobs"]["build"]) if "upload" in step.get("uses", "")]
    download, upload = steps(jobs["publish"])
    assert download["with"] == built == {"name": "dist", "path": "dist/"}
    assert upload["uses"].startswith("pypa/gh-action-pypi-publish@")
    assert {"run": "make dist"} in steps(WORKFLOWS["ci"]["jobs"]["build"])


def test_workflows_use_targets_that_exist_and_actions_of_a_major_version() -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    runs = [step["run"] for _, job in JOBS for step in steps(job) if "run" in step]
    named = {*re.findall(r"^make ([\w-]+)$", "\n".join(runs), re.MULTILINE)}
    assert {"check", "dist"} <= named <= {*targets}
    matrix = WORKFLOWS["ci"]["jobs"]["test"]["strategy"]["matrix"]["include"]
    assert {each["target"] for each in matrix} <= {*targets}
    used = [step["uses"] for _, job in JOBS for step in steps(job) if "uses" in step]
    assert all(re.fullmatch(r"[\w/-]+@(v\d+|release/v\d+)", action) for action in used), used
