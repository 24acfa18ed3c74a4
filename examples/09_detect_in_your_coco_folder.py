"""Trains a detector on a folder in COCO's layout and finds objects with it.

    python examples/09_detect_in_your_coco_folder.py            # a small folder that it makes itself; 2 minutes
    python examples/09_detect_in_your_coco_folder.py ~/coco     # yours: annotations/instances_train.json, train/, …

Needs `pip install '.[detection]'`. From a shell: `ddf train coco_faster_rcnn_resnet50 --data.folder ~/coco`, then
`ddf detect runs/coco_faster_rcnn_resnet50 photo.jpg --out pictures`.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import ddf_jax
from ddf_jax.data.config import DataConfig
from ddf_jax.recipes.rooms_mask_rcnn import DETECTOR
from ddf_jax.training.recipe import ModelConfig, OptimizerConfig, Recipe
from ddf_jax.training.tasks.detection import Detection

NAMES = ("square", "disc")


def make_folder(folder: Path, split: str, count: int) -> None:
    """Bright squares and discs on a dark ground, one of each on every picture, with their boxes."""
    rng, images, objects = np.random.default_rng(count), [], []
    (folder / split).mkdir(parents=True, exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    for number in range(count):
        picture = Image.fromarray(rng.integers(0, 60, (64, 96, 3), np.uint8))
        images.append({"id": number, "file_name": f"{number}.png", "height": 64, "width": 96})
        for label, draw in enumerate((ImageDraw.Draw(picture).rectangle, ImageDraw.Draw(picture).ellipse)):
            side, y = int(rng.integers(16, 32)), int(rng.integers(0, 32))
            x = int(rng.integers(0, 16)) + 48 * label
            draw([x, y, x + side - 1, y + side - 1], fill=tuple(rng.integers(150, 255, 3).tolist()))
            box, area = [x, y, side, side], side**2
            found = {"id": len(objects), "image_id": number, "category_id": label + 1, "bbox": box, "area": area}
            objects.append(found | {"iscrowd": 0})
        picture.save(folder / split / f"{number}.png")
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(NAMES)]
    document = {"images": images, "annotations": objects, "categories": categories}
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))


def main(folder: Path, epochs: float) -> None:
    settings = {name: DETECTOR[name] for name in ("backbone_options", "channels")}
    recipe = Recipe(
        name="own_coco",
        model=ModelConfig("retinanet_resnet50", settings | {"backbone": "ddf_resnet18", "head_depth": 1}),
        data=DataConfig(folder=folder, train_split="train", eval_split="val", augment="flip"),
        optimizer=OptimizerConfig(method="adam", learning_rate=0.002 * 256 / 8, weight_decay=0.0, warmup_epochs=0.5),
        task=Detection(canvas=(64, 96), max_objects=8),
        epochs=epochs,
        batch_size=8,
        evaluate_every=0,
        checkpoint_every=0,
    )
    summary = ddf_jax.train(recipe, "runs/own_coco")
    run = ddf_jax.load_run("runs/own_coco")
    pictures = sorted((folder / "val").iterdir())[:2]
    for picture, found in zip(pictures, ddf_jax.detect(run, pictures), strict=True):
        likely = found.above(0.5)
        for label, score, box in zip(likely.labels, likely.scores, likely.boxes, strict=True):
            print(picture.name, run.info.class_names[label], f"{score:.2f}", box.round().astype(int).tolist())
    print(f"box AP {summary['test_box_ap']:.1%}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]), epochs=12)
    else:
        for name, pictures in (("train", 160), ("val", 8)):
            make_folder(Path("runs/coco"), name, pictures)
        main(Path("runs/coco"), epochs=50)
