"""Fine-tunes a network from a file with PyTorch's names on a folder of images, one sub-folder for each class.

    python examples/05_fine_tune_on_a_folder.py                              # a folder and a file that it makes itself
    python examples/05_fine_tune_on_a_folder.py ~/photos resnet18.pth        # yours; a .pth file needs torch

From a shell: `ddf train photos.py --data.folder ~/photos --init-from resnet18.pth --init-head fresh`.
"""

import sys
from pathlib import Path

import numpy as np
from flax import nnx
from PIL import Image

import ddf_jax
from ddf_jax.checkpoints import save_checkpoint
from ddf_jax.data.config import DataConfig
from ddf_jax.training.recipe import ModelConfig, OptimizerConfig, Recipe
from ddf_jax.training.tasks.classification import Classification

SMALL = {"stem": "small", "width": 8, "blocks": (1, 1)}  # of the made file; a real ResNet-18 needs no options


def make_folder(folder: Path) -> Path:
    """Pictures of horizontal, vertical and diagonal stripes."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32]
    for name, place in {"horizontal": y, "vertical": x, "diagonal": x + y}.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(40):
            wave = 127 + 80 * np.sin(place * rng.uniform(0.6, 1.2) + rng.uniform(0, 6))
            pixels = wave[..., None] + rng.normal(0, 20, (32, 32, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


def make_weights(file: Path) -> Path:
    """A network for 1000 classes, here a random one, by the names of torchvision."""
    model = ddf_jax.create("resnet18", num_classes=1000, rngs=nnx.Rngs(0), **SMALL)
    save_checkpoint(model, file, naming="official")
    return file


def main(folder: Path, weights: Path, options: dict) -> None:
    recipe = Recipe(
        name="fine_tuned",
        model=ModelConfig("resnet18", options),
        data=DataConfig(folder=folder, image_size=32 if options else 224, augment="imagenet"),
        optimizer=OptimizerConfig(learning_rate=0.4, warmup_epochs=1, backbone_factor=0.5),
        task=Classification(label_smoothing=0.1),
        init_from=weights,
        init_head="fresh",  # other classes
        freeze=("stem.*",),
        epochs=6,
        batch_size=16,
        evaluate_every=0,
        checkpoint_every=0,
    )
    summary = ddf_jax.train(recipe, "runs/fine_tuned")
    run = ddf_jax.load_run("runs/fine_tuned")
    pictures = [next((folder / name).iterdir()) for name in run.info.class_names]
    for picture, row in zip(pictures, ddf_jax.predict(run, pictures), strict=True):
        print(picture, "is", run.info.class_names[row.argmax()], f"({row.max():.0%})")
    print(f"test accuracy {summary['test_accuracy']:.1%}")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        main(Path(sys.argv[1]), Path(sys.argv[2]), {})
    else:
        main(make_folder(Path("runs/stripes")), make_weights(Path("runs/resnet18.safetensors")), SMALL)
