"""What an install brings: the names of the wheel, and what works without the extras."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.imports import FILES, ROOT, imports_of, lies_in

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

NEED_NO_EXTRA = [
    "pallas_kernels",
    "ddf_jax.errors",
    "ddf_jax.files",
    "ddf_jax.registered",
    "ddf_jax.functional",
    "ddf_jax.layers",
    "ddf_jax.checkpoints",
    "ddf_jax.models",
    "ddf_jax.analysis",
    "ddf_jax.capture",
    "ddf_jax.data.canvas",
    "ddf_jax.data.config",
    "ddf_jax.data.info",
    "ddf_jax.training",
    "ddf_jax.recipes",
    "ddf_jax.plan",
]
NEED_TRAIN = ["ddf_jax.training.train", "ddf_jax.training.evaluator", "ddf_jax.training.drawing"]
BASE = ["ddf_jax", *(name for name in FILES if lies_in(name, *NEED_NO_EXTRA) and not lies_in(name, *NEED_TRAIN))]

# What is not allowed is not found, as if it were not installed.
ALLOW_ONLY = """
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder

class AllowedFinder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in {allowed!r} | sys.stdlib_module_names or top.startswith("_sysconfigdata"):
            return super().find_spec(name, path, target)

sys.meta_path[:] = [BuiltinImporter, FrozenImporter, AllowedFinder]
sys.path.insert(0, {root!r})
"""

USE_IT = f"""
import {", ".join(BASE)}
import jax, jax.numpy as jnp, numpy as np
from flax import nnx
import ddf_jax
from ddf_jax.layers import DDF
from ddf_jax.models import create

assert nnx.jit(lambda x: DDF(8, rngs=nnx.Rngs(0))(x))(jnp.ones((1, 5, 4, 8))).shape == (1, 5, 4, 8)
nnx.eval_shape(lambda: create("resnet18", num_classes=10, rngs=nnx.Rngs(0)))

# A training step on synthetic data.
from ddf_jax.data.info import DataInfo
from ddf_jax.training.devices import data_mesh, global_batch, replicated
from ddf_jax.training.recipe import ModelConfig, Recipe
from ddf_jax.training.optimizers import make_optimizer
from ddf_jax.training.schedules import learning_rate_schedule, make_step_plan
from ddf_jax.training.state import abstract_state, initial_variables
from ddf_jax.training.step import compile_train_step

recipe = Recipe("r", ModelConfig("resnet18", {{"stem": "small", "width": 4, "blocks": (1,)}}), batch_size=2)
info, mesh = DataInfo(3, ("a", "b", "c"), channels=1, train_size=8, eval_size=8, image_size=4), data_mesh()
plan = make_step_plan(recipe, info)
rate = learning_rate_schedule(recipe.optimizer, plan, recipe.batch_size)
tx = make_optimizer(recipe.optimizer, rate)
abstract = abstract_state(recipe, info, tx, mesh)
step = compile_train_step(recipe, info, plan, mesh, abstract, rate)
batch = {{"image": np.ones((2, 4, 4, 1), "float32"), "label": np.arange(2, dtype="int32"), "mask": np.ones(2, bool)}}
_, report = step(initial_variables(recipe, info, tx, abstract), global_batch(batch, mesh))
assert jnp.isfinite(report.loss)

try:
    ddf_jax.train
except ModuleNotFoundError as error:
    assert str(error).endswith("is not installed. Install it with: pip install 'ddf-jax[train]'"), error
else:
    raise AssertionError("ddf_jax.train was imported without its extra")
"""


def python(source: str, folder: Path, executable: str | Path = sys.executable) -> str:
    """What the program prints in a process of its own."""
    done = subprocess.run([executable, "-c", source], capture_output=True, text=True, cwd=folder, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def base_names() -> set[str]:
    """The top-level names of the base dependencies and of their own dependencies, as they are installed here."""
    found: set[str] = set()
    open_names = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    while open_names:
        found.add(name := open_names.pop())
        for line in importlib.metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                open_names |= {canonicalize_name(requirement.name)} - found
    by_module = importlib.metadata.packages_distributions().items()
    return {module for module, projects in by_module if found & {canonicalize_name(name) for name in projects}}


def test_models_layers_and_checkpoints_need_the_base_dependencies_alone(tmp_path: Path) -> None:
    allowed = {*base_names(), "ddf_jax", "pallas_kernels"}
    assert "jax" in allowed
    assert not allowed & {"grain", "matplotlib", "sklearn", "tensorflow_datasets", "torch", "tyro"}
    python(ALLOW_ONLY.format(allowed=allowed, root=str(ROOT)) + USE_IT, tmp_path)


def test_every_module_can_be_imported_by_its_full_name_without_torch_and_imports_no_tensorflow(tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").touch()  # or its import would go unseen where it is not installed
    (tmp_path / "torch.py").write_text("raise ImportError('not installed')")
    needs_torch = {module for module in FILES for i in imports_of(module) if (i.module, i.lazy) == ("torch", False)}
    torch_port = {module for module in FILES if lies_in(module, "ddf_jax.torch_port")}
    modules = [name for name in FILES if name not in needs_torch | torch_port and not name.endswith("__main__")]
    path = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n"
    import_all = "".join(f"import {name} as s; assert s is sys.modules[{name!r}], s\n" for name in modules)
    loaded = python(path + import_all + "print(*sys.modules)", tmp_path).split()
    assert {"ddf_jax", "pallas_kernels"} <= {*loaded}
    assert "tensorflow" not in loaded


def test_pallas_kernels_imports_nothing_but_jax_and_numpy(tmp_path: Path) -> None:
    source = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import jax, jax.numpy, numpy, jax.experimental.pallas
base = {{name.partition(".")[0] for name in sys.modules}}
import pallas_kernels, pallas_kernels.ops.arg_specs
print(*{{name.partition(".")[0] for name in sys.modules}} - base)
"""
    assert {*python(source, tmp_path).split()} - sys.stdlib_module_names == {"pallas_kernels"}


