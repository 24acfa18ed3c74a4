"""Names for functions and classes that a recipe refers to, so that `recipe.json` can record them."""

import difflib
import fnmatch
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from ddf_jax.errors import UserError

Entry = TypeVar("Entry", bound=Callable[..., Any])

Named = str | Callable[..., Any]
"""A name, or in Python the function or class itself."""


class Registry:
    """Functions or classes of one kind by name.

    Args:
        kind: what they are, in errors: "model", "transform".
        entries: those that have a name from the start.
    """

    def __init__(self, kind: str, entries: Mapping[str, Callable[..., Any]] | None = None):
        self.kind = kind
        self.entries: dict[str, Callable[..., Any]] = dict(entries or {})

    def register(self, entry: Entry, name: str | None = None) -> Entry:
        """Registers a function or a class, under its own name if none is given, and returns it: a decorator.

        A file that is executed again, such as a recipe, replaces what it registered the first time.

        Raises:
            UserError: another function or class has the name.
        """
        if not callable(entry):
            raise UserError(f"A {self.kind} must be a function or a class, got {entry!r}.")
        name = name or entry.__name__
        known = self.entries.get(name)
        if known is not None and known is not entry and (_origin(known) is None or _origin(known) != _origin(entry)):
            raise UserError(f"A {self.kind} named {name!r} is registered already; choose another name.")
        self.entries[name] = entry
        return entry

    def name(self, value: Named) -> str:
        """The name as it is; of a function or a class its own, under which it is registered where it was not."""
        if isinstance(value, str):
            return value
        known = [name for name, entry in self.entries.items() if entry is value]
        if known:
            return known[0]
        if not getattr(value, "__name__", "<").isidentifier():
            raise UserError(f"A {self.kind} must be a function or a class with a name, got {value!r}.")
        self.register(value)
        return value.__name__

    def names(self, pattern: str = "*") -> list[str]:
        """The names that a shell-style pattern matches, sorted."""
        return sorted(fnmatch.filter(self.entries, pattern))

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def get(self, name: Named) -> Callable[..., Any]:
        """The function or class of that name.

        Raises:
            UserError: nothing has the name; the message lists the nearest ones.
        """
        known = self.name(name)
        if known not in self.entries:
            raise UserError(f"There is no {self.kind} named {known!r}.{nearest(known, self.entries)}")
        return self.entries[known]

    def make(self, name: str, options: Mapping[str, Any]) -> Any:
        """What the function or class of that name returns for these options.

        Raises:
            UserError: the name or an option is unknown, or a required option is missing.
        """
        entry = self.get(name)
        parameters = inspect.signature(entry).parameters
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            for key in options:
                if key not in parameters:
                    raise UserError(f"The {self.kind} {name!r} has no option {key!r}.{nearest(key, parameters)}")
        for key, parameter in parameters.items():
            is_variable = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
            if parameter.default is parameter.empty and not is_variable and key not in options:
                raise UserError(
                    f"The {self.kind} {name!r} needs the option {key!r}, got {', '.join(options) or 'none'}."
                )
        return entry(**options)


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of an error about an unknown name: those that it may have meant, or else all there are.

    >>> nearest("resnet5", ["resnet18", "resnet50"])
    " Did you mean 'resnet50' or 'resnet18'?"
    >>> nearest("vit", ["resnet50"])
    ' There are: resnet50.'
    """
    names = sorted(names)
    matches = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if matches:
        return f" Did you mean {' or '.join(map(repr, matches))}?"
    return f" There are: {', '.join(names)}." if names else " There are none."


def _origin(entry: Callable[..., Any]) -> tuple[str, str] | None:
    """The file and the qualified name of a definition; None where no code shows the file."""
    parts = vars(entry).values() if isinstance(entry, type) else [entry]
    codes = (getattr(inspect.unwrap(part), "__code__", None) for part in parts if inspect.isfunction(part))
    files = [code.co_filename for code in codes if code and not code.co_filename.startswith("<")]
    return (files[0], entry.__qualname__) if files else None
