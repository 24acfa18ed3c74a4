"""Forward hooks: which calls they see, what they change, and that nothing of them remains."""

import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddf_jax.capture import capture, hook_calls, replace, submodules
from ddf_jax.errors import UserError
from ddf_jax.models import create


class Inherits(nnx.Linear):
    """Inherits its `__call__`."""


class Extends(nnx.Linear):
    """Calls that of its base class."""

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        return super().__call__(inputs, out_sharding) + 1


class Adds(nnx.Module):
    def __call__(self, x: jax.Array, *, other: jax.Array) -> jax.Array:
        return x + other


class Nested(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.first = nnx.Linear(2, 2, rngs=rngs)
        self.rest: Any = nnx.List([Inherits(2, 2, rngs=rngs), nnx.Sequential(Extends(2, 2, rngs=rngs), jnp.tanh)])
        self.add = Adds()

    def __call__(self, x: jax.Array) -> jax.Array:
        first = self.first(x)
        for layer in self.rest:
            x = layer(x)
        return self.add(x, other=first)


NAMES = ["first", "rest.0", "rest.1.layers.0", "rest.1", "add"]  # in the order of their outputs
X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)), jnp.float32)


@pytest.fixture
def model() -> Nested:
    return Nested()


@pytest.fixture(autouse=True)
def classes_are_as_before() -> Any:
    kinds = (nnx.Linear, Inherits, Extends, Adds, Nested, nnx.Sequential)
    before = [vars(kind).get("__call__") for kind in kinds]
    yield
    assert [vars(kind).get("__call__") for kind in kinds] == before


def test_every_submodule_is_captured_by_its_name(model: Nested):
    with capture(model) as activations:
        y = model(X)
    assert list(activations) == NAMES
    assert set(NAMES) == submodules(model).keys()
    np.testing.assert_array_equal(activations["first"], model.first(X))
    np.testing.assert_array_equal(activations["rest.0"], model.rest[0](X))
    np.testing.assert_array_equal(activations["rest.1.layers.0"], model.rest[1].layers[0](model.rest[0](X)))
    np.testing.assert_array_equal(activations["add"], y)
    np.testing.assert_array_equal(model(X), y)
    assert list(activations) == NAMES  # a call behind the block is not captured


def test_only_the_named_submodules_are_captured(model: Nested):
    with capture(model, ["rest.1", "first"]) as activations:
        model(X)
    assert list(activations) == ["first", "rest.1"]


