"""Words to commands: help, overrides, and one clear line for each wrong use."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ddf_jax.cli.arguments import COMMANDS, parse
from ddf_jax.cli.train import TrainCommand
from ddf_jax.recipes import find_recipe
from ddf_jax.training.tasks.classification import Classification
from ddf_jax.training.tasks.depth_upsampling import DepthUpsampling

ROOT = Path(__file__).parents[3]


def training(*words: str) -> TrainCommand:
    command = parse(["train", "digits", *words])
    assert isinstance(command, TrainCommand)
    return command


def test_help_lists_the_commands_with_a_line_for_each(ddf):
    status, out, err = ddf("--help")
    assert (status, err) == (0, "")
    for name in COMMANDS:
        assert re.search(f"^  {name} +[A-Z].*[.]$", out, re.M)
    assert "ddf train digits" in out
    assert "Exit status: 0 done, 2 wrong use" in out
    assert ddf("-h") == (status, out, err)


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("train", ["RECIPE", "--workdir DIR", "--json", "Shipped recipes: coco_"]),
        ("evaluate", ["RUN", "--json"]),
        ("predict", ["RUN IMAGE [IMAGE ...]", "--json"]),
        ("inspect", ["RUN IMAGE [IMAGE ...]", "--layer NAME", "--out DIR", "--json"]),
        ("models", ["PATTERN", "--json", "Core:", "mmcv:"]),
        ("convert", ["SOURCE", "TARGET", "--model NAME", "--naming {official,own}", "--ema"]),
        ("verify", ["PATTERN", "--checkpoint FILE", "--dtype {float64,float32}", "--size H W"]),
        (
            "plan",
            ["RECIPE", "--device {h200,h100,a100}", "--devices INT", "--epochs, ", "--json", "Shipped recipes: coco_"],
        ),
        ("kernels", ["PATTERN", "--device {h200,h100,a100}", "--dtype {bfloat16,float16,float32}", "--json"]),
    ],
)
def test_help_of_a_command_shows_its_arguments_and_an_example(ddf, command, parts):
    status, out, err = ddf(command, "--help")
    assert (status, err) == (0, "")
    for part in [f"usage: ddf {command}", "Example", f"  ddf {command}", *parts]:
        assert part in out, part


def test_help_of_a_recipe_shows_its_own_values(ddf):
    _, out, _ = ddf("train", "digits_plain", "--help")
    assert "--model.name STR" in out
    assert "(default: resnet18)" in out
    assert "stem=small" in out
    assert "--optimizer.learning-rate FLOAT" in out
    assert "Peak learning rate" in out


@pytest.mark.parametrize(
    ("words", "slow"),
    [
        (["--help"], {"jax", "flax", "orbax", "grain", "tensorflow_datasets", "numpy"}),
        (["train", "--help"], {"flax", "orbax", "grain", "tensorflow_datasets"}),  # a recipe's task needs JAX
        (["models", "resnet18"], {"grain", "tensorflow_datasets", "orbax", "ddf_jax.training", "ddf_jax.data"}),
    ],
)
def test_a_command_imports_nothing_slow_that_it_does_not_need(words, slow):
    program = f"""
import sys
from ddf_jax.cli import main
try:
    assert main({words}) == 0
except SystemExit as stop:
    assert not stop.code