@pytest.mark.parametrize("removed", ["triton", "mosaic_gpu"])
def test_without_the_folder_of_a_gpu_back_end_the_rest_works(removed: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "pallas_kernels", tmp_path / "pallas_kernels", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.rmtree(tmp_path / "pallas_kernels" / "ops" / removed)
    source = f"""
import jax, jax.numpy as jnp
from pallas_kernels import aot, dynamic_filter
x, spatial = jnp.ones((1, 4, 4, 16)), jnp.ones((1, 4, 4, 1, 9))
def loss(x, **options):
    return dynamic_filter(x, spatial, None, **options).sum()
gradient = jax.jit(jax.grad(loss))
assert gradient(x).shape == x.shape
text = gradient.trace(x).lower(lowering_platforms=("cuda",)).as_text()
assert (aot.TRITON_CALL in text) == ({removed!r} != "triton")
try:
    jax.jit(lambda x: loss(x, implementation={removed!r})).trace(x).lower(lowering_platforms=("cuda",))
except NotImplementedError as error:
    print(error)
"""
    assert f"implementation='{removed}' is not part of this installation." in python(source, tmp_path)


def test_ddf_without_its_extra_has_a_version_and_names_the_command_that_installs_the_rest(tmp_path: Path) -> None:
    allowed = {*base_names(), "ddf_jax", "pallas_kernels"}
    run = "from ddf_jax.cli import main; assert main(['--version']) == 0; sys.exit(main(['models']))"
    source = ALLOW_ONLY.format(allowed=allowed, root=str(ROOT)) + run
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 2, done.stderr
    assert done.stdout.startswith("ddf-jax ")
    assert "pip install 'ddf-jax[train]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_the_wheel_is_the_same_from_source_archive_and_tree_and_works_in_an_empty_environment(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--outdir"]
    subprocess.run([*build, tmp_path / "dist", ROOT], check=True)  # an archive, and a wheel from it
    subprocess.run([*build, tmp_path / "of_tree", "--wheel", ROOT], check=True)
    (archive, wheel), [of_tree] = sorted((tmp_path / "dist").iterdir(), reverse=True), (tmp_path / "of_tree").iterdir()
    assert wheel.name == of_tree.name
    assert contents(wheel) == contents(of_tree)
    with tarfile.open(archive) as source:
        files = {name.partition("/")[2] for name in source.getnames()}
    assert {"LICENSE", "Makefile", "docs/index.md", "examples/tour.ipynb", "tests/golden/rooms.npz"} <= files
    assert not [name for name in files if re.match(r"runs/|build/|dist/|\.venv|.*__pycache__|docs/api/", name)]

    venv.create(tmp_path / "venv", with_pip=True)
    executable = tmp_path / "venv/bin/python"
    before = installed(executable, tmp_path)
    subprocess.run([executable, "-m", "pip", "install", "--quiet", wheel], check=True)

    names = "import importlib.metadata as m; print(*{f.parts[0] for f in m.files('ddf-jax') if f.parts[0] != '..'})"
    data = "import importlib.metadata as m; print(*(f.name for f in m.files('ddf-jax')))"
    assert {"py.typed", "digits.npz", "digits.txt"} <= {*python(data, tmp_path, executable).split()}
    ours = {name for name in python(names, tmp_path, executable).split() if not name.endswith(".dist-info")}
    assert ours == {"ddf_jax", "pallas_kernels"}
    about = "import importlib.metadata as m; print(m.version('ddf-jax'), m.metadata('ddf-jax')['description'])"
    assert python(about, tmp_path, executable).startswith(f"{PROJECT['version']} # ddf-jax\n")
    assert "](" not in python(about, tmp_path, executable)
    unwanted = {"grain", "h5py", "matplotlib", "pycocotools", "scikit-learn", "tensorflow-datasets", "torch", "tyro"}
    assert not unwanted & installed(executable, tmp_path)
    assert "jax" in installed(executable, tmp_path) - before
    python(USE_IT.replace('"resnet18"', '"ddf_resnet18"'), tmp_path, executable)  # and its backward pass


def installed(executable: Path, folder: Path) -> set[str]:
    """The projects installed in an environment."""
    source = "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"
    return {canonicalize_name(name) for name in python(source, folder, executable).split()}


def contents(wheel: Path) -> dict[str, int]:
    """The files of a wheel with their checksums."""
    with zipfile.ZipFile(wheel) as archive:
        return {each.filename: each.CRC for each in archive.infolist()}
