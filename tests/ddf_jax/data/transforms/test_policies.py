from collections import Counter
from typing import Any

import numpy as np
import pytest

from ddf_jax.data.augmentation_config import RandAugmentConfig
from ddf_jax.data.crop import to_array
from ddf_jax.data.transforms import AutoAugment, RandAugment, operations, policies
from tests.ddf_jax.data.transforms.images import noise

FILL = (124, 116, 104)
Seen = list[tuple[str, float]]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """What is applied: name and strength."""
    found: Seen = []

    def spy(name: str) -> Any:
        return lambda image, strength, *_: (found.append((name, strength)), image)[1]

    monkeypatch.setattr(policies, "OPERATIONS", {name: spy(name) for name in operations.OPERATIONS})
    return found


def test_rand_augment_draws_operations_evenly_and_applies_half_of_them(seen: Seen):
    transform, rng = RandAugment(RandAugmentConfig(2, 6, 0.5, increasing=True), FILL), np.random.default_rng(0)
    for _ in range(3000):
        transform.random_map({"image": noise(4, 4)}, rng)
    assert 2850 < len(seen) < 3150
    counts = Counter(name for name, _ in seen)
    assert set(counts) == {
        *("AutoContrast", "Equalize", "Invert", "Rotate", "PosterizeIncreasing", "SolarizeIncreasing", "SolarizeAdd"),
        *("ColorIncreasing", "ContrastIncreasing", "BrightnessIncreasing", "SharpnessIncreasing"),
        *("ShearX", "ShearY", "TranslateX", "TranslateY"),
    }
    assert min(counts.values()) > 140
    strengths = np.array([strength for _, strength in seen])
    assert abs(strengths.mean() - 6) < 0.05
    assert abs(strengths.std() - 0.5) < 0.05


def test_strengths_stay_in_their_range(seen: Seen):
    transform, rng = RandAugment(RandAugmentConfig(3, 9.5, 3.0), FILL), np.random.default_rng(0)
    for _ in range(200):
        transform.random_map({"image": noise(4, 4)}, rng)
    strengths = [strength for _, strength in seen]
    assert (min(strengths) >= 0, max(strengths)) == (True, 10.0)
    assert not any(name.endswith("Increasing") for name, _ in seen)


def test_auto_augment_has_the_papers_policies(seen: Seen):
    """Cubuk et al., Appendix: 25 pairs, of which the first and the last are written out here."""
    assert len(policies.IMAGENET_POLICY) == 25
    assert policies.IMAGENET_POLICY[0] == (("PosterizeOriginal", 0.4, 8), ("Rotate", 0.6, 9))
    assert policies.IMAGENET_POLICY[-1] == (("Equalize", 0.8, 8), ("Equalize", 0.6, 3))
    transform, rng = AutoAugment(FILL), np.random.default_rng(0)
    for _ in range(5000):
        transform.random_map({"image": noise(4, 4)}, rng)
    expected: Counter[tuple[str, int]] = Counter()
    for pair in policies.IMAGENET_POLICY:
        for name, probability, strength in pair:
            expected[name, strength] += round(100 * probability)
    counts = Counter(seen)
    for (name, strength), hundredths in expected.items():
        mean = 5000 / 25 * hundredths / 100
        assert abs(counts[name, strength] - mean) <= 4.5 * mean**0.5, (name, strength)


@pytest.mark.parametrize("transform", [RandAugment(RandAugmentConfig(2, 9), FILL, "random"), AutoAugment(FILL)])
def test_policies_are_pure_functions_of_the_generator(transform: Any):
    image = noise(16, 24)
    before = image.copy()
    results = [
        to_array(transform.random_map({"image": image}, np.random.default_rng(seed))["image"])
        for seed in (1, 1, *range(2, 8))
    ]
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(results[0], results[1])
    assert len({result.tobytes() for result in results}) > 3