print(sorted({slow} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version_is_one_line(ddf):
    status, out, err = ddf("--version")
    assert (status, err) == (0, "")
    assert out.startswith("ddf-jax ")
    assert out.count("\n") == 1


def test_recipe_without_options_is_the_recipe():
    command = training()
    assert command.recipe == find_recipe("digits")
    assert command.workdir is None
    assert not command.json


def test_options_override_every_kind_of_field():
    recipe = training(
        *("--name", "other", "--epochs", "2", "--batch-size", "8", "--dtype", "bfloat16"),
        *("--optimizer.learning-rate", "0.25", "--optimizer.nesterov", "False", "--optimizer.warmup_epochs=1.5"),
        *("--data.folder", "photos", "--data.image-size", "32", "--model.name", "resnet50"),
        *("--task.label-smoothing", "0.2", "--init-from", "runs/digits", "--init-head", "fresh"),
        *("--freeze", "stem.*", "*norm*", "--optimizer.backbone-factor", "0.1"),
    ).recipe
    assert (recipe.init_from, recipe.init_head, recipe.freeze) == (Path("runs/digits"), "fresh", ("stem.*", "*norm*"))
    assert recipe.optimizer.backbone_factor == 0.1
    assert (recipe.name, recipe.epochs, recipe.batch_size, recipe.dtype) == ("other", 2.0, 8, "bfloat16")
    assert recipe.optimizer.learning_rate == 0.25
    assert recipe.optimizer.nesterov is False
    assert recipe.optimizer.warmup_epochs == 1.5
    assert recipe.optimizer.weight_decay == find_recipe("digits").optimizer.weight_decay
    assert (recipe.data.folder, recipe.data.image_size) == (Path("photos"), 32)
    assert recipe.model.name == "resnet50"
    assert recipe.task == Classification(label_smoothing=0.2)


def test_each_recipe_has_the_options_of_its_own_task(refused):
    command = parse(["train", "joint_depth_4x", "--task.loss", "rmse", "--task.scale", "8"])
    assert isinstance(command, TrainCommand)
    assert command.recipe.task == DepthUpsampling(scale=8, loss="rmse")
    error = refused("train", "digits", "--task.scale", "8")
    assert "no option --task.scale. The nearest is --" in error


def test_model_options_join_those_of_the_recipe():
    own = dict(find_recipe("digits").model.options)
    words = ["blocks=2,1", "width=48", "squeeze_ratio=0.3", "zero_init_last_norm=false", "combine=add", "depth=[1, 2]"]
    options = dict(training("--model.options", *words, "--epochs", "1").recipe.model.options)
    assert options == own | {
        "blocks": (2, 1),
        "width": 48,
        "squeeze_ratio": 0.3,
        "zero_init_last_norm": False,
        "combine": "add",
        "depth": (1, 2),
    }
    assert {name: type(value) for name, value in options.items() if name in ("width", "squeeze_ratio")} == {
        "width": int,
        "squeeze_ratio": float,
    }


def test_workdir_and_json_are_of_the_command_not_of_the_recipe():
    command = training("--workdir", "elsewhere", "--json")
    assert command.workdir == Path("elsewhere")
    assert command.json
    assert command.recipe == find_recipe("digits")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "A command is needed; the commands are train, launch, evaluate"),
        ("trian digits", "no command 'trian'; the commands are train, launch, evaluate"),
        ("--verbose", "no command '--verbose'"),
        ("train", "`ddf train` needs a RECIPE first: coco_"),
        ("train --epochs 2 digits", "needs a RECIPE first"),
        ("plan", "`ddf plan` needs a RECIPE first"),
        ("plan digits --device v100", "'v100' for argument '--device'"),
        ("kernels --devices 8", "no option --devices. The nearest is --device"),
        ("kernels resnet", "No call's name matches 'resnet'; the names are resnet50_56x56x64"),
        ("train digts", "no recipe 'digts'. Did you mean digits"),
        ("train digts", "Or give the path of a .py file"),
        ("train nowhere.py", "no recipe file nowhere.py"),
        ("train digits more", "takes no argument 'more'"),
        (
            "train digits --optimizer.lerning-rate 1",
            "no option --optimizer.lerning-rate. The nearest is --optimizer.learn",
        ),
        ("train digits --learning_rate=1", "no option --learning_rate. The nearest is --optimizer.learning-rate"),
        ("train digits --work-dir x", "The nearest is --workdir"),
        ("train digits --epochs ten", "--epochs: could not convert string to float: 'ten'"),
        ("train digits --batch-size 7.5", "--batch-size: invalid literal for int"),
        (
            "train digits --dtype half",
            "'half' for argument '--dtype'. Expected one of ('float32', 'bfloat16', 'float16')",
        ),
        ("train digits --optimizer.nesterov yes", "'yes' for argument '--optimizer.nesterov'. Expected one of"),
        ("train digits --data.folder", "Missing value for argument '--data.folder'"),
        ("train digits --epochs -1", "`epochs` must be a positive number, got -1.0"),
        ("train digits --log-every 0", "`log_every` must be at least 1, got 0"),
        ("train digits --task.label-smoothing 1", "`label_smoothing` must be in [0, 1), got 1.0"),
        ("train digits --data.image-size 0", "`image_size` must be at least 1 pixel, got 0"),
        ("train digits --model.options width", "--model.options: an option must be NAME=VALUE, got 'width'"),
        ("train digits --model.options =3", "must be NAME=VALUE"),
        ("evaluate", "Missing from ddf evaluate: RUN"),
        ("evaluate --json runs/a", "needs the RUN first, the folder of a run, and its options behind"),
        ("launch", "needs a command after `--`, such as: ddf launch --processes 2 -- train digits"),
        ("launch -- trian digits", "no command 'trian'"),
        ("launch -- serve runs/a", "`ddf launch` runs train or evaluate, whose processes work together, got serve"),
        ("evaluate runs/a runs/b", "takes no argument 'runs/b'"),
        ("predict", "Missing from ddf predict: RUN"),
        ("evaluate runs/a --recip x.py", "no option --recip. The nearest is --recipe;"),
        ("predict runs/a", "needs the path of an IMAGE"),
        ("models --jsn", "The nearest is --json"),
        ("models --pattern resnet50", "no option --pattern. The nearest is --published"),
        ("convert a.safetensors", "Missing from ddf convert: TARGET"),
        ("verify resnet18 --plot no/such/folder.png", "`--plot` must name a file in a folder that exists"),
        ("verify --dtype bfloat16", "'bfloat16' for argument '--dtype'"),
    ],
)
def test_wrong_words_are_refused_in_one_line(refused, words, message):
    assert message in refused(*words.split())


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_wrong_words_are_refused_in_one_plain_line_also_on_a_terminal(encoding):
    """There tyro draws in colour, and without lines where the encoding has none."""
    program = "import sys; from ddf_jax.cli import main; sys.exit(main(['verify', '--dtype', 'half']))"
    ours, theirs = pty.openpty()
    with open(theirs, "wb") as terminal:
        environment = os.environ | {"TERM": "xterm", "PYTHONIOENCODING": encoding}
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env=environment,
            stdout=terminal,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    os.close(ours)
    assert done.returncode == 2
    expected = "invalid choice 'half' for argument '--dtype'. Expected one of ('float64', 'float32')."
    assert done.stderr == f"ddf: {expected}\n"
