"""The timer: turns, memory, and the clock of each device."""

import math
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from pallas_kernels.tuning import timing


def test_programs_take_turns_in_changing_order_and_run_once_untimed():
    turns = []

    def program(name: str) -> timing.Program:
        return timing.Program(lambda: turns.append(name), lambda: turns.append(name.upper()) or 0.1, "host", 0)

    seconds = timing.time_programs({name: program(name) for name in "ab"}, rounds=8)
    rounds = ["".join(turns[i : i + 4]) for i in range(0, len(turns), 4)]
    assert set(rounds) == {"aAbB", "bBaA"}
    assert seconds == {"a": [0.1] * 8, "b": [0.1] * 8}


def test_a_program_that_takes_longer_than_filling_caches_runs_untimed_in_the_first_round_alone():
    turns = []
    slow = timing.Program(lambda: turns.append("untimed"), lambda: turns.append("timed") or 1.0, "host", 0)
    assert timing.time_programs({"": slow}, rounds=3) == {"": [1.0] * 3}
    assert turns == ["untimed", "timed", "timed", "timed"]


def test_peak_bytes_count_arguments_results_and_temporaries():
    x = jnp.ones((4, 5, 3))
    program = timing.jax_program(lambda x: x + 1.0, (x,))
    assert program.peak_bytes >= 2 * 4 * math.prod(x.shape)
    assert (program.run() == 2).all()
    assert program.clock == "host"
    assert program.seconds() > 0


def test_all_launches_but_the_last_are_only_enqueued():
    calls = []
    timing.host_seconds(lambda: calls.append("run"), lambda: calls.append("launch"), 3)
    assert calls == ["launch", "launch", "run"]


@pytest.fixture
def profiler(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A GPU's profiling interface whose times the test sets."""
    fake = SimpleNamespace(milliseconds=2.0)
    module: Any = ModuleType("jax.experimental.mosaic.gpu.profiler")
    module.measure = lambda compiled: lambda *arrays: (compiled(*arrays), fake.milliseconds)
    package: Any = ModuleType("jax.experimental.mosaic.gpu")
    package.profiler = module
    monkeypatch.setitem(sys.modules, "jax.experimental.mosaic.gpu", package)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    return fake


def test_on_a_gpu_the_profiling_interface_measures(profiler: SimpleNamespace):
    program = timing.jax_program(lambda x: x + 1.0, (jnp.ones(3),))
    assert (program.clock, program.seconds()) == ("device", 2e-3)


def test_without_the_profiling_interface_the_host_measures(profiler: SimpleNamespace):
    profiler.milliseconds = None  # of a run without recorded kernels
    program = timing.jax_program(lambda x: x + 1.0, (jnp.ones(3),))
    assert program.clock == "host"
    assert program.seconds() > 0


def test_programs_that_are_compiled_together_have_errors_of_their_own_and_what_occurs_twice_is_compiled_once():
    traced = []

    def lower() -> jax.stages.Lowered:
        traced.append(1)
        return jax.jit(lambda: 1).lower()

    def refused() -> jax.stages.Lowered:
        raise NotImplementedError("not here")

    first, second, none, failed = timing.compile_together([lower, lower, None, refused])
    assert first.result() is second.result()
    assert len(traced) == 1
    assert none.result() is None
    assert isinstance(failed.exception(), NotImplementedError)
