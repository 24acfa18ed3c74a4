"""The documentation site, built from the repository's own pages and docstrings: `make docs`.

The source folder is the repository, so that relative links work here as they do there.
"""

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

import latex2mathml.converter
from docutils import nodes
from flax.nnx import Module
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config
from sphinx.ext.napoleon.docstring import GoogleDocstring
from sphinx.util import inspect, logging
from sphinx.util.inspect import stringify_signature

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import api_pages  # noqa: E402

project = "ddf-jax"
author = "The ddf-jax authors"
copyright = "the ddf-jax authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]

root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "docs/api/*.rst",
    "examples/README.md",
    "experiments/results/*.md",
    "experiments/results/*/*.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
]
exclude_patterns = [".*", "build", "dist", "runs"]

myst_heading_anchors = 4
highlight_language = "none"

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
maximum_signature_line_length = 80
add_module_names = False
toc_object_entries = False  # their list, copied into each page, takes most of the time

NAPOLEON: Any = Config(napoleon_numpy_docstring=False, napoleon_use_ivar=True)

suppress_warnings = ["myst.header"]  # tables of results have no second level
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]

html_theme = "furo"
html_title = "ddf-jax"
html_copy_source = False
html_show_sphinx = False
html_math_renderer = "mathml"
html_permalinks_icon = "#"
pygments_dark_style = "github-dark"
html_favicon = "static/icon.svg"
html_static_path = ["static"]
html_extra_path = ["redirect"]  # from the site's root to its front page
html_css_files = ["site.css"]


def google_style(app: Sphinx, what: Any, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Sections of Google's style as fields; not of attributes, whose first colon would end a type."""
    text = api_pages.restructured("\n".join(lines))
    is_value = what in ("attribute", "data", "property")
    lines[:] = text.splitlines() if is_value else GoogleDocstring(text, NAPOLEON, app, what, name, obj, options).lines()


class Default:
    """A default whose own text is no Python: a class or a function by its name, anything else as dots."""

    def __init__(self, value: Any):
        self.text = getattr(value, "__name__", "...")

    def __repr__(self) -> str:
        return self.text


def class_signature(app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: Any, returns: Any) -> Any:
    """Of a Flax module that of `__init__`, as its metaclass takes any arguments; of a dataclass without the types, as
    each field has its own."""
    if what != "class" or not (issubclass(obj, Module) or dataclasses.is_dataclass(obj)):
        return None
    own = inspect.signature(obj.__init__, bound_method=True)
    parameters = []
    for each in own.parameters.values():
        unwritten = each.default is not each.empty and "<" in repr(each.default)
        default = Default(each.default) if unwritten else each.default
        annotation = each.empty if dataclasses.is_dataclass(obj) else each.annotation
        parameters.append(each.replace(annotation=annotation, default=default))
    own = own.replace(parameters=parameters, return_annotation=own.empty)
    return stringify_signature(own, unqualified_typehints=True), None


def visit_math(self: Any, node: nodes.math | nodes.math_block) -> None:
    """Formulas as MathML, which browsers draw without a script."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    self.body.append(latex2mathml.converter.convert(node.astext(), display=display))
    raise nodes.SkipNode


def add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """Tables of links to pages become the navigation as well; the pages are plain Markdown without it."""
    if page not in CONTENTS:
        return
    folder = Path(page).parent
    for section in re.split(r"^(?=## )", source[0], flags=re.MULTILINE):
        title = re.match("## (.*)", section)
        links = re.findall(CONTENTS[page], section, re.MULTILINE)
        targets = [(ROOT / folder / link).resolve().relative_to(ROOT).with_suffix("").as_posix() for link in links]
        if title and title[1] == "Reference":
            targets.insert(0, "docs/api/index")
        if targets:
            caption = f":caption: {title[1]}\n" if title else ""
            entries = "\n".join(f"/{target}" for target in dict.fromkeys(targets))
            source[0] += f"\n\n```{{toctree}}\n:hidden:\n{caption}\n{entries}\n```\n"


CONTENTS = {
    "docs/index": r"^\| \[[^\]]*\]\(([^)#]*\.md)\)",
    "docs/reproducing": r"\]\((\.\./experiments/[^)#]*\.md)\)",
}


def check_reference(app: Sphinx, env: Any) -> None:
    """Every public name must have been described."""
    described = {*env.get_domain("py").objects}
    names = {
        api_pages.home(name).path for module in api_pages.public_modules() for name in api_pages.public_names(module)
    }
    if missing := sorted(names - {*described}):
        logging.getLogger(__name__).warning("not in the API reference: %s", ", ".join(missing))


def defining_module(app: Sphinx, module: str, name: str) -> str | None:
    """Where the source of a name is, which its package may only list."""
    try:
        found = api_pages.find(module, name.partition(".")[0])
    except LookupError:
        return None
    return found and found.module


def setup(app: Sphinx) -> None:
    api_pages.write_pages(ROOT / "docs" / "api")
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
    app.connect("source-read", add_contents)
    app.connect("viewcode-follow-imported", defining_module)
    app.connect("env-check-consistency", check_reference)
    app.connect("autodoc-process-signature", class_signature)
    app.connect("autodoc-process-docstring", google_style)
