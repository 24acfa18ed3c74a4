"""The site of the documentation: its reference, contents, pictures and commands."""

import ast
import fnmatch
import functools
import importlib.util
import itertools
import re
import shlex
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ddf_jax.analysis.comparison import NAMES
from ddf_jax.cli.arguments import COMMANDS, parse
from ddf_jax.cli.models import ModelsCommand
from ddf_jax.cli.verify import VerifyCommand
from ddf_jax.models import list_models
from ddf_jax.verify.upsamplers import UPSAMPLERS
from tests.docs.pages import EXAMPLES, PAGES, blocks, program
from tests.imports import FILES, ROOT, lies_in


def load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec
    assert spec.loader
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


api = load(ROOT / "docs" / "api_pages.py")


@functools.cache
def reference() -> dict[str, Any]:
    """The public names, by their paths: to read all files takes long."""
    return {f"{module}.{name.name}": name for module in api.public_modules() for name in api.public_names(module)}


def test_every_module_is_in_the_reference_or_internal() -> None:
    public, listing = {*api.public_modules()}, {name.defined_in for name in reference().values()}
    for module in FILES:
        if lies_in(module, "ddf_jax", "pallas_kernels") and not lies_in(module, *api.INTERNAL, "ddf_jax.recipes"):
            around = module.rpartition(".")[0]
            assert module in public | listing or api.listed(around), f"{module}: add it to docs/api_pages.py"


def test_every_public_name_and_module_has_a_docstring() -> None:
    assert len(reference()) > 800
    assert not [path for path, name in reference().items() if not (name.docstring or "").strip()]
    assert not [module for module in api.public_modules() if not ast.get_docstring(api.tree(module))]


def test_the_lists_of_the_packages_are_in_the_reference() -> None:
    import ddf_jax
    import ddf_jax.data.transforms as transforms

    for package in (ddf_jax, transforms):
        assert {f"{package.__name__}.{name}" for name in package.__all__} <= {*reference()}
    assert {"ddf_jax.layers.DDF", "pallas_kernels.dynamic_filter", "pallas_kernels.aot.DEVICES"} <= {*reference()}
    assert api.home(reference()["ddf_jax.Recipe"]).path == "ddf_jax.training.recipe.Recipe"


def test_a_name_without_a_docstring_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text(
        '"""P."""\nfrom package.a import f as f\nfrom package import b as b\n'
    )
    (tmp_path / "package" / "a.py").write_text("def f():\n    pass\n")
    (tmp_path / "package" / "b.py").write_text('C = 1\n"""A constant. More."""\nd = 2\n\nclass _E:\n    pass\n')
    monkeypatch.setattr(api, "ROOT", tmp_path)
    [function], [constant] = api.public_names.__wrapped__("package"), api.public_names.__wrapped__("package.b")
    assert (function.path, function.defined_in, function.docstring) == ("package.f", "package.a", None)
    assert (constant.path, api.summary(constant.docstring)) == ("package.b.C", "A constant.")


def imported(source: str) -> Iterator[tuple[str, str]]:
    """Module and name of what a program imports from the packages."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and lies_in(node.module, "ddf_jax", "pallas_kernels"):
            yield from ((node.module, alias.name) for alias in node.names)


@pytest.mark.parametrize("file", [*PAGES, *EXAMPLES], ids=lambda file: file.name)
def test_what_a_page_or_an_example_imports_is_in_the_reference(file: Path) -> None:
    for module, name in imported(file.read_text() if file.suffix == ".py" else program(file)):
        found = None if api.file_of(f"{module}.{name}") else api.find(module, name)
        known = f"{module}.{name}" in api.public_modules() if found is None else (found.module, name) in api.homes()
        assert known or lies_in(module, "ddf_jax.recipes"), f"{module}.{name}"


def test_every_page_is_in_the_contents() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    linked = {(ROOT / "docs" / link).resolve() for link in re.findall(r"^\| \[[^\]]*\]\(([^)]*)\)", index, re.M)}
    pages = {page for page in PAGES if page.name not in ("README.md", "index.md")}
    assert pages <= linked


@pytest.mark.parametrize("page", [*PAGES, *ROOT.glob("experiments/results/**/*.md")], ids=lambda page: page.name)
def test_every_picture_is_there_and_has_a_text(page: Path) -> None:
    for text, file in re.findall(r"!\[(.*?)\]\((.*?)\)", page.read_text(), re.S):
        assert len(text) > 10, file
        assert (page.parent / file).exists(), file


PROGRAMS = ("ddf", "make", "pip", "python")

# Recipes of the reader's own.
DIGITS = "from ddf_jax.recipes.digits import recipe as recipe"
REGRESSION = """
from ddf_jax import Recipe
from tests.ddf_jax.training.regression import Regression

recipe = Recipe("brightness", task=Regression())
"""


def commands(page: str) -> Iterator[list[str]]:
    """The words of each simple command of ours in a page, in its blocks of shell commands and within its lines."""
    shell = "".join(text for language, text, _ in blocks(page) if language in ("", "sh"))
    prose = re.sub(r"^ *```.*?^ *```$", "", page, flags=re.M | re.S).replace("\n", " ")
    lines = re.findall(rf"`((?:\S*/)?(?:{'|'.join(PROGRAMS)}) [^`]*)`", prose)
    for line in [*shell.replace("\\\n", " ").splitlines(), *lines]:
        if not re.search(rf"\b({'|'.join(PROGRAMS)}) ", line):
            continue
        lexer = shlex.shlex(line.strip().removeprefix("$ "), posix=True, punctuation_chars="|&;>")
        lexer.whitespace_split = True
        for is_operator, group in itertools.groupby(lexer, lambda word: word in ("|", "&&", ";", ">")):
            words = [word.rstrip("…") for word in group if not re.fullmatch(r"[A-Z_]+=\S+", word)]
            if not is_operator and words and Path(words[0]).name in PROGRAMS:
                yield [Path(words[0]).name, *words[1:]]


def named(command: ModelsCommand | VerifyCommand) -> list[str]:
    """What the command's pattern names."""
    tables = isinstance(command, ModelsCommand) and command.published
    return fnmatch.filter(NAMES if tables else [*list_models(), *UPSAMPLERS], command.pattern)


def test_the_commands_of_the_pages_can_be_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    found = [command for page in PAGES if page.name != "CHANGELOG.md" for command in commands(page.read_text())]
    for name, *words in dict.fromkeys(map(tuple, found)):
        for word in words:
            if re.fullmatch(r"\w+\.py", word):
                Path(word).write_text(REGRESSION if word == "brightness.py" else DIGITS)
        match name, words:
            case "ddf", [command] if command in COMMANDS or command in ("--help", "--version"):
                pass
            case "ddf", _ if "--help" not in words:
                command = parse(["digits" if word in ("RECIPE", "NAME") else word for word in words])
                assert not isinstance(command, ModelsCommand | VerifyCommand) or named(command), words
            case "make", _:
                assert {word for word in words if "=" not in word} <= {*targets}, words
            case "pip", _:
                assert {*re.findall(r"\[(\w+)\]", " ".join(words))} <= {*extras}, words
            case "python", ["-m", module, *_] if not module.endswith("."):
                assert importlib.util.find_spec(module), words
            case "python", [file, *_] if "/" in file:
                assert (ROOT / file).exists(), words
    seen = Counter(name for name, *_ in found)
    assert seen["ddf"] > 120, seen
    assert min(seen[name] for name in PROGRAMS) >= 15, seen
