"""What a step needs with each operator, as rows."""

import json
import subprocess
import sys

import pytest

from experiments.reports import plans
from tests.aot import ENVIRONMENT, PLUGIN, needs_plugin, uninstall

# In a process of its own: compile-only devices are made before anything else uses JAX.
PROGRAM = """
import dataclasses, json
from ddf_jax.recipes import find_recipe
import pytest

from experiments.reports import plans

def small(name):
    recipe = find_recipe(name)
    model = dataclasses.replace(recipe.model, options={"blocks": (1,), "width": 32})
    data = dataclasses.replace(recipe.data, image_size=32)
    return dataclasses.replace(recipe, batch_size=1024, model=model, data=data)

print(json.dumps(plans.measure(small("imagenet_resnet50"), small("imagenet_ddf_resnet50"))))
"""
TRITON = "__gpu$xla.gpu.triton"


@pytest.mark.slow  # `ddf plan` compiles one step for GPUs in the fast suite
@needs_plugin
def test_rows_of_the_three_operators_and_of_one_device():
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    plain, ours, unfold, *alone = rows
    assert [row["operator"] for row in (plain, ours, unfold)] == ["3×3 convolution", "dynamic_filter", "unfold"]
    assert [row["recipe"] for row in (plain, ours, unfold)] == ["imagenet_resnet50", *["imagenet_ddf_resnet50"] * 2]
    assert TRITON in ours["kernels"]
    assert TRITON not in plain["kernels"] | unfold["kernels"]
    assert ours["bytes_per_device"]["arguments"] == unfold["bytes_per_device"]["arguments"]  # the same network
    assert ours["bytes_per_device"]["temporaries"] < unfold["bytes_per_device"]["temporaries"]
    assert [(row["devices"], row["batch_size"]) for row in alone] == [(1, plain["batch_size"] // plain["devices"])] * 2
    assert [row["operator"] for row in alone] == ["3×3 convolution", "dynamic_filter"]
    kernels, launches = plans.table(rows).split("##")
    assert kernels.strip().splitlines()[-1].startswith("| unfold |")
    assert launches.strip().splitlines()[-1].startswith("| total |")


def test_the_committed_table_is_that_of_the_committed_rows():
    rows = json.loads((plans.FOLDER / "plans.json").read_text())
    assert plans.table(rows) == (plans.FOLDER / "plans.md").read_text()


def test_without_the_plugin_it_states_what_to_install(monkeypatch, capsys):
    uninstall(monkeypatch, *PLUGIN)
    assert plans.main([]) == 2
    assert "pip install jax-cuda13-plugin" in capsys.readouterr().err
