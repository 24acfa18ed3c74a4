"""The public names of the packages, read from their source, and the pages of the API reference that list them.

A package's names are those that it lists: `__all__`, or `from module import name as name`. Where it lists none, and of
a module that is no package, they are what is defined without an underscore: functions, classes, and constants with a
docstring.
"""

import ast
import dataclasses
import functools
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# A package with a list brings the modules that it lists, one without a list all of its modules.
PACKAGES = (
    "ddf_jax",
    "pallas_kernels",
    "ddf_jax.functional",
    "ddf_jax.layers",
    "ddf_jax.models",
    "ddf_jax.checkpoints",
    "ddf_jax.detection",
    "ddf_jax.analysis",
    "ddf_jax.data",
    "ddf_jax.training",
    "ddf_jax.recipes",
    "ddf_jax.capture",
    "ddf_jax.inspect",
    "ddf_jax.verify",
    "ddf_jax.plan",
    "ddf_jax.serving",
    "ddf_jax.registered",
    "ddf_jax.errors",
)

# Modules that users need and no package lists.
MODULES = (
    "ddf_jax.layers.initializers",
    "ddf_jax.layers.progress",
    "ddf_jax.models.blocks",
    "ddf_jax.models.depth_network",
    "ddf_jax.models.detection_networks",
    "ddf_jax.models.slots",
    "ddf_jax.models.stems",
    "pallas_kernels.ops.implementation",
)

# What is for the packages themselves. The command line has its own help, and a recipe's page is its header.
INTERNAL = (
    "ddf_jax.__main__",
    "ddf_jax.cli",
    "ddf_jax.dataclass_json",
    "ddf_jax.files",
    "ddf_jax.launcher",
    "ddf_jax.signals",
    "ddf_jax.torch_port",
    "ddf_jax.watch",
    "pallas_kernels.compat",
    "pallas_kernels.ops",
    "pallas_kernels.tuning",
)

Definition = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


@dataclasses.dataclass(frozen=True)
class Name:
    """A public name of a module."""

    module: str
    name: str
    kind: str  # function, class or data
    docstring: str | None
    value: str = ""  # of short constants
    defined_in: str = ""

    @property
    def path(self) -> str:
        return f"{self.module}.{self.name}"


_MARKUP = re.compile(
    r"""(?P<kept>^\ *\.\.\ math::(\n\s*\n)?.*?(?=\n\s*\n|\Z) | ^\ *>>>.*?(?=\n\s*\n|\Z) | ``.+?`` | :[\w:]+:`[^`]+`)
    | `(?P<code>[^`]+)` | (?P<special>\| | \*(?=\w) | (?<=:\ )[A-Z](?=\.$))""",
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)


def restructured(text: str) -> str:
    """A docstring, where code is in single backticks as in Markdown, as reStructuredText with links to our names.

    Escaped are what would be a substitution, an emphasis, or a list that begins with a letter and a dot.
    """

    def replacement(match: re.Match[str]) -> str:
        if match["kept"]:
            return match["kept"]
        if match["special"]:
            return "\\" + match["special"]
        after = "\\ " if match.string[match.end() :][:1].isalnum() else ""
        code = " ".join(match["code"].split())
        return (f":py:obj:`{code}`" if re.fullmatch(r"[A-Za-z_][\w.]*", code) else f"``{code}``") + after

    return _MARKUP.sub(replacement, text)


def summary(docstring: str | None) -> str:
    """The first sentence of a docstring."""
    paragraph = " ".join((docstring or "").strip().partition("\n\n")[0].split())
    sentence, dot, _ = paragraph.partition(". ")
    return restructured(sentence + dot.strip())


def modules_of(package: str) -> list[str]:
    """All modules below a package, itself included."""
    folder = ROOT.joinpath(*package.split("."))
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    return [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]


def file_of(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.exists()), None)


def is_package(module: str) -> bool:
    return file_of(module) == ROOT.joinpath(*module.split("."), "__init__.py")


@functools.cache
def tree(module: str) -> ast.Module:
    file = file_of(module)
    assert file, module
    return ast.parse(file.read_text())


def _statements(module: str) -> list[ast.stmt]:
    """The statements of a module, those under `if TYPE_CHECKING` included."""
    found: list[ast.stmt] = []
    for statement in tree(module).body:
        found += statement.body if isinstance(statement, ast.If) else [statement]
    return found


def _defined(statement: ast.stmt) -> str:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return statement.name
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return targets[0].id if isinstance(targets[0], ast.Name) else ""


def listed(module: str) -> list[str]:
    """The names that a module lists as its own."""
    imports = [statement for statement in _statements(module) if isinstance(statement, ast.ImportFrom)]
    for statement in _statements(module):
        if _defined(statement) == "__all__" and isinstance(statement, ast.Assign):
            return ast.literal_eval(statement.value)
    in_package = is_package(module)
    return [a.name for statement in imports for a in statement.names if in_package and a.name == a.asname]


