"""Examples mixed with one another on the devices: mixup and CutMix."""

import jax
import jax.numpy as jnp

from ddf_jax.training.tasks import Batch


def mix_examples(
    batch: Batch,
    key: jax.Array,
    *,
    mixup: float,
    cutmix: float,
    probability: float = 1.0,
    cutmix_probability: float = 0.5,
) -> dict[str, jax.Array]:
    """Mixes each example 2i of a batch with the example 2i + 1, and the other way round.

    Mixup: `λ · image + (1 - λ) · other`, with one λ ~ Beta(α, α) a batch. CutMix: a rectangle of the share 1 - λ of the
    image, its centre uniform, is the other's; λ then is the share that is left of the image, where the rectangle
    reaches beyond it. Neighbours are on one device, so that nothing is exchanged.

    References: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018; Yun et al., "CutMix", ICCV 2019.

    Args:
        batch: `image` [B, H, W, C] float32 and `label` [B], B even.
        key: of the step.
        mixup: α of mixup; 0: no mixup.
        cutmix: α of CutMix; 0: no CutMix.
        probability: of a batch to be mixed at all.
        cutmix_probability: of CutMix where mixup is on too.

    Returns:
        The batch with mixed images, `other_label` [B], and λ in `share` [B] float32.
    """
    image = batch["image"]
    whether, which, of_mixup, of_cutmix, centre = jax.random.split(key, 5)
    use_cutmix = jax.random.bernoulli(which, cutmix_probability if mixup and cutmix else float(cutmix > 0))
    lam = jnp.where(
        use_cutmix,
        jax.random.beta(of_cutmix, cutmix or 1.0, cutmix or 1.0),
        jax.random.beta(of_mixup, mixup or 1.0, mixup or 1.0),
    )
    lam = jnp.where(jax.random.bernoulli(whether, probability), lam, 1.0)
    height, width = image.shape[1:3]
    inside = rectangle(height, width, lam, jax.random.uniform(centre, (2,)))
    of_other = jnp.where(use_cutmix, inside.astype(jnp.float32), 1 - lam)[None, :, :, None]
    lam = jnp.where(use_cutmix, 1 - inside.mean(dtype=jnp.float32), lam)
    return {
        **batch,
        "image": (1 - of_other) * image + of_other * _swapped(image),
        "other_label": _swapped(batch["label"]),
        "share": jnp.full(len(image), lam, jnp.float32),
    }


def rectangle(height: int, width: int, lam: jax.Array, centre: jax.Array) -> jax.Array:
    """CutMix's rectangle in an image, [height, width] bool.

    Its sides are those of the image times √(1 - λ), rounded down; what lies beyond the image is cut off.

    Args:
        height: of the image.
        width: of the image.
        lam: λ, [].
        centre: [2], its row and column as shares of the sides.
    """

    def side(length: int, at: jax.Array) -> jax.Array:
        half = jnp.floor(length * jnp.sqrt(1 - lam)) // 2
        middle, index = jnp.floor(at * length), jnp.arange(length, dtype=jnp.float32)
        return (index >= middle - half) & (index < middle + half)

    return side(height, centre[0])[:, None] & side(width, centre[1])[None, :]


def _swapped(rows: jax.Array) -> jax.Array:
    """Rows 1, 0, 3, 2, …"""
    pairs = rows.reshape(len(rows) // 2, 2, *rows.shape[1:])
    return jnp.flip(pairs, 1).reshape(rows.shape)
