"""The kernels fit their GPUs: facts of their machine code, no GPU needed."""

import functools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from pallas_kernels import aot, compat
from pallas_kernels.aot.machine_code import _parse
from pallas_kernels.ops.arg_specs import ARG_SPECS, RESNET50, ArgSpec
from pallas_kernels.ops.autotune import choose_config
from pallas_kernels.ops.config import ArgShape
from pallas_kernels.ops.spec import FilterSpec
from tests.aot import ENVIRONMENT, PLUGIN, needs_plugin, needs_triton, uninstall
from tests.pallas_kernels import suite
from tests.pallas_kernels.programs import SPLITS

DEPTHWISE = ArgSpec("depthwise", (8, 14, 14, 64), groups=None)
LOOPED = ArgSpec("looped", (8, 14, 14, 64), FilterSpec(7), groups=4, channel=False)
COMPILED = ((LOOPED, "h200"), pytest.param(DEPTHWISE, "a100", marks=pytest.mark.slow))


@needs_triton
@pytest.mark.parametrize(("arg", "device"), COMPILED, ids=lambda value: getattr(value, "name", value))
def test_no_kernel_spills_or_needs_a_stack(arg, device):
    for row in aot.kernel_table(aot.DEVICES[device], arg, jnp.bfloat16):
        assert (row.spill_bytes, row.stack_bytes) == (0, 0), row


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("device", ["h200", "a100"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("arg", ARG_SPECS.values(), ids=lambda arg: arg.name)
def test_no_kernel_of_a_network_spills(arg, dtype, device):
    for row in aot.kernel_table(aot.DEVICES[device], arg, jnp.dtype(dtype)):
        assert (row.spill_bytes, row.stack_bytes) == (0, 0), row


@needs_triton
@pytest.mark.parametrize("device", ["h200", pytest.param("a100", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "arg",
    suite.slow_unless(
        [*RESNET50, *(ARG_SPECS[name] for name in ("fpn_p2", "fpn_p6", "poster_7"))],
        ("resnet50_56x56x128_stride2",),
    ),
)
def test_the_forward_pass_takes_at_most_34_instructions_per_output_and_loads_128_bits_at_a_time(
    arg: ArgSpec, device: str
):
    x, spatial, channel = arg.structs(jnp.bfloat16)
    assert x is not None
    [kernel] = aot.triton_kernels(functools.partial(arg.call, implementation="triton"), x, spatial, channel)
    used = aot.resources(kernel, aot.DEVICES[device])
    config = choose_config(ArgShape.of(x, spatial, channel, arg.spec), "fwd")
    outputs = config.block_patches * config.tile_h * config.tile_w * config.block_channels
    assert (used.spill_bytes, used.stack_bytes) == (0, 0)
    assert used.executed(()) * 32 * kernel.num_warps / outputs <= 34
    # The spatial filter alone is not channel-contiguous: one value per position and tap.
    narrow = sum(count for opcode, count in used.loads.items() if "128" not in opcode.split("."))
    assert narrow == config.tile_h * config.tile_w * arg.spec.taps


def summaries(programs: Sequence[str]) -> dict[str, Any]:
    """Of these programs for eight GPUs."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("programs.py"), *programs],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


PAIRS = tuple(f"{mode} {split}" for mode in ("auto", "explicit", "shard_map") for split in SPLITS)
EACH_ONCE = ("auto both", "explicit channels", "shard_map samples")


@needs_plugin
@pytest.mark.parametrize("pairs", [EACH_ONCE, pytest.param(PAIRS, marks=pytest.mark.slow)], ids=["each once", "all"])
def test_eight_gpus_exchange_nothing_but_the_cotangent_of_a_shared_filter(pairs):
    programs = summaries(pairs)
    attention = programs.pop("auto both attention")  # it keeps its logits, and exchanges nothing
    assert set(attention["collectives"].values()) == {0}
    assert attention["kernels"] == {"__gpu$xla.gpu.triton": 1, "fusion": 0}
    assert attention["bytes_per_device"]["temporaries"] == 0
    assert len(programs) == 2 * len(pairs)
    for pair in pairs:
        forward, both = (programs[f"{pair} {name}"] for name in ("forward", "both"))
        assert set(forward["collectives"].values()) == {0}, pair
        assert forward["kernels"]["__gpu$xla.gpu.triton"] == 1, pair
        assert forward["bytes_per_device"]["temporaries"] == 0, pair
        reduced = both["collectives"].pop("all_reduce")
        assert set(both["collectives"].values()) == {0}, pair
        assert reduced == (0 if pair.endswith("samples") else 1), pair
        assert both["kernels"]["__gpu$xla.gpu.triton"] == 3, pair


needs_mosaic = pytest.mark.skipif(compat.no_mosaic_gpu() is not None, reason=f"Mosaic {compat.no_mosaic_gpu()}")


@needs_plugin
@needs_mosaic
def test_the_mosaic_kernels_are_split_over_eight_gpus_that_exchange_only_the_cotangent_of_a_shared_filter():
    found = summaries(["explicit both mosaic_gpu"])
    forward, both = (found[f"explicit both mosaic_gpu {name}"] for name in ("forward", "both"))
    assert set(forward["collectives"].values()) == {0}
    assert forward["kernels"] == {"mosaic_gpu_v2": 1, "fusion": 0}
    assert forward["bytes_per_device"]["temporaries"] == 0
    assert both["collectives"].pop("all_reduce") == 1
    assert set(both["collectives"].values()) == {0}
    assert both["kernels"]["mosaic_gpu_v2"] == 3
    assert "__gpu$xla.gpu.triton" not in both["kernels"]


@needs_plugin
@needs_triton
@needs_mosaic
@pytest.mark.parametrize(
    ("name", "dtype", "most"),
    [
        ("resnet50_56x56x64", "bfloat16", 32),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("resnet50_56x56x128_stride2", "bfloat16", 38),
                ("resnet50_7x7x512", "float16", 40),
                ("resnet50_14x14x256", "float32", 34),
                ("rednet50_56x56x64", "bfloat16", 90),
                ("rednet50_56x56x128_stride2", "bfloat16", 130),
            )
        ),
    ],
)
def test_the_mosaic_kernel_has_no_spill_and_few_instructions(name, dtype, most):
    rows = list(aot.kernel_table(aot.DEVICES["h200"], ARG_SPECS[name], dtype, "mosaic_gpu"))
    expected = {"dx": "stride" not in name, "dfilters": not name.startswith("rednet")}  # those that Mosaic has
    assert [row.kernel for row in rows] == ["fwd", *(kernel for kernel, there in expected.items() if there)]
    assert rows[0].instructions_per_output <= most
    for row in rows:
        assert (row.spill_bytes, row.stack_bytes) == (0, 0)
        assert row.shared_bytes * row.resident_warps // 4 <= aot.DEVICES["h200"].shared_memory
        assert row.memory_roofline_us < row.predicted_us


@needs_plugin
@needs_triton
@needs_mosaic
@pytest.mark.slow
@pytest.mark.parametrize("arg", RESNET50, ids=lambda arg: arg.name)
def test_the_mosaic_kernels_are_compiled_for_blackwell(arg):
    rows = list(aot.kernel_table(aot.DEVICES["b200"], arg, "bfloat16", "mosaic_gpu"))
    assert rows[0].instructions_per_output <= 35
    for row in rows:
        assert (row.spill_bytes, row.stack_bytes) == (0, 0)


@needs_plugin
@needs_mosaic
def test_a_call_that_the_mosaic_kernel_cannot_compute_is_refused():
    with pytest.raises(NotImplementedError, match="'mosaic_gpu' has no upsampling"):
        list(aot.kernel_table(aot.DEVICES["h200"], ARG_SPECS["ddf_up_depth_64"], "bfloat16", "mosaic_gpu"))


@pytest.mark.skipif(compat.no_mosaic_gpu() is None, reason="this JAX has Mosaic GPU")
def test_a_jax_without_mosaic_is_named():
    with pytest.raises(NotImplementedError, match=r"Mosaic GPU needs JAX 0\.11 or newer"):
        list(aot.kernel_table(aot.DEVICES["h200"], DEPTHWISE, "bfloat16", "mosaic_gpu"))


ASSEMBLY = """
.text.kernel:
        /*0000*/                   LDG.E.128 R0, desc[UR4][R2.64] ;
.L_x_0:
        /*0010*/                   FADD R0, R0, R1 ;
.L_x_1:
        /*0020*/              @!P0 FMUL R0, R0, R1 ;
        /*0030*/               @P1 BRA `(.L_x_1) ;
        /*0040*/                   BRA.U UP0, `(.L_x_0) ;
        /*0050*/                   LDG.E.U16 R0, desc[UR4][R2.64+0x2] ;
        /*0060*/                   EXIT ;
.L_x_2:
        /*0070*/                   BRA `(.L_x_2) ;
        /*0080*/                   NOP ;
"""


def test_instructions_are_counted_as_often_as_their_loops_run():
    instructions, loops, _ = _parse(ASSEMBLY)
    assert instructions == ("LDG.E.128", "FADD", "FMUL", "BRA", "BRA.U", "LDG.E.U16", "EXIT", "BRA")
    assert loops == ((1, 4), (2, 3))
    used = aot.Resources(16, 0, 0, 0, instructions, loops, ())
    assert used.trace((2, 2)) == [0, *[1, *[2, 3] * 2, 4] * 2, 5, 6, 7]
    assert used.executed((10, 5)) == 4 + 10 * 2 + 10 * 5 * 2
    assert used.vector_load_share == 16 / 18
    once = aot.Resources(16, 0, 0, 0, instructions, (), ())  # the compiler unrolled the loops
    assert once.executed((10, 5)) == len(instructions)


def test_a_missing_compiler_is_named(monkeypatch):
    uninstall(monkeypatch, "triton", *PLUGIN)
    kernel = aot.TritonKernel("name", "code", 4, 1, 1)
    with pytest.raises(NotImplementedError, match="pip install triton"):
        aot.resources(kernel, aot.DEVICES["h200"])
    with pytest.raises(NotImplementedError, match="jax-cuda13-plugin=="):
        aot.compile_only_devices(aot.DEVICES["h200"], 8)
