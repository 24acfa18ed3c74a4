"""Module names are never hidden, and `import pallas_kernels` is cheap."""

import functools
import importlib
import subprocess
import sys

import pallas_kernels
from tests.imports import FILES, imports_of, lies_in


def needs_torch(module: str) -> bool:
    """Of its own or, as importing a file imports the packages around it, of theirs."""
    parts = module.split(".")
    around = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return any(lies_in(i.module, "torch", "ddf_jax.torch_port") and not i.lazy for m in around for i in imports_of(m))


def test_attribute_access_finds_every_module() -> None:
    """`import a.b.c as s` follows attributes, so a function named like its module's file would hide it."""
    ours = [name for name in FILES if lies_in(name, "pallas_kernels", "ddf_jax") and not name.endswith("__main__")]
    hidden = []
    for name in ours:
        if needs_torch(name):
            continue
        module, (package, *path) = importlib.import_module(name), name.split(".")
        if functools.reduce(getattr, path, sys.modules[package]) is not module:
            hidden.append(name)
    assert not hidden


def test_pallas_kernels_imports_neither_triton_nor_flax_nor_an_implementation() -> None:
    source = "import sys, pallas_kernels; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True).stdout.split()
    assert "pallas_kernels.aot" in loaded
    heavy = ("flax", "triton", "jax.experimental.pallas.triton", *pallas_kernels.IMPLEMENTATIONS.values())
    assert not [name for name in loaded if lies_in(name, *heavy)]
