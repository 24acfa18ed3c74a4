"""Which package may import which: one table, held against the syntax tree of every file and against `sys.modules`."""

import ast
import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = ("pallas_kernels", "ddf_jax", "experiments", "tests")


@dataclasses.dataclass(frozen=True)
class Rule:
    """What the files of a package may import beside the standard library and their own package."""

    imports: frozenset[str] = frozenset()
    lazily: frozenset[str] = frozenset()  # only within a function: what is optional, or would be a cycle


def rule(imports: str = "", lazily: str = "") -> Rule:
    return Rule(frozenset(imports.split()), frozenset(lazily.split()))


# The longest entry that a file's module starts with is its rule.
RULES = {
    "pallas_kernels": rule("jax numpy"),
    "pallas_kernels.aot": rule("jax numpy", lazily="jaxlib.mlir jaxlib.triton triton"),
    "ddf_jax": rule(),
    "ddf_jax.files": rule("ddf_jax.errors"),
    "ddf_jax.functional": rule("jax flax numpy pallas_kernels"),
    "ddf_jax.layers": rule("jax flax numpy pallas_kernels ddf_jax.functional"),
    "ddf_jax.checkpoints": rule("jax flax numpy safetensors", lazily="ddf_jax.models torch"),
    "ddf_jax.models": rule("jax flax pallas_kernels ddf_jax.functional ddf_jax.layers", lazily="ddf_jax.checkpoints"),
    "ddf_jax.analysis": rule("jax flax numpy pallas_kernels ddf_jax.layers ddf_jax.models"),
    "ddf_jax.data": rule("numpy PIL absl grain h5py sklearn tensorflow_datasets"),
    "ddf_jax.training": rule(
        "jax flax numpy optax orbax matplotlib tensorboardX tqdm ddf_jax.errors ddf_jax.files ddf_jax.functional "
        "ddf_jax.models ddf_jax.data",
        lazily="pallas_kernels",
    ),
    "ddf_jax.recipes": rule("ddf_jax.data ddf_jax.training"),
    "ddf_jax.capture": rule("jax flax"),
    "ddf_jax.torch_port": rule("torch"),
    "ddf_jax.verify": rule(
        "jax flax numpy optax matplotlib tqdm ddf_jax.capture ddf_jax.layers ddf_jax.models ddf_jax.checkpoints",
        lazily="ddf_jax.torch_port torch",
    ),
    "ddf_jax.verify.observe_torch": rule("numpy torch ddf_jax.torch_port ddf_jax.verify"),
    "ddf_jax.inspect": rule("jax flax numpy matplotlib ddf_jax.capture ddf_jax.data ddf_jax.models ddf_jax.training"),
    "ddf_jax.plan": rule("jax ddf_jax.data ddf_jax.training pallas_kernels"),
    "ddf_jax.cli": rule(
        "jax flax numpy tyro ddf_jax.analysis ddf_jax.checkpoints ddf_jax.data ddf_jax.files ddf_jax.inspect "
        "ddf_jax.models ddf_jax.plan ddf_jax.recipes ddf_jax.training ddf_jax.verify pallas_kernels"
    ),
    "experiments": rule("jax flax numpy optax ddf_jax pallas_kernels", lazily="torch"),
    "experiments.depth": rule("jax numpy PIL ddf_jax experiments.compare"),
    "experiments.plans": rule("jax ddf_jax experiments.benchmarks experiments.reports pallas_kernels"),
    "experiments.tables": rule("matplotlib ddf_jax"),
    "experiments.benchmarks.gpu_torch": rule("numpy torch experiments.benchmarks pallas_kernels"),
    "experiments.benchmarks.torch_unfold": rule("numpy torch pallas_kernels"),
}


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(file): file for package in OURS[:-1] for file in sorted((ROOT / package).rglob("*.py"))}


def imported_modules(tree: ast.AST, within_function: bool = False) -> Iterator[tuple[str, bool]]:
    """Every module that is imported anywhere in the tree, and whether only when a function is called."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, within_function) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write the import in full, as all others are"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in FILES else node.module, within_function
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from ((str(name.value), True) for name in node.args if isinstance(name, ast.Constant))
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from imported_modules(node, within_function or is_function)


def covers(names: frozenset[str], module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


def rule_of(module: str) -> tuple[str, Rule]:
    package = max((name for name in RULES if covers(frozenset({name}), module)), key=len)
    return package, RULES[package]


@pytest.mark.parametrize("module", FILES)
def test_a_file_imports_only_what_lies_below_it(module):
    package, allowed = rule_of(module)
    for imported, lazily in imported_modules(ast.parse(FILES[module].read_text())):
        if imported.split(".")[0] in sys.stdlib_module_names or covers(frozenset({package}), imported):
            continue
        fits = covers(allowed.imports, imported) or (lazily and covers(allowed.lazily, imported))
        assert fits, f"{module} imports {imported}, which {package} may not{'' if lazily else ' at its top'}: {allowed}"


def test_nothing_imports_the_experiments_or_the_tests():
    for module, file in FILES.items():
        above = {"tests"} if module.startswith("experiments") else {"experiments", "tests"}
        for imported, _ in imported_modules(ast.parse(file.read_text())):
            assert imported.split(".")[0] not in above, f"{module} imports {imported}"


def test_what_needs_torch_is_not_collected_where_torch_may_be_missing(pytestconfig):
    ignored = {option.removeprefix("--ignore=") for option in pytestconfig.getini("addopts")}
    skipped = {*pytestconfig.getini("norecursedirs")}
    for file in FILES.values():
        path = file.relative_to(ROOT)
        imports_torch = ("torch", False) in [
            (name.split(".")[0], lazily) for name, lazily in imported_modules(ast.parse(file.read_text()))
        ]
        assert not imports_torch or path.as_posix() in ignored or skipped & {*path.parts}, path


def test_the_walk_sees_every_form_of_import():
    source = """
import a.b, c
from d import e
class F:
    from g import h
def i():
    import j
    return importlib.import_module("k.l"), lambda: __import__
if TYPE_CHECKING:
    from ddf_jax import models
"""
    assert list(imported_modules(ast.parse(source))) == [
        ("a.b", False),
        ("c", False),
        ("d", False),
        ("g", False),
        ("j", True),
        ("k.l", True),
        ("ddf_jax.models", False),
    ]


def modules_after(source: str, tmp_path: Path) -> set[str]:
    """Top-level names in `sys.modules` of a fresh interpreter that ran `source`.

    It finds an empty `tensorflow`, so that whoever imports it is seen, and no `torch`.
    """
    (tmp_path / "tensorflow.py").touch()
    (tmp_path / "torch.py").write_text("raise ImportError('not installed')")
    source = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n{source}\nprint(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert result.returncode == 0, result.stderr
    return {name.split(".")[0] for name in result.stdout.split()}


def test_pallas_kernels_brings_nothing_but_jax_and_numpy(tmp_path):
    base = modules_after("import jax, jax.numpy, numpy, jax.experimental.pallas", tmp_path)
    loaded = modules_after("import pallas_kernels, pallas_kernels.ops.arg_specs", tmp_path)
    assert loaded - base - set(sys.stdlib_module_names) == {"pallas_kernels"}


def test_ddf_jax_needs_no_torch_and_imports_no_tensorflow(tmp_path):
    """All of its modules, those that speak to PyTorch excepted."""
    modules = [name for name in FILES if name.startswith("ddf_jax") and "torch" not in rule_of(name)[1].imports]
    loaded = modules_after(f"import {', '.join(modules)}", tmp_path)
    assert "ddf_jax" in loaded
    assert "tensorflow" not in loaded
