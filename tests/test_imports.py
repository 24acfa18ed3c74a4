"""Which file may import which, and which third-party package may be imported where."""

import ast
import graphlib
import sys

import pytest

from tests.imports import FILES, ROOT, Import, imports_of, lies_in, walk

# A file imports its own entry and what is above it. `ddf_jax/__init__.py` alone is exempt.
LAYOUT = [
    "pallas_kernels",
    "ddf_jax.errors",
    "ddf_jax.signals",
    "ddf_jax.files",
    "ddf_jax.dataclass_json",
    "ddf_jax.registered",
    "ddf_jax.watch",
    "ddf_jax.launcher",
    "ddf_jax.functional",
    "ddf_jax.layers",
    "ddf_jax.checkpoints",
    "ddf_jax.detection",
    "ddf_jax.models",
    "ddf_jax.analysis",
    "ddf_jax.data",
    "ddf_jax.training",
    "ddf_jax.recipes",
    "ddf_jax.capture",
    "ddf_jax.torch_port",
    "ddf_jax.verify",
    "ddf_jax.inspect",
    "ddf_jax.plan",
    "ddf_jax.serving",
    "ddf_jax.cli",
    "ddf_jax.__main__",
    "experiments",
]

# Commands of a checkout: within their functions alone these files import `experiments`, which is not in the wheel.
COMMANDS_OF_A_CHECKOUT = ("ddf_jax.cli.bench", "ddf_jax.cli.report")

# The third-party packages of a folder's files: at the top of a file | within functions only.
# The longest entry that a file lies in holds.
THIRD_PARTY = {
    "pallas_kernels": "jax numpy",
    "pallas_kernels.aot": "jax numpy | jaxlib triton",
    "ddf_jax": "",
    "ddf_jax.dataclass_json": "numpy",
    "ddf_jax.functional": "jax flax numpy",
    "ddf_jax.layers": "jax flax numpy",
    "ddf_jax.checkpoints": "jax flax numpy safetensors | torch",
    "ddf_jax.models": "jax flax numpy",
    "ddf_jax.detection": "jax flax numpy | pycocotools",  # pycocotools: the extra `detection`
    "ddf_jax.analysis": "jax flax numpy | pycocotools",
    "ddf_jax.capture": "flax",
    "ddf_jax.training": "jax flax numpy optax orbax | matplotlib mlflow tensorboardX tqdm wandb",
    "ddf_jax.training.drawing": "numpy PIL | matplotlib",  # matplotlib: its font
    "ddf_jax.recipes": "",
    "ddf_jax.plan": "jax",
    "ddf_jax.verify": "jax flax numpy optax | matplotlib tqdm",
    # the extra `train`
    "ddf_jax.data": "numpy PIL absl grain tensorflow_datasets | h5py",  # h5py: the extra `nyu`
    "ddf_jax.data.corruptions": "numpy PIL scipy",
    "ddf_jax.inspect": "jax flax numpy matplotlib",
    "ddf_jax.cli": "numpy tyro",
    "ddf_jax.serving": "jax numpy | jax2onnx tensorflow",  # the extras `onnx` and `savedmodel`
    "ddf_jax.serving.exported": "jax numpy",
    # the extra `serve`
    "ddf_jax.serving.app": "starlette",
    "ddf_jax.serving.server": "starlette uvicorn",
    # the extra `torch`
    "ddf_jax.verify.torch_inputs": "numpy torch",
    "ddf_jax.verify.torch_trace": "numpy torch",
    "ddf_jax.torch_port": "torch",
    "ddf_jax.torch_port.detection.recorded": "numpy torch",
    # not in the wheel
    "experiments": "jax flax numpy optax orbax matplotlib PIL | torch triton",
    "experiments.benchmarks.detection_port": "numpy torch",
    "experiments.benchmarks.detection_torchvision": "numpy torch torchvision",
    "experiments.benchmarks.torch_parts": "numpy torch",
    "experiments.benchmarks.torch_peers": "numpy torch | timm",
}


