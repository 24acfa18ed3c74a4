import runpy
from pathlib import Path

import pytest

from ddf_jax.errors import UserError
from ddf_jax.registered import Registry


def square(side: float, *, height: float = 1.0) -> float:
    return side * side * height


def any_shape(**options: float) -> dict[str, float]:
    return options


@pytest.fixture
def shapes() -> Registry:
    registry = Registry("shape")
    registry.register(square)
    return registry


def test_what_is_registered_is_made_with_its_options(shapes: Registry):
    assert shapes.make("square", {"side": 3.0}) == 9.0
    assert shapes.register(any_shape, "shape") is any_shape
    assert shapes.make("shape", {"any": 1}) == {"any": 1}
    assert (shapes.names(), shapes.names("sq*")) == (["shape", "square"], ["square"])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sqare", {}, "There is no shape named 'sqare'. Did you mean 'square'?"),
        ("circle", {}, "There is no shape named 'circle'. There are: square."),
        ("square", {"sid": 3.0}, "The shape 'square' has no option 'sid'. Did you mean 'side'?"),
        ("square", {"height": 3.0}, "The shape 'square' needs the option 'side', got height."),
    ],
)
def test_an_unknown_name_or_option_names_the_nearest(shapes: Registry, name: str, options: dict, message: str):
    with pytest.raises(UserError) as caught:
        shapes.make(name, options)
    assert str(caught.value) == message


def test_another_one_of_the_same_name_is_refused(shapes: Registry):
    with pytest.raises(UserError, match="A shape named 'square' is registered already; choose another name"):
        shapes.register(lambda side: side, "square")
    shapes.register(square)


@pytest.mark.parametrize("definition", ["def cube(side): return {0}", "class cube:\n    def volume(self): return {0}"])
def test_a_file_that_is_executed_again_replaces_what_it_registered(shapes: Registry, tmp_path: Path, definition: str):
    file, other = tmp_path / "shapes.py", tmp_path / "other.py"
    for number in (1, 2):
        file.write_text("@register\n" + definition.format(number))
        made = runpy.run_path(str(file), {"register": shapes.register})["cube"]
        assert shapes.get("cube") is made
    other.write_text(file.read_text())
    with pytest.raises(UserError, match="registered already"):
        runpy.run_path(str(other), {"register": shapes.register})
