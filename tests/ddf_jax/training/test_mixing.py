import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddf_jax.errors import UserError
from ddf_jax.training.mixing import mix_examples, rectangle
from ddf_jax.training.recipe import ModelConfig, Recipe
from ddf_jax.training.tasks.classification import Classification

IMAGES = np.random.default_rng(0).normal(size=(6, 9, 7, 3)).astype(np.float32)
BATCH = {"image": jnp.array(IMAGES), "label": jnp.arange(6), "mask": jnp.ones(6, bool)}
NEIGHBOUR = [1, 0, 3, 2, 5, 4]


@pytest.mark.parametrize("seed", range(3))
def test_mixup_is_the_sum_of_neighbours_by_one_share(seed: int):
    mixed = mix_examples(BATCH, jax.random.key(seed), mixup=0.2, cutmix=0.0)
    [share] = {float(each) for each in mixed["share"]}
    assert 0 <= share <= 1
    np.testing.assert_allclose(mixed["image"], share * IMAGES + (1 - share) * IMAGES[NEIGHBOUR], atol=1e-6)
    assert mixed["other_label"].tolist() == NEIGHBOUR
    assert mixed["label"].tolist() == list(range(6))


@pytest.mark.parametrize("seed", range(3))
def test_cutmix_takes_a_rectangle_of_the_neighbour_and_its_share_of_the_label(seed: int):
    mixed = mix_examples(BATCH, jax.random.key(seed), mixup=0.0, cutmix=1.0)
    is_other = (np.asarray(mixed["image"]) == IMAGES[NEIGHBOUR]).all((0, 3))
    assert ((np.asarray(mixed["image"]) == IMAGES).all((0, 3)) == ~is_other).all()
    rows, columns = is_other.any(1), is_other.any(0)
    assert (is_other == rows[:, None] & columns).all()
    np.testing.assert_allclose(mixed["share"], 1 - is_other.mean(), rtol=1e-6)


def test_the_rectangle_has_the_sides_of_the_paper_and_ends_with_the_image():
    inside = np.asarray(rectangle(8, 16, jnp.float32(0.75), jnp.array([0.5, 0.5])))
    assert inside.sum() == 4 * 8
    assert inside[2:6, 4:12].all()
    assert np.asarray(rectangle(8, 16, jnp.float32(0.75), jnp.zeros(2)))[:2, :4].sum() == 2 * 4
    assert np.asarray(rectangle(8, 16, jnp.float32(0.75), jnp.zeros(2))).sum() == 2 * 4


def test_probabilities_decide_which_of_them_a_batch_gets():
    keys = jax.random.split(jax.random.key(0), 400)

    def mixed(key: jax.Array, probability: float) -> tuple[jax.Array, jax.Array]:
        options = {"mixup": 0.8, "cutmix": 1.0, "probability": probability, "cutmix_probability": 0.25}
        found = mix_examples(BATCH, key, **options)
        return found["share"][0], (found["image"] != BATCH["image"]).all()

    mix = jax.jit(jax.vmap(mixed, (0, None)), static_argnums=())
    share, everywhere = mix(keys, 1.0)
    assert 0.65 < everywhere.mean() < 0.85  # mixup changes every pixel, CutMix nearly never
    share, _ = mix(keys, 0.5)
    assert 0.4 < (share == 1).mean() < 0.6


def test_a_batch_without_pairs_is_refused():
    with pytest.raises(UserError, match="`batch_size` must be even for mixup and CutMix, got 5"):
        Recipe("run", ModelConfig("resnet18"), task=Classification(mixup=0.2), batch_size=5)


def test_nothing_is_exchanged_between_devices():
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    split = jax.NamedSharding(mesh, jax.P("data"))
    batch = {name: jax.device_put(jnp.concatenate([values, values[:2]]), split) for name, values in BATCH.items()}
    mix = jax.jit(lambda batch: mix_examples(batch, jax.random.key(1), mixup=0.2, cutmix=1.0), out_shardings=split)
    text = str(mix.lower(batch).compile().as_text())
    assert not [name for name in ("all-gather", "all-reduce", "collective-permute", "all-to-all") if name in text]
