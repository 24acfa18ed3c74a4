"""The feature pyramid with involutions against numbers of the authors' `FPN_involution`, in float64.

The weights, features and the loss's weights are drawn from seeds (`reference_weights`). The golden file holds
summaries of the outputs y and the features' gradients dx in torch's layout, the loss and the norms of the gradients.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddf_jax.checkpoints.conversion import load_tensors
from ddf_jax.checkpoints.rules import official_tensors
from ddf_jax.layers import Involution
from ddf_jax.models import FPN
from ddf_jax.models.resnet import FeatureInfo
from ddf_jax.models.slots import ChannelwiseOp, partial_layer
from ddf_jax.verify.reference import reference_weights, summary

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "involution_neck.npz")
SEEDS = {"faster": 51, "retinanet": 52}
OPTIONS = {"faster": {"extra_levels": 1}, "retinanet": {"extra_levels": 2, "extra": "convolution"}}
CHANNELS = 32, 48, 64, 80
SAMPLES = 64


def images(seed: int, shapes: list[tuple[int, ...]]) -> list[jax.Array]:
    """Normal numbers of one stream, drawn in torch's layout."""
    generator = np.random.Generator(np.random.Philox(seed))
    return [jnp.asarray(generator.standard_normal(shape).transpose(0, 2, 3, 1)) for shape in shapes]


def shortened(array: jax.Array, count: int) -> np.ndarray:
    found = summary(np.asarray(array).transpose(0, 3, 1, 2), count)
    return np.concatenate([found[:2], found[2 :: count // SAMPLES]])


def official_shapes(fpn: FPN) -> dict[str, tuple[int, ...]]:
    own = {".".join(map(str, path)): np.zeros(leaf.shape) for path, leaf in nnx.to_flat_state(nnx.state(fpn))}
    return {name: tensor.shape for name, tensor in official_tensors(own).items()}


def neck(network: str, mode: str) -> tuple[FPN, list[jax.Array]]:
    """The pyramid with the reference's weights, and its features."""
    finest = network == "retinanet"
    stages = [FeatureInfo(channels, 4 * 2**level) for level, channels in enumerate(CHANNELS)][finest:]
    involution = ChannelwiseOp(partial_layer(Involution))
    options = {"channels": 64, "op": involution, "param_dtype": jnp.float64, **OPTIONS[network]}
    fpn = nnx.eval_shape(lambda: FPN(stages, **options, rngs=nnx.Rngs(0)))
    load_tensors(fpn, reference_weights(official_shapes(fpn), SEEDS[network]), "the reference")
    getattr(fpn, mode)()
    shapes = [(2, channels, 40 >> level, 56 >> level) for level, channels in enumerate(CHANNELS)]
    return fpn, images(SEEDS[network] + 100, shapes)[finest:]


def check(network: str, mode: str, found: dict[str, np.ndarray]) -> None:
    for name, values in found.items():
        np.testing.assert_allclose(values, GOLDEN[f"{network}/{mode}/{name}"], rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("network", ["retinanet", pytest.param("faster", marks=pytest.mark.slow)])
def test_outputs_are_the_authors(network):
    with jax.enable_x64(True):
        fpn, features = neck(network, "eval")
        structure, state = nnx.split(fpn)
        outputs = jax.jit(lambda state, features: nnx.merge(structure, state)(features))(state, features)
    assert len(outputs) == 5
    check(network, "eval", {f"y{i}": shortened(y, 512) for i, y in enumerate(outputs)})


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("network", ["faster", "retinanet"])
def test_gradients_are_the_authors(network, mode):
    with jax.enable_x64(True):
        fpn, features = neck(network, mode)
        structure, state = nnx.split(fpn)
        sizes = [(40, 56), (20, 28), (10, 14), (5, 7), (3, 4), (2, 2)][network == "retinanet" :][:5]
        weights = images(SEEDS[network] + 200, [(2, 64, *size) for size in sizes])

        @jax.jit
        def run(state, features):
            def loss(fpn, features):
                outputs = fpn(features)
                return sum((y * w).sum() for y, w in zip(outputs, weights, strict=True)), outputs

            return nnx.value_and_grad(loss, argnums=(0, 1), has_aux=True)(nnx.merge(structure, state), features)

        (loss, outputs), (of_parameters, of_features) = run(state, features)
    gradients = {".".join(map(str, path)): np.asarray(g[...]) for path, g in nnx.to_flat_state(of_parameters)}
    norms = {name: np.linalg.norm(g) for name, g in official_tensors(gradients).items()}
    found = {f"y{i}": shortened(y, 512) for i, y in enumerate(outputs)}
    found |= {f"dx{i}": shortened(dx, 256) for i, dx in enumerate(of_features, start=network == "retinanet")}
    found |= {"loss": loss, "grad_norm": np.array([norms[name] for name in sorted(norms)])}
    assert {f"{network}/{mode}/{name}" for name in found} == {n for n in GOLDEN if n.startswith(f"{network}/{mode}/")}
    check(network, mode, found)
