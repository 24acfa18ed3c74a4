"""From the words of a command line to a command, or to one line that states what is wrong with them."""

import ast
import contextlib
import dataclasses
import difflib
import importlib
import inspect
import io
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_origin

import tyro

from ddf_jax.cli import help as help_pages
from ddf_jax.cli.command import Command
from ddf_jax.errors import RunError, UserError
from ddf_jax.registered import Named

COMMANDS: dict[str, str] = {
    "train": "ddf_jax.cli.train:TrainCommand",
    "launch": "ddf_jax.cli.launch:LaunchCommand",
    "evaluate": "ddf_jax.cli.evaluate:EvaluateCommand",
    "predict": "ddf_jax.cli.predict:PredictCommand",
    "detect": "ddf_jax.cli.detect:DetectCommand",
    "inspect": "ddf_jax.cli.inspect:InspectCommand",
    "upsample": "ddf_jax.cli.upsample:UpsampleCommand",
    "export": "ddf_jax.cli.export:ExportCommand",
    "serve": "ddf_jax.cli.serve:ServeCommand",
    "models": "ddf_jax.cli.models:ModelsCommand",
    "convert": "ddf_jax.cli.convert:ConvertCommand",
    "verify": "ddf_jax.cli.verify:VerifyCommand",
    "plan": "ddf_jax.cli.plan:PlanCommand",
    "kernels": "ddf_jax.cli.kernels:KernelsCommand",
    "bench": "ddf_jax.cli.bench:BenchCommand",
    "report": "ddf_jax.cli.report:ReportCommand",
}
"""Module and class of each command: one is imported when it is asked for."""

_HELP = {"-h", "--help"}

_ABOUT = """Train, evaluate and use networks with dynamic filters.

`ddf COMMAND --help` explains a command, `ddf --version` prints the version, and `--debug` gives errors their traceback.

Exit status: 0 done, 2 wrong use, 75 training was stopped by a signal and saved, 1 anything else.

Examples:
  ddf train digits
  ddf evaluate runs/digits
  ddf models 'ddf_*'"""


def parse(argv: Sequence[str]) -> Command:
    """The command that these words ask for. `--help` prints and exits.

    Raises:
        UserError: they ask for none; the message names the nearest.
    """
    name, *words = argv or [""]
    if name in _HELP:
        print(_overview())
        raise SystemExit(0)
    if name not in COMMANDS:
        raise UserError(
            f"{f'There is no command {name!r}' if name else 'A command is needed'}; the commands are "
            f"{', '.join(COMMANDS)}. `ddf --help` explains them."
        )
    if not _HELP.isdisjoint(itertools.takewhile("--".__ne__, words)):
        print(_help(name, words))
        raise SystemExit(0)
    return _launched(words) if name == "launch" else _command(name, words, *_defaults(name, words))


def _overview() -> str:
    first_lines = {name: (inspect.getdoc(_command_type(name)) or "").partition("\n")[0] for name in COMMANDS}
    about, end, examples = _ABOUT.partition("\nExamples:")
    rows = help_pages.table([help_pages.Item(*item) for item in first_lines.items()])
    return f"usage: ddf COMMAND ...\n\n{help_pages.prose(about)}\n\ncommands:\n{rows}\n{end}{examples}"


def _help(name: str, words: Sequence[str]) -> str:
    kind, (default, options) = _command_type(name), _defaults(name, words)
    about, config = inspect.getdoc(kind) or "", getattr(default, "recipe", getattr(default, "data", None))
    if _takes_recipe(kind):
        from ddf_jax.recipes import shipped_recipes

        about += f"\n\nShipped recipes: {', '.join(help_pages.families(shipped_recipes()))}."
    groups = help_pages.read_groups(lambda: _tyro(name, ["--help"], default, options))
    if config is None or not words[0].startswith("-"):
        return help_pages.page(name, about, groups, rest="-- COMMAND ..." if name == "launch" else "")
    first = "RECIPE" if _takes_recipe(kind) else "RUN"
    flags = {f"--{field}".replace("_", "-") for field in _fields(config)} if first == "RECIPE" else set()
    titles = {group.title for group in groups[1:] if group.title != "options"}
    hint = f"fields of the recipe (`ddf {name} {first} --help` explains them)"
    return help_pages.page(name, about, groups, collapsed=flags | titles, hint=hint)


def _launched(words: Sequence[str]) -> Command:
    """`ddf launch`, whose own words end at `--`."""
    end = [*words, "--"].index("--")
    of_command = tuple(words[end + 1 :])
    launched = _command("launch", words[:end], default=_command_type("launch")(of_command))
    if not of_command:
        raise UserError("`ddf launch` needs a command after `--`, such as: ddf launch --processes 2 -- train digits")
    if of_command[0] in COMMANDS and of_command[0] not in ("train", "evaluate"):
        raise UserError(f"`ddf launch` runs train or evaluate, whose processes work together, got {of_command[0]}.")
    parse(of_command)  # whose errors are shown once, not by each process
    return launched


def _command_type(name: str) -> Any:
    module, _, kind = COMMANDS[name].partition(":")
    return getattr(importlib.import_module(module), kind)


def _takes_recipe(kind: Any) -> bool:
    """Whether the command's first word is a RECIPE: its first two fields are then `source` and `recipe`."""
    return "recipe" in kind.__annotations__