def find(module: str, name: str) -> Name | None:
    """A name where it is defined; None if it is a module."""
    statements = _statements(module)
    for statement, following in zip(statements, [*statements[1:], ast.Pass()], strict=True):
        if isinstance(statement, ast.ImportFrom) and name in [alias.asname or alias.name for alias in statement.names]:
            assert statement.module
            return None if file_of(f"{statement.module}.{name}") else find(statement.module, name)
        if _defined(statement) != name:
            continue
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            kind = "class" if isinstance(statement, ast.ClassDef) else "function"
            return Name(module, name, kind, ast.get_docstring(statement))
        value = getattr(following, "value", None)
        docstring = value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None
        assigned = getattr(statement, "value", None)
        text = ast.unparse(assigned) if assigned else ""
        return Name(module, name, "data", docstring and textwrap.dedent(docstring), text if len(text) < 100 else "")
    raise LookupError(f"{module} has no {name}")


@functools.cache
def public_names(module: str) -> tuple[Name, ...]:
    """The public names of a module, in the order of its list or of their definitions."""
    if names := listed(module):
        found = [find(module, name) for name in names]
    else:
        found = [find(module, name) for name in map(_defined, _statements(module)) if name and name[0] != "_"]
        found = [name for name in found if name and (name.kind != "data" or name.docstring)]
    return tuple(dataclasses.replace(name, module=module, defined_in=name.module) for name in found if name)


@functools.cache
def homes() -> dict[tuple[str, str], Name]:
    """By where a name is defined: the one of its public paths that the reference describes it under."""
    names = [name for module in public_modules() for name in public_names(module)]
    names.sort(key=lambda name: (name.module == name.defined_in, name.module.count("."), len(name.module)))
    return {(name.defined_in, name.name): name for name in names}


def home(name: Name) -> Name:
    """The same name on the page that describes it: of the module that defines it, or the innermost that lists it."""
    return homes()[name.defined_in, name.name]


@functools.cache
def public_modules() -> tuple[str, ...]:
    """The modules with a page in the reference."""
    return tuple(sorted({*MODULES, *(module for package in PACKAGES for module in _with_its_modules(package))}))


def _with_its_modules(package: str) -> Iterator[str]:
    yield package
    if names := listed(package):
        yield from (f"{package}.{name}" for name in names if find(package, name) is None)
    elif is_package(package) and package != "ddf_jax.recipes":
        inside = [module for module in modules_of(package) if module.rpartition(".")[0] == package]
        for module in inside:
            yield from _with_its_modules(module)


def write_pages(folder: Path) -> None:
    """Writes a page for each package, with its modules as sections."""
    sections: dict[str, list[str]] = {}
    for module in [*PACKAGES, *public_modules()]:
        of_page = sections.setdefault(_page_of(module), [])
        if module not in of_page:
            of_page.append(module)
    pages = {folder / f"{page}.rst": "\n\n".join(map(_section, modules)) for page, modules in sections.items()}
    pages[folder / "index.rst"] = _index([*sections])
    folder.mkdir(exist_ok=True)
    for stale in {*folder.glob("*.rst")} - {*pages}:
        stale.unlink()
    for path, text in pages.items():
        if not path.exists() or path.read_text() != text:  # what has not changed is not built again
            path.write_text(text)


def _page_of(module: str) -> str:
    """The innermost of `PACKAGES` that a module lies in."""
    return module if module in PACKAGES else _page_of(module.rpartition(".")[0])


def _index(pages: list[str]) -> str:
    rows = [f"   * - :doc:`{page}`\n     - {summary(ast.get_docstring(tree(page)))}" for page in pages]
    table = "\n".join([".. list-table::\n   :class: names\n", *rows])
    contents = "\n".join([".. toctree::\n   :hidden:\n", *(f"   {page}" for page in pages)])
    return f"{INDEX}\n\n{table}\n\n{contents}\n"


INDEX = """API reference
=============

Every public name, from its docstring. B, H, W, C, G, K, T and S are those of the :doc:`glossary </docs/glossary>`."""


def _section(module: str) -> str:
    """A module: its docstring, a table of its names, and each of them."""
    names = public_names(module)
    parts = [module, ("=" if module in PACKAGES else "-") * len(module), f"\n.. automodule:: {module}\n"]
    if names:
        rows = (f"   * - :py:obj:`~{home(name).path}`\n     - {summary(name.docstring)}" for name in names)
        parts += [".. list-table::\n   :class: names\n", *rows]
    return "\n".join([*parts, *(f"\n{_directive(name)}" for name in names if home(name) == name)]) + "\n"


def _directive(name: Name) -> str:
    if name.kind == "data":
        options = [f"   :module: {name.module}", *([f"   :value: {name.value}"] if name.value else [])]
        docstring = textwrap.indent(restructured(name.docstring or "").strip(), "   ")
        return "\n".join([f".. py:data:: {name.name}", *options, "", docstring])
    options = "\n   :members:\n   :special-members: __call__" if name.kind == "class" else ""
    return f".. auto{name.kind}:: {name.path}{options}"
