"""Autotuning keeps the fastest config that works, and the operator then uses it."""

import dataclasses
import math

import pytest

from pallas_kernels import aot
from pallas_kernels.ops import autotune
from pallas_kernels.ops.arg_specs import ARG_SPECS
from pallas_kernels.ops.autotune import candidates, choose_config
from pallas_kernels.ops.config import ArgShape
from pallas_kernels.ops.heuristics import heuristic_config

ARG = ARG_SPECS["resnet50_56x56x128_stride2"]
SHAPE = ArgShape.of(*ARG.structs("bfloat16"), ARG.spec)
FIRST, *OTHERS = candidates(SHAPE, "dx")
H200, A100 = aot.DEVICES["h200"], aot.DEVICES["a100"]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, used by nothing else."""
    monkeypatch.setenv(autotune.CACHE_VARIABLE, str(tmp_path))
    autotune.tuned_configs.cache_clear()
    yield tmp_path
    autotune.tuned_configs.cache_clear()


def test_candidates_start_with_the_heuristic_and_fit_the_kernel():
    assert heuristic_config(SHAPE, "dx") == FIRST
    assert len({FIRST, *OTHERS}) == len(OTHERS) + 1 > 10
    for config in OTHERS:
        assert config.tile_h % 2 == config.tile_w % 2 == 0  # the stride
        assert config.block_patches * config.block_channels == config.num_warps * 32 * SHAPE.vector_size


def test_the_fastest_wins_and_those_that_fail_are_skipped():
    def measure(config):
        if config == FIRST:
            raise RuntimeError("out of resources")
        if config.num_warps == 4:
            raise ArithmeticError("wrong")
        return math.nan if config == OTHERS[0] else 1.0 + (config != OTHERS[5])

    found = autotune.autotune(SHAPE, "dx", measure)
    assert (found.best, found.seconds) == (OTHERS[5], 1.0)
    assert found.tried == len(OTHERS) + 1
    assert math.isnan(found.heuristic_seconds)
    assert autotune.autotune(SHAPE, "dx", lambda config: 2.0 if config == FIRST else 1.0).heuristic_seconds == 2.0
    assert found.failed == 1 + sum(config.num_warps == 4 for config in OTHERS)


def test_where_every_config_fails_the_error_names_the_kernel():
    def measure(config):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match=r"All .* configs of the dx kernel failed"):
        autotune.autotune(SHAPE, "dx", measure)


def test_a_measured_config_is_used_on_its_device_only_and_joins_the_older(cache):
    other = dataclasses.replace(SHAPE, batch=7)
    autotune.write_tuned_configs(H200.name, {(other, "dx"): OTHERS[1]})
    autotune.write_tuned_configs(H200.name, {(SHAPE, "dx"): OTHERS[0]})
    assert [file.name for file in cache.iterdir()] == ["nvidia_h200.json"]
    with aot.use_target(H200):
        assert choose_config(SHAPE, "dx") == OTHERS[0]
        assert choose_config(other, "dx") == OTHERS[1]
        assert choose_config(SHAPE, "fwd") == heuristic_config(SHAPE, "fwd")
    with aot.use_target(A100):
        assert choose_config(SHAPE, "dx") == FIRST


def test_the_users_configs_take_precedence_over_the_shipped(cache, monkeypatch, tmp_path_factory):
    shipped = tmp_path_factory.mktemp("shipped")
    other = dataclasses.replace(SHAPE, batch=7)
    file = autotune.write_tuned_configs(H200.name, {(SHAPE, "dx"): OTHERS[0], (other, "dx"): OTHERS[1]})
    file.rename(shipped / file.name)
    monkeypatch.setattr(autotune, "SHIPPED", shipped)
    autotune.write_tuned_configs(H200.name, {(SHAPE, "dx"): OTHERS[2]})
    with aot.use_target(H200):
        assert (choose_config(SHAPE, "dx"), choose_config(other, "dx")) == (OTHERS[2], OTHERS[1])


def test_the_cache_folder_follows_the_environment_and_is_never_the_package(monkeypatch, tmp_path):
    monkeypatch.setenv(autotune.CACHE_VARIABLE, str(tmp_path / "own"))
    assert autotune.cache_folder() == tmp_path / "own"
    monkeypatch.delenv(autotune.CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert autotune.cache_folder() == tmp_path / "ddf-jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert autotune.cache_folder() == tmp_path / ".cache" / "ddf-jax"


@pytest.mark.parametrize("content", ['[{"kernel": "fwd"', "{}", '[{"kernel": "fwd"}]', "3"])
def test_an_unusable_file_is_skipped_with_a_warning_and_never_overwritten(cache, caplog, content):
    file = cache / "nvidia_h200.json"
    file.write_text(content)
    with aot.use_target(H200):
        assert choose_config(SHAPE, "dx") == FIRST
    assert f"{file} must hold kernel configs" in caplog.text
    with pytest.raises(ValueError, match="must hold kernel configs"):
        autotune.write_tuned_configs(H200.name, {(SHAPE, "dx"): FIRST})
    assert file.read_text() == content


def test_a_file_of_configs_that_do_not_fit_their_kernel_is_skipped_too(cache, caplog):
    autotune.write_tuned_configs(H200.name, {(SHAPE, "dx"): dataclasses.replace(FIRST, tile_h=3)})
    with aot.use_target(H200):
        assert choose_config(SHAPE, "dx") == FIRST
    assert "`tile_h` and `tile_w` must be multiples of (2, 2)" in caplog.text