def _defaults(name: str, words: Sequence[str]) -> tuple[Any, Mapping[str, Any]]:
    """The command before any option is read, where its first word has values for them; and the options of its model."""
    kind = _command_type(name)
    if name == "launch":
        return kind(()), {}
    if _takes_recipe(kind):
        recipe = _recipe(name, words)
        return kind(tyro.MISSING, recipe), recipe.model.options
    if "data" in kind.__annotations__:
        return kind(tyro.MISSING, _run_data(words)), {}
    return tyro.MISSING_NONPROP, {}


def _recipe(name: str, words: Sequence[str]) -> Any:
    """The recipe that the words after the command begin with: its values are the defaults of the other words."""
    from ddf_jax.recipes import find_recipe, shipped_recipes
    from ddf_jax.training.recipe import Recipe

    if words and not words[0].startswith("-"):
        return find_recipe(words[0])
    if _HELP.isdisjoint(words):
        shipped = ", ".join(shipped_recipes())
        raise UserError(f"`ddf {name}` needs a RECIPE first: {shipped}, or the path of a .py file.")
    return Recipe(name="RECIPE")


def _run_data(words: Sequence[str]) -> Any:
    """Likewise the data of the run whose folder the first word is."""
    from ddf_jax.data.config import DataConfig
    from ddf_jax.training.workdir import RunFolder

    if words and not words[0].startswith("-"):
        with contextlib.suppress(RunError):  # which the command explains, once its words are right
            return RunFolder(Path(words[0])).recipe().data
    elif words and _HELP.isdisjoint(words):
        raise UserError("`ddf evaluate` needs the RUN first, the folder of a run, and its options behind.")
    return DataConfig()


def _command(
    name: str, words: Sequence[str], default: Any = tyro.MISSING_NONPROP, options: Mapping[str, Any] | None = None
) -> Command:
    """The command of that name, as tyro reads it.

    Args:
        name: the command's.
        words: the words after it.
        default: the command before any word is read, where there is one.
        options: the mapping that words `NAME=VALUE` are added to.
    """
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            command, unknown = _tyro(name, words, default, options or {})
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(_unboxed(errors.getvalue())) from None
    if unknown:
        raise UserError(_unknown(name, command, unknown))
    return command


def _tyro(name: str, words: Sequence[str], default: Any, options: Mapping[str, Any]) -> tuple[Command, list[str]]:
    """The command, and the words that it does not know."""
    kind, registry = _command_type(name), _registry(options)
    return tyro.cli(kind, prog=f"ddf {name}", args=words, default=default, registry=registry, return_unknown_args=True)


def _registry(known: Mapping[str, Any]) -> tyro.constructors.ConstructorRegistry:
    """How tyro reads a mapping, words `NAME=VALUE`, each added to the known ones or replacing one of them; and names of
    what is registered."""
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def _(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
        if get_origin(info.type) is not Mapping:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs="*",
            metavar="NAME=VALUE [NAME=VALUE ...]",
            instance_from_str=lambda words: dict(known) | dict(map(_option, words)),
            is_instance=lambda value: isinstance(value, Mapping),
            str_from_instance=lambda options: [f"{name}={_written(value)}" for name, value in options.items()],
        )

    @registry.primitive_rule
    def _(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
        if info.type != Named:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="NAME",
            instance_from_str=lambda words: words[0],
            is_instance=lambda value: isinstance(value, str),
            str_from_instance=lambda name: [name],
        )

    return registry


def _option(word: str) -> tuple[str, Any]:
    """A number, numbers with commas, true or false (`width=64`, `blocks=1,2,1`), or else a string (`stem=small`)."""
    name, equals, text = word.partition("=")
    if not (name and equals):
        raise ValueError(f"an option must be NAME=VALUE, got {word!r}")
    try:
        value = ast.literal_eval(text.capitalize() if text in ("true", "false") else text)
    except (ValueError, SyntaxError):
        return name, text
    return name, tuple(value) if isinstance(value, list) else value


def _written(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _unknown(name: str, command: Command, words: Sequence[str]) -> str:
    options = [word.partition("=")[0] for word in words if word.startswith("-")]
    if not options:
        return f"`ddf {name}` takes no argument {words[0]!r}. `ddf {name} --help` lists its arguments."
    known = [f"--{field}".replace("_", "-") for field in _fields(command)]
    nearest = difflib.get_close_matches(options[0].replace("_", "-"), known, n=1, cutoff=0.0)[0]
    return f"`ddf {name}` has no option {options[0]}. The nearest is {nearest}; `ddf {name} --help` lists all."


def _fields(value: Any, prefix: str = "") -> Iterator[str]:
    """The options of a command: `workdir`, `optimizer.learning_rate`, …; a recipe's fields have no prefix."""
    for field in dataclasses.fields(value):
        item, marks = getattr(value, field.name), getattr(field.type, "__metadata__", ())
        if tyro.conf.Positional in marks:
            continue
        if dataclasses.is_dataclass(item):
            yield from _fields(item, "" if field.name == "recipe" else f"{prefix}{field.name}.")
        else:
            renamed = [mark.name for mark in marks if getattr(mark, "name", None)]
            yield prefix + (renamed[0] if renamed else field.name)


def _unboxed(message: str) -> str:
    """Tyro's explanation in one line: from the box that it draws, the first text below the title."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", message)
    lines = [line.strip(" │") for line in plain.splitlines()[1:]]
    texts = [
        list(group) for is_rule, group in itertools.groupby(lines, lambda line: set(line) <= set("─-╰╯")) if not is_rule
    ]
    return " ".join(texts[0])