ROOTS = ("pallas_kernels", "ddf_jax", "experiments", "examples", "tests")
PLACED = [module for module in FILES if module != "ddf_jax"]


def place(module: str) -> int:
    """The position in `LAYOUT`; of `ddf_jax` itself, which imports everything lazily, the last of the wheel."""
    return (
        LAYOUT.index("experiments") if module == "ddf_jax" else [lies_in(module, entry) for entry in LAYOUT].index(True)
    )


def own(module: str) -> list[str]:
    """The files of this project that a file imports."""
    return [imported.module for imported in imports_of(module) if lies_in(imported.module, *ROOTS)]


def test_a_file_imports_only_what_is_above_it() -> None:
    pairs = [(module, imported) for module in PLACED for imported in own(module)]
    assert len(pairs) > 500
    wrong = [pair for pair in pairs if lies_in(pair[1], "tests", "examples") or place(pair[1]) > place(pair[0])]
    of_checkout = [pair for pair in wrong if pair[0] in COMMANDS_OF_A_CHECKOUT and lies_in(pair[1], "experiments")]
    assert {module for module, _ in of_checkout} == {*COMMANDS_OF_A_CHECKOUT}
    assert wrong == of_checkout, "imports what is below it in LAYOUT"


def test_the_commands_of_a_checkout_import_experiments_within_functions() -> None:
    found = [imported for module in COMMANDS_OF_A_CHECKOUT for imported in imports_of(module)]
    assert all(imported.lazy for imported in found if lies_in(imported.module, "experiments"))


def test_no_files_import_each_other() -> None:
    """Imports within functions and under TYPE_CHECKING included."""
    try:
        graphlib.TopologicalSorter({module: own(module) for module in PLACED}).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" ← ".join(error.args[1]))


def test_ddf_jax_uses_the_public_names_of_pallas_kernels() -> None:
    files = [module for module in FILES if lies_in(module, "ddf_jax")]
    wrong = [(file, name) for file in files for name in own(file) if lies_in(name, "pallas_kernels.ops")]
    assert not wrong, "imports what is private to pallas_kernels"


def test_a_file_imports_only_the_third_party_packages_of_its_extra() -> None:
    wrong = []
    for module in FILES:
        entry = max((entry for entry in THIRD_PARTY if lies_in(module, entry)), key=len)
        at_top, _, within_functions = THIRD_PARTY[entry].partition("|")
        for imported in imports_of(module):
            name = imported.module.partition(".")[0]
            allowed = [*at_top.split(), *within_functions.split()] if imported.lazy else at_top.split()
            if name not in sys.stdlib_module_names and name not in ROOTS and name not in allowed:
                wrong.append(f"{module} imports {imported}; {entry}: {allowed}")
    assert not wrong


def test_what_needs_torch_is_not_collected_where_torch_may_be_missing(pytestconfig: pytest.Config) -> None:
    ignored = {option.removeprefix("--ignore=") for option in pytestconfig.getini("addopts")}
    skipped = {*pytestconfig.getini("norecursedirs")}
    for module, file in FILES.items():
        path = file.relative_to(ROOT)
        imports_torch = any(i.module.partition(".")[0] == "torch" and not i.lazy for i in imports_of(module))
        assert not imports_torch or path.as_posix() in ignored or skipped & {*path.parts}, path


def test_the_walk_sees_every_form_of_import() -> None:
    source = """
import a.b, c
from d import e
class F:
    from g import h
def i():
    import j
    return importlib.import_module("k.l"), lambda: __import__
if TYPE_CHECKING:
    from ddf_jax import models
"""
    assert list(walk(ast.parse(source))) == [
        Import("a.b"),
        Import("c"),
        Import("d"),
        Import("g"),
        Import("j", lazy=True),
        Import("k.l", lazy=True),
        Import("ddf_jax.models"),
    ]