def test_every_call_goes_through_a_hook_once(model: Nested):
    calls = []

    def count(name: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return call(*args, **kwargs)

    with hook_calls(model, count):
        model(X)
        model.first(X)
        Nested()(X)  # another model
    assert calls == ["first", "rest.0", "rest.1", "rest.1.layers.0", "add", "first"]


@pytest.mark.parametrize("name", ["rest.0", "rest.1.layers.0", "add"])
def test_a_replacement_reaches_what_follows(model: Nested, name: str):
    with capture(model) as usual:
        model(X)
    with replace(model, {name: lambda y: 2 * y}), capture(model) as changed:
        model(X)
    for other in NAMES[: NAMES.index(name)]:
        np.testing.assert_array_equal(changed[other], usual[other])
    np.testing.assert_array_equal(changed[name], 2 * usual[name])
    if name != "add":
        assert not np.array_equal(changed["add"], usual["add"])


def test_inner_blocks_see_what_outer_blocks_return_and_outlive_none(model: Nested):
    usual = model.first(X)
    with replace(model, {"first": lambda y: y + 1}):
        with replace(model, {"first": lambda y: 2 * y}):
            np.testing.assert_array_equal(model.first(X), 2 * (usual + 1))
        np.testing.assert_array_equal(model.first(X), usual + 1)
    np.testing.assert_array_equal(model.first(X), usual)


@pytest.mark.parametrize("where", ["in the block", "in a submodule"])
def test_an_error_leaves_nothing_behind(model: Nested, where: str):
    usual = model(X)

    def fail(y: jax.Array) -> jax.Array:
        raise RuntimeError("in a submodule")

    def run() -> None:
        with replace(model, {"rest.0": fail}):
            if where == "in a submodule":
                model(X)
            raise RuntimeError("in the block")

    with pytest.raises(RuntimeError, match=where):
        run()
    np.testing.assert_array_equal(model(X), usual)


def test_two_models_of_the_same_classes_are_told_apart(model: Nested):
    other = Nested()
    with capture(model) as first, capture(other, ["first"]) as second:
        model(X)
        other(2 * X)
    np.testing.assert_array_equal(first["first"], model.first(X))
    np.testing.assert_array_equal(second["first"], other.first(2 * X))


def test_two_threads_with_one_model_do_not_meet(model: Nested):
    usual = model(X)
    inside, done = threading.Barrier(2, timeout=60), threading.Barrier(2, timeout=60)
    found: dict[str, Any] = {}

    def double() -> None:
        with replace(model, {"add": lambda y: 2 * y}):
            inside.wait()
            found["double"] = model(X)
            done.wait()

    thread = threading.Thread(target=double)
    with capture(model) as activations:
        thread.start()
        inside.wait()
        done.wait()
        assert not activations
    thread.join()
    np.testing.assert_array_equal(found["double"], 2 * usual)
    # The thread whose block ends last still has its hooks.
    with capture(model) as activations:
        thread = threading.Thread(target=lambda: found.update(plain=model(X)))
        thread.start()
        thread.join()
        assert not activations
        model(X)
    assert list(activations) == NAMES
    np.testing.assert_array_equal(found["plain"], usual)


def test_blocks_of_two_threads_may_end_in_any_order(model: Nested):
    entered, left = threading.Event(), threading.Event()

    def first_in_first_out() -> None:
        with capture(model):
            entered.set()
            left.wait(60)

    thread = threading.Thread(target=first_in_first_out)
    thread.start()
    entered.wait(60)
    with capture(model) as activations:
        left.set()
        thread.join()
        model(X)
    assert list(activations) == NAMES


def test_activations_and_gradients_of_a_traced_model(model: Nested):
    structure, variables = nnx.split(model)

    @jax.jit
    def run(variables: nnx.State, shift: jax.Array) -> Any:
        def loss(shift: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
            merged = nnx.merge(structure, variables)
            with replace(merged, {"rest.0": lambda y: y + shift}), capture(merged, ["rest.0"]) as activations:
                return merged(X).sum(), activations

        return jax.grad(loss, has_aux=True)(shift)

    gradient, activations = run(variables, jnp.zeros((3, 2)))
    hidden = model.rest[0](X)
    np.testing.assert_allclose(activations["rest.0"], hidden, rtol=1e-6)
    np.testing.assert_allclose(gradient, jax.grad(lambda y: model.rest[1](y).sum())(hidden), rtol=1e-5)


def test_modules_that_are_merged_within_a_block_are_not_hooked(model: Nested):
    with capture(model) as activations:
        nnx.jit(lambda merged: merged(X))(model)
        nnx.merge(*nnx.split(model))(X)
    assert not activations


@pytest.mark.parametrize(
    "block", [lambda model: capture(model, ["rest.2"]), lambda model: replace(model, {"rest.2": abs})]
)
def test_an_unknown_name_is_refused_with_the_nearest(model: Nested, block: Callable[[Nested], Any]):
    with pytest.raises(UserError, match=r"got 'rest\.2'\. Nearest: rest\.\d"), block(model):
        pass


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {}),
        ("resnet50", {"width": 16}),
        ("ddf_resnet18", {}),
        ("ddf_add_resnet50", {"width": 16}),
        ("rednet26", {"group_channels": 4}),
        ("binet38_dc_ca", {}),
        ("dcdc_resnet26", {"group_channels": 4}),
        ("se_resnet50", {"width": 16}),
        ("res2net50_26w_4s", {"width": 16}),
    ],
)
def test_models_of_every_family(name: str, options: dict[str, Any]):
    sizes = {"stem": "small", "width": 8, "blocks": (1, 1), "num_classes": 5}
    structure, variables = nnx.split(nnx.eval_shape(lambda: create(name, **{**sizes, **options}, rngs=nnx.Rngs(0))))
    images = jax.ShapeDtypeStruct((2, 8, 9, 3), jnp.float32)

    def run(variables: nnx.State, images: jax.Array) -> Any:
        model: Any = nnx.merge(structure, variables)
        model.eval()
        with capture(model) as activations:
            logits = model(images)
        return logits, activations, model.features(images)

    logits, activations, features = jax.eval_shape(run, variables, images)
    assert activations["head"] == logits
    assert [activations[f"stages.{stage}.0"] for stage in range(2)] == features
    leaves = {path.rpartition(".")[0] for path in _parameter_names(variables)}
    assert leaves - activations.keys() <= {""}


def _parameter_names(variables: nnx.State) -> list[str]:
    return [".".join(map(str, path)) for path, _ in nnx.to_flat_state(variables)]
