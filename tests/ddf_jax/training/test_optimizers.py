"""Each update rule steps as its formula says, and the options that all share reach what they name."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddf_jax.errors import UserError
from ddf_jax.training.optimizer_config import OptimizerConfig
from ddf_jax.training.optimizers import make_optimizer, sgd


def run_sgd(
    config: OptimizerConfig, parameters: dict[str, jax.Array], gradients: list[float]
) -> list[dict[str, jax.Array]]:
    """Parameters after each step. Step n has `gradients[n]` everywhere and the learning rate 0.1 / (n + 1)."""
    tx = sgd(config, lambda step: 0.1 / (jnp.asarray(step, jnp.float32) + 1))
    path: list[Any] = []
    state = tx.init(parameters)
    for gradient in gradients:
        updates, state = tx.update(
            jax.tree.map(lambda p, g=gradient: jnp.full_like(p, g), parameters), state, parameters
        )
        parameters = optax.apply_updates(parameters, updates)  # pyright: ignore[reportAssignmentType]
        path.append(parameters)
    return path


# torch.optim.SGD, from w = 1 with gradients 0.5 and -0.2, decay 0.1, momentum 0.9, rates 0.1 and 0.05, by hand:
# d1 = 0.5 + 0.1 · 1 = 0.6; v1 = 0.6; w1 = 1 - 0.1 · 0.6 = 0.94
# d2 = -0.2 + 0.1 · 0.94 = -0.106; v2 = 0.9 · 0.6 - 0.106 = 0.434; w2 = 0.94 - 0.05 · 0.434 = 0.9183
# nesterov: w1 = 1 - 0.1 · (0.6 + 0.9 · 0.6) = 0.886; d2 = -0.2 + 0.0886 = -0.1114; v2 = 0.54 - 0.1114 = 0.4286
#           w2 = 0.886 - 0.05 · (-0.1114 + 0.9 · 0.4286) = 0.872283
@pytest.mark.parametrize(("nesterov", "expected"), [(False, [0.94, 0.9183]), (True, [0.886, 0.872283])])
def test_sgd_steps_as_torch_does(nesterov: bool, expected: list[float]):
    config = OptimizerConfig(momentum=0.9, weight_decay=0.1, nesterov=nesterov)
    path = run_sgd(config, {"w": jnp.ones((2, 3))}, [0.5, -0.2])
    for parameters, value in zip(path, expected, strict=True):
        np.testing.assert_allclose(parameters["w"], np.full((2, 3), value), rtol=1e-6)


def test_gradients_are_clipped_by_their_common_norm_before_the_weight_decay():
    config = OptimizerConfig(momentum=0.0, weight_decay=0.5, clip_norm=2.0)
    tx = make_optimizer(config, optax.constant_schedule(1.0))
    parameters = {"v": jnp.full(1, 2.0), "w": jnp.full((1, 1), 4.0)}
    state: Any = tx.init(parameters)  # pyright: ignore[reportArgumentType]
    # The norm of (6, 8) is 10, so that a fifth is left; the decay is half of the parameters.
    updates: Any
    updates, state = tx.update({"v": jnp.full(1, 6.0), "w": jnp.full((1, 1), 8.0)}, state, parameters)
    np.testing.assert_allclose(updates["v"], [-(1.2 + 1.0)], rtol=1e-6)
    np.testing.assert_allclose(updates["w"], [[-(1.6 + 2.0)]], rtol=1e-6)
    # Small ones stay as they are.
    updates, _ = tx.update({"v": jnp.full(1, 0.6), "w": jnp.full((1, 1), -0.8)}, state, parameters)
    np.testing.assert_allclose(updates["v"], [-(0.6 + 1.0)], rtol=1e-6)
    np.testing.assert_allclose(updates["w"], [[-(-0.8 + 2.0)]], rtol=1e-6)
    with pytest.raises(UserError, match="`clip_norm` must be a number from 0 on, 0 for no limit, got -1"):
        OptimizerConfig(clip_norm=-1.0)


@pytest.mark.parametrize("method", ["sgd", "adam"])
def test_a_run_may_be_resumed_with_another_limit_of_its_gradients(method: Any):
    parameters: Any = {"w": jnp.ones((2, 3))}
    plain, clipped = (
        make_optimizer(OptimizerConfig(method, clip_norm=limit), optax.constant_schedule(0.1)).init(parameters)
        for limit in (0.0, 5.0)
    )
    assert jax.tree.structure(plain) == jax.tree.structure(clipped)


@pytest.mark.parametrize("method", ["sgd", "adam"])
@pytest.mark.parametrize(("rest", "scaled"), [("head", "stages"), ("neck", "backbone")])
def test_the_backbone_takes_the_steps_of_another_learning_rate(method: Any, rest: str, scaled: str):
    """As a parameter group of torch with `lr · factor` does, momentum and decay included: of a classifier all but its
    head, of a detector its backbone."""
    rng = np.random.default_rng(0)
    start = {rest: {"kernel": jnp.ones((2, 3))}, scaled: {0: {"kernel": jnp.ones((2, 3))}}}
    gradients = [jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), start) for _ in "123"]

    def run(factor: float, rate: float) -> Any:
        config = OptimizerConfig(method, nesterov=True, weight_decay=0.1, backbone_factor=factor)
        tx, parameters = make_optimizer(config, optax.constant_schedule(rate)), start
        state: Any = tx.init(parameters)  # pyright: ignore[reportArgumentType]
        for gradient in gradients:
            updates, state = tx.update(gradient, state, parameters)  # pyright: ignore[reportArgumentType]
            parameters = optax.apply_updates(parameters, updates)  # pyright: ignore[reportArgumentType]
        return parameters

    both, head, backbone = run(0.1, 0.05), run(1.0, 0.05), run(1.0, 0.005)
    np.testing.assert_array_equal(both[rest]["kernel"], head[rest]["kernel"])
    # Its gradients and decay follow its own path.
    np.testing.assert_allclose(both[scaled][0]["kernel"], backbone[scaled][0]["kernel"], rtol=1e-6)


def test_the_decay_spares_norm_and_bias_only_when_asked():
    parameters = {"kernel": jnp.ones((2, 3)), "scale": jnp.ones(3)}
    for decay_norm_and_bias, expected in ((True, 1 - 0.1 * 0.6), (False, 1 - 0.1 * 0.5)):
        config = OptimizerConfig(weight_decay=0.1, decay_norm_and_bias=decay_norm_and_bias)
        after = run_sgd(config, parameters, [0.5])[0]
        np.testing.assert_allclose(after["kernel"], np.full((2, 3), 1 - 0.1 * 0.6), rtol=1e-6)
        np.testing.assert_allclose(after["scale"], np.full(3, expected), rtol=1e-6)


@pytest.mark.parametrize("method", ["adam", "adamw", "lamb", "rmsprop"])
def test_adaptive_rules_step_by_their_formulas_in_float64(method: Any):
    rng = np.random.default_rng(0)
    w = rng.normal(size=(3, 4))
    m, v, b = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    config = OptimizerConfig(method, weight_decay=0.1, betas=(0.8, 0.95), epsilon=1e-3, momentum=0.7)
    tx, parameters = make_optimizer(config, optax.linear_schedule(0.1, 0.2, 4)), {"w": jnp.asarray(w, jnp.float32)}
    state: Any = tx.init(parameters)  # pyright: ignore[reportArgumentType]
    for t in range(1, 5):
        gradient, rate = rng.normal(size=w.shape), 0.1 + 0.025 * (t - 1)
        d = gradient + 0.1 * w if method in ("adam", "rmsprop") else gradient
        m, v = 0.8 * m + 0.2 * d, 0.95 * v + 0.05 * d * d
        step = m / (1 - 0.8**t) / (np.sqrt(v / (1 - 0.95**t)) + 1e-3)
        if method == "rmsprop":
            b = 0.7 * b + d / (np.sqrt(v) + 1e-3)
            step = b
        elif method != "adam":
            step = step + 0.1 * w
        if method == "lamb":
            step *= np.linalg.norm(w) / np.linalg.norm(step)
        w = w - rate * step
        updates, state = tx.update({"w": jnp.asarray(gradient, jnp.float32)}, state, parameters)
        parameters: Any = optax.apply_updates(parameters, updates)  # pyright: ignore[reportArgumentType]
        np.testing.assert_allclose(parameters["w"], w, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["sgd", "adamw"])
def test_the_decay_spares_the_parameters_that_are_named(method: Any):
    parameters: Any = {"head": {"kernel": jnp.ones((2, 3))}, "stem": {"kernel": jnp.ones((2, 3))}}
    config = OptimizerConfig(method, weight_decay=0.5, no_decay=("st*.kernel",))
    tx = make_optimizer(config, optax.constant_schedule(1.0))
    updates: Any = tx.update(jax.tree.map(jnp.zeros_like, parameters), tx.init(parameters), parameters)[0]
    np.testing.assert_allclose(updates["head"]["kernel"], np.full((2, 3), -0.5))
    np.testing.assert_array_equal(updates["stem"]["kernel"], np.zeros((2, 3)))


@pytest.mark.parametrize("prefix", [(), ("backbone",)])
def test_layers_far_from_the_head_take_smaller_steps(prefix: tuple[str, ...]):
    blocks = {
        "stem": jnp.ones(1),
        "stages": {0: {0: {"w": jnp.ones(1)}, 1: {"w": jnp.ones(1)}}, 1: {0: {"w": jnp.ones(1)}}},
    }
    network: Any = {"stem": {"w": blocks["stem"]}, "stages": blocks["stages"]}
    parameters: Any = {"head": {"w": jnp.ones(1)}} | ({prefix[0]: network} if prefix else network)
    tx = make_optimizer(OptimizerConfig(momentum=0.0, weight_decay=0.0, layer_decay=0.5), optax.constant_schedule(1.0))
    updates: Any = tx.update(jax.tree.map(jnp.ones_like, parameters), tx.init(parameters), parameters)[0]
    found = updates[prefix[0]] if prefix else updates
    assert float(updates["head"]["w"][0]) == -1.0
    assert [float(found["stages"][i][j]["w"][0]) for i, j in ((1, 0), (0, 1), (0, 0))] == [-0.5, -0.25, -0.125]
    assert float(found["stem"]["w"][0]) == -0.0625


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"betas": (0.9, 1.0)}, r"`betas` must be two numbers in \[0, 1\), got \(0.9, 1.0\)"),
        ({"layer_decay": 0.0}, r"`layer_decay` must be in \(0, 1\], got 0.0"),
        ({"epsilon": 0.0}, "`epsilon` must be a positive number, got 0.0"),
        ({"no_decay": "stem"}, "`no_decay` must be a tuple of patterns, got the string 'stem'"),
    ],
)
def test_options_out_of_range_are_refused(options: Any, message: str):
    with pytest.raises(UserError, match=message):
        OptimizerConfig(**options)


def test_a_factory_of_optax_takes_the_fields_that_the_recipe_changes():
    parameters: Any = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    gradients: Any = jax.tree.map(lambda leaf: 0.3 * leaf, parameters)
    rate = optax.constant_schedule(0.1)

    def updates(tx: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return tx.update(gradients, tx.init(parameters), parameters)[0]

    config = OptimizerConfig(optax.lion, weight_decay=0.2, betas=(0.8, 0.9), decay_norm_and_bias=False)
    assert (config.method, config) == ("lion", dataclasses.replace(config, method="lion"))
    mask = {"kernel": True, "bias": False}
    expected = updates(optax.lion(rate, b1=0.8, b2=0.9, weight_decay=0.2, mask=mask))
    jax.tree.map(np.testing.assert_array_equal, updates(make_optimizer(config, rate)), expected)
    # By name alone, with its own defaults.
    expected = updates(optax.adabelief(rate))
    jax.tree.map(np.testing.assert_array_equal, updates(make_optimizer(OptimizerConfig("adabelief"), rate)), expected)
    with pytest.raises(UserError, match="optax's adabelief has no argument momentum, which the recipe gives"):
        make_optimizer(OptimizerConfig("adabelief", momentum=0.5), rate)
    with pytest.raises(UserError, match=r"must be adam, adamw, lamb, .* such as lion, got 'adamv'. Did you mean 'adam"):
        make_optimizer(OptimizerConfig("adamv"), rate)
    with pytest.raises(UserError, match=r"must step by gradients alone, got lbfgs: .*keyword-only"):
        make_optimizer(OptimizerConfig("lbfgs"), rate)
    with pytest.raises(
        UserError, match="must be a rule whose parameters are those to evaluate, got schedule_free_adamw"
    ):
        make_optimizer(OptimizerConfig("schedule_free_adamw"), rate)
    with pytest.raises(UserError, match="got 'chain'"):  # of optax, but no factory of a rule
        make_optimizer(OptimizerConfig("chain"), rate)


def test_a_rule_of_ones_own_has_its_functions_name():
    def halving(config: OptimizerConfig, learning_rate: Any) -> optax.GradientTransformation:
        return optax.sgd(lambda step: config.momentum * learning_rate(step))

    config = OptimizerConfig(halving, momentum=0.5)
    assert config.method == "halving"
    tx = make_optimizer(config, optax.constant_schedule(0.1))
    parameters: Any = {"w": jnp.ones(2)}
    updates: Any = tx.update(parameters, tx.init(parameters))[0]
    np.testing.assert_allclose(updates["w"], [-0.05, -0.05], rtol=1e-6)
