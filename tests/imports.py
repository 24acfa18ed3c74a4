"""What the files of this project import, read from their syntax trees."""

import ast
import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("pallas_kernels", "ddf_jax", "experiments")


@dataclasses.dataclass(frozen=True)
class Import:
    """One imported module."""

    module: str
    lazy: bool = False  # within a function


def module_name(file: Path) -> str:
    """`ddf_jax/layers/__init__.py` is `ddf_jax.layers`."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(file): file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))}


def walk(tree: ast.AST, lazy: bool = False) -> Iterator[Import]:
    """Every import of the tree; `from package import file` imports the file."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            assert node.module
            for alias in node.names:
                file = f"{node.module}.{alias.name}"
                yield Import(file if file in FILES else node.module, lazy)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (Import(str(name.value), lazy) for name in node.args if isinstance(name, ast.Constant))
        yield from walk(node, lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))


@functools.cache
def imports_of(module: str) -> tuple[Import, ...]:
    return tuple(walk(ast.parse(FILES[module].read_text())))


def lies_in(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)
