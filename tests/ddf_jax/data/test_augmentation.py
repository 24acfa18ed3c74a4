"""The options of a recipe that change labelled images, in batches."""

import contextlib
import dataclasses
import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ddf_jax.data.augmentation_config import AugmentationConfig, CropConfig, RandAugmentConfig
from ddf_jax.data.config import DataConfig
from ddf_jax.data.examples import DepthImages, DetectionImages, LabelledImages
from ddf_jax.data.pipeline import eval_batches, train_iterator
from ddf_jax.data.reading import read_image
from ddf_jax.data.registered_transforms import TRANSFORMS, register_transform
from ddf_jax.data.sources import describe
from ddf_jax.data.transforms import evaluation_transforms, training_transforms
from ddf_jax.errors import UserError
from ddf_jax.training.devices import normalized
from ddf_jax.training.recipe import Recipe, recipe_from_json, recipe_to_json
from ddf_jax.training.tasks.classification import Classification
from tests.ddf_jax.data.transforms.images import noise, smooth

ALL = AugmentationConfig(RandAugmentConfig(2, 6, 0.5, True), color_jitter=0.4, hue_jitter=0.1, erase=0.5)


@pytest.fixture(scope="module", autouse=True)
def darken():
    """A user's transform, registered for these tests alone."""

    @register_transform
    def darken(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return (image * rng.uniform(0.5, 1.0)).astype(np.uint8)

    yield darken
    del TRANSFORMS.entries["darken"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """24 JPEGs of 90 × 120 to train on, of two classes, and crops of 32."""
    folder = tmp_path_factory.mktemp("photos")
    for n in range(24):
        path = folder / "train" / "ab"[n % 2] / f"{n}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(smooth(90, 120), 7 * n, (0, 1))).save(path)
    (folder / "test").symlink_to(folder / "train")
    for name in "ab":
        path = folder / "val" / name / "0.jpg"
        path.parent.mkdir(parents=True)
        Image.fromarray(noise(90, 120)).save(path)
    return DataConfig(folder=folder, eval_split="val", image_size=32)


def batches(config: DataConfig, count: int, *, step: int = 0, **share: Any) -> list[dict[str, np.ndarray]]:
    options = {"batch_size": 6, "seed": 1, **share}
    with contextlib.closing(train_iterator(config, LabelledImages(), **options)) as iterator:
        iterator.set_state({"step": step})
        return list(itertools.islice(iterator, count))


def same(left: Any, right: Any) -> bool:
    return all(np.array_equal(a[key], b[key]) for a, b in zip(left, right, strict=True) for key in a)


def test_pixels_that_the_devices_normalise_become_the_same_images(photos: DataConfig):
    config = dataclasses.replace(photos, augment="imagenet", mean=(0.2, 0.4, 0.6), std=(0.5, 1.0, 0.25))
    options: dict[str, Any] = {"batch_size": 8, "seed": 1}
    with contextlib.closing(train_iterator(config, LabelledImages(), normalized=False, **options)) as pixels:
        found = next(pixels)
        assert found["image"].dtype == np.uint8
        assert pixels.normalize is not None
        image = normalized(jnp.asarray(found["image"]), pixels.normalize)
    (expected,) = batches(config, 1, batch_size=8)
    np.testing.assert_allclose(image, expected["image"], rtol=1e-6, atol=1e-6)
    erased = dataclasses.replace(config, augmentation=AugmentationConfig(erase=0.5))  # after it
    with contextlib.closing(train_iterator(erased, LabelledImages(), normalized=False, **options)) as floats:
        assert (floats.normalize, next(floats)["image"].dtype) == (None, np.float32)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_everything_at_once_depends_on_seed_and_position_alone(photos: DataConfig, workers: int):
    config = dataclasses.replace(
        photos, augmentation=ALL, transforms=("darken",), repeats=3, interpolation="random", crop=CropConfig(draft=True)
    )
    whole = batches(config, 8)
    again = batches(dataclasses.replace(config, workers=workers), 5, step=3)
    assert same(whole[3:], again)
    halves = [batches(config, 8, process_index=index, process_count=2) for index in (0, 1)]
    joined = [{key: np.concatenate([a[key], b[key]]) for key in a} for a, b in zip(*halves, strict=True)]
    assert same(whole, joined)
    assert not same(whole, batches(config, 8, seed=2))


@pytest.mark.parametrize(
    "change",
    [
        {"augmentation": AugmentationConfig(RandAugmentConfig(2))},
        {"augmentation": AugmentationConfig(auto_augment=True)},
        {"augmentation": AugmentationConfig(color_jitter=0.4)},
        {"augmentation": AugmentationConfig(erase=0.9)},
        {"crop": CropConfig(area=(0.5, 0.6))},
        {"crop": CropConfig(ratio=(2.0, 2.0))},
        {"crop": CropConfig(horizontal_flip=1.0)},
        {"crop": CropConfig(vertical_flip=1.0)},
        {"interpolation": "bicubic"},
        {"mean": (0.5, 0.5, 0.5)},
        {"std": (0.5, 0.5, 0.5)},
        {"transforms": ("darken",)},
        {"repeats": 2},
    ],
    ids=lambda change: next(iter(change)) if isinstance(change, dict) else None,
)
def test_each_option_changes_training_images(photos: DataConfig, change: dict[str, Any]):
    assert not same(batches(photos, 2), batches(dataclasses.replace(photos, **change), 2))


def test_repeated_examples_come_in_a_row_with_other_crops(photos: DataConfig):
    plain = np.concatenate([batch["label"] for batch in batches(photos, 4)])
    [batch] = batches(dataclasses.replace(photos, repeats=3), 1, batch_size=72)
    np.testing.assert_array_equal(batch["label"], np.repeat(plain, 3))
    assert len({image.tobytes() for image in batch["image"]}) == 72
    still = dataclasses.replace(photos, repeats=3, augment="none")
    [batch] = batches(still, 1, batch_size=72)
    assert len({image.tobytes() for image in batch["image"]}) == 24
    np.testing.assert_array_equal(batch["image"][::3], batch["image"][2::3])


def test_flips_have_their_probability(photos: DataConfig):
    never = dataclasses.replace(photos, crop=CropConfig(horizontal_flip=0.0))
    both = dataclasses.replace(photos, crop=CropConfig(horizontal_flip=1.0, vertical_flip=1.0))
    for a, b in zip(batches(never, 1)[0]["image"], batches(both, 1)[0]["image"], strict=True):
        np.testing.assert_array_equal(a, b[::-1, ::-1])


def test_a_users_transform_is_named_by_itself_and_gets_pixels(photos: DataConfig, darken: Any):
    config = dataclasses.replace(photos, transforms=(darken,))
    assert config.transforms == ("darken",)
    recipe = Recipe("any", data=config)
    assert recipe_from_json(recipe_to_json(recipe)) == recipe
    transforms: list[Any] = training_transforms(dataclasses.replace(config, augment="none"), 3)
    example = {"image": np.full((32, 32, 3), 200, np.uint8)}
    for transform in transforms[:-1]:
        rng = np.random.default_rng(0)
        example = transform.map(example) if hasattr(transform, "map") else transform.random_map(example, rng)
    assert (example["image"] == int(200 * np.random.default_rng(0).uniform(0.5, 1.0))).all()


def test_a_transform_that_is_unknown_or_returns_no_image_is_an_error(photos: DataConfig):
    config = dataclasses.replace(photos, transforms=("darke",))  # known when it is used
    with pytest.raises(UserError, match=r"no transform named 'darke'\. Did you mean 'darken'\?"):
        batches(config, 1)
    with pytest.raises(UserError, match="A transform must be a function or a class with a name, got <function"):
        dataclasses.replace(photos, transforms=(lambda image, rng: image,))
    with pytest.raises(UserError, match="must be a tuple of names"):
        dataclasses.replace(photos, transforms="darken")

    def halve(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return image / 2

    try:
        with pytest.raises(UserError, match=r"'halve' must return an image as it gets it, uint8 .* got float64"):
            batches(dataclasses.replace(photos, transforms=(halve,)), 1)
    finally:
        del TRANSFORMS.entries["halve"]


def test_evaluation_has_its_own_size_share_interpolation_and_statistics(photos: DataConfig):
    options: dict[str, Any] = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    config = dataclasses.replace(photos, eval_image_size=40, eval_share=0.8, interpolation="bicubic", **options)
    info = describe(config, LabelledImages())
    assert (info.image_size, info.eval_shape) == (32, (40, 40))
    task = Classification()
    shapes = [task.batch_spec(info, training=training)["image"].shape for training in (True, False)]
    assert shapes == [(32, 32, 3), (40, 40, 3)]
    with contextlib.closing(eval_batches(config, LabelledImages(), batch_size=3)) as found:
        [batch] = list(found)
    file = photos.folder / "val" / "a" / "0.jpg" if photos.folder else Path()
    resized = Image.open(file).resize((66, 50), Image.Resampling.BICUBIC)  # the shorter side to 40 / 0.8
    pixels = np.asarray(resized.crop((13, 5, 53, 45))) / 255
    expected = (pixels - options["mean"]) / options["std"]
    np.testing.assert_allclose(batch["image"][0], expected, rtol=1e-4, atol=1e-5)
    assert batch["image"].shape[1:3] == (40, 40)
    np.testing.assert_array_equal(read_image(file, info, config), batch["image"][0])


def test_a_draft_leaves_evaluation_as_it_is(photos: DataConfig):
    config = dataclasses.replace(photos, image_size=16, crop=CropConfig(area=(0.9, 1.0)))
    drafted = dataclasses.replace(config, crop=CropConfig(area=(0.9, 1.0), draft=True))
    assert evaluation_transforms(config, 3) == evaluation_transforms(drafted, 3)
    exact, fast = (batches(each, 1)[0]["image"] for each in (config, drafted))
    assert 0 < np.abs(exact - fast).mean() < 0.1


@pytest.mark.parametrize("option", [{"mean": (0.5, 0.5, 0.5)}, {"augmentation": ALL}, {"eval_image_size": 8}])
@pytest.mark.parametrize("kind", [DetectionImages(), DepthImages(4)])
def test_options_of_labelled_images_are_refused_elsewhere(kind: Any, option: dict[str, Any]):
    [name] = option
    with pytest.raises(UserError, match=rf"`data\.{name}` must be left out: it is for images with one label"):
        kind.training(DataConfig(**option), SimpleNamespace(channels=3, shape=(8, 8)))


def test_a_recipe_of_an_earlier_version_means_what_it_meant():
    recipe = Recipe("old", data=DataConfig(image_size=32, augment="shift"))
    value = json.loads(recipe_to_json(recipe))
    for field in ("crop", "augmentation", "transforms", "repeats", "interpolation", "mean", "std", "eval_share"):
        del value["data"][field]
    del value["data"]["eval_image_size"]
    assert recipe_from_json(json.dumps(value)) == recipe


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CropConfig(area=(0.5, 0.2)), r"`area` must be two positive numbers of at most 1, .* \(0.5, 0.2\)"),
        (lambda: CropConfig(area=(0.5, 1.2)), "`area` must be"),
        (lambda: CropConfig(ratio=(0.0, 1.0)), "`ratio` must be two positive numbers, the smaller"),
        (lambda: CropConfig(vertical_flip=1.5), r"`vertical_flip` must be in \[0, 1\], got 1.5"),
        (lambda: RandAugmentConfig(layers=-1), "`layers` must be a number of operations"),
        (lambda: RandAugmentConfig(magnitude=11), r"`magnitude` must be in \[0, 10\], got 11"),
        (lambda: RandAugmentConfig(magnitude_std=-1), "`magnitude_std` must be"),
        (lambda: AugmentationConfig(RandAugmentConfig(2), auto_augment=True), "choose one of the two"),
        (lambda: AugmentationConfig(hue_jitter=0.6), r"`hue_jitter` must be in \[0, 0.5\]"),
        (lambda: AugmentationConfig(erase_mode="noise"), "`erase_mode` must be one of constant, color, pixel"),  # pyright: ignore[reportArgumentType]
        (lambda: DataConfig(repeats=0), "`repeats` must be at least 1"),
        (lambda: DataConfig(eval_share=1.1), r"`eval_share` must be in \(0, 1\]"),
        (lambda: DataConfig(eval_image_size=-1), "`eval_image_size` must be"),
        (lambda: DataConfig(interpolation="nearest"), "`interpolation` must be one of bilinear, bicubic, random"),  # pyright: ignore[reportArgumentType]
        (lambda: DataConfig(std=(0.0,)), "`std` must be a tuple of numbers from 1e-06 to 1"),
        (lambda: training_transforms(DataConfig(mean=(0.5,)), 3), "`mean` must have a number for each of the 3"),
        (
            lambda: training_transforms(DataConfig(augment="none", crop=CropConfig(vertical_flip=0.5)), 3),
            "`data.crop` must be left out unless `augment` is imagenet",
        ),
    ],
)
def test_options_out_of_range_are_refused(make: Any, message: str):
    with pytest.raises(UserError, match=message):
        make()
