"""Autotuning keeps the fastest config that works, and the operator then uses it."""

import dataclasses
import math

import pytest

from pallas_kernels import aot
from pallas_kernels.ops import autotune
from pallas_kernels.ops.arg_specs import ARG_SPECS
from pallas_kernels.ops.autotune import choose_config, tile_candidates, warp_candidates
from pallas_kernels.ops.config import ArgShape
from pallas_kernels.ops.heuristics import heuristic_config

ARG = ARG_SPECS["resnet50_56x56x128_stride2"]
SHAPE = ArgShape.of(*ARG.structs("bfloat16"), ARG.spec)
FIRST, *OTHERS = tile_candidates(SHAPE, "fwd")
H200, A100 = aot.DEVICES["h200"], aot.DEVICES["a100"]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, used by nothing else."""
    monkeypatch.setenv(autotune.CACHE_VARIABLE, str(tmp_path))
    autotune.tuned_configs.cache_clear()
    yield tmp_path
    autotune.tuned_configs.cache_clear()


def times(function):
    """A measure of one candidate at a time."""

    def measure(candidates):
        for kernel, config in candidates:
            try:
                yield function(kernel, config)
            except Exception as error:
                yield error

    return measure


def test_candidates_start_with_the_heuristic_and_fit_the_kernel():
    assert heuristic_config(SHAPE, "fwd") == FIRST
    assert len({FIRST, *OTHERS}) == len(OTHERS) + 1 > 5
    for config in tile_candidates(SHAPE, "dx"):
        assert config.tile_h % 2 == config.tile_w % 2 == 0  # the stride
    for config in (FIRST, *OTHERS, *warp_candidates(FIRST)):
        assert config.block_patches * config.block_channels == config.num_warps * 32 * SHAPE.vector_size
    assert {config.num_warps for config in (FIRST, *warp_candidates(FIRST))} == {1, 2, 4}


def test_tiles_beyond_the_registers_are_left_out():
    tiles = {(config.tile_h, config.tile_w) for config in (FIRST, *OTHERS)}
    assert (7, 2) in tiles
    assert not {(7, 4), (4, 4), (2, 4)} & tiles
    assert {config.tile_w for config in tile_candidates(SHAPE, "dfilters")} == {1}


def test_the_best_tile_is_measured_with_other_numbers_of_warps_and_the_fastest_wins():
    steps = []

    def seconds(kernel, config):
        if config == FIRST:
            raise RuntimeError("out of resources")
        if config == OTHERS[0]:
            return math.nan
        return (
            1.0
            + (config.tile_h != OTHERS[2].tile_h)
            + (config.tile_w != OTHERS[2].tile_w)
            - (config.num_warps == 4) / 2
        )

    def measure(candidates):
        steps.append(candidates)
        return times(seconds)(candidates)

    found = autotune.search(SHAPE, ("fwd", "dx"), measure)
    best = dataclasses.replace(OTHERS[2], num_warps=4, block_patches=4 * FIRST.block_patches)
    assert (found["fwd"].best, found["fwd"].seconds) == (best, 0.5)
    assert found["fwd"].failed == 2
    assert math.isnan(found["fwd"].heuristic_seconds)
    assert [*found["fwd"].measured] == [FIRST, *OTHERS, *warp_candidates(OTHERS[2])]
    tiles, warps = steps  # of all kernels together
    assert {kernel for kernel, _ in tiles} == {kernel for kernel, _ in warps} == {"fwd", "dx"}


def test_the_kernels_that_dfilters_stands_for_are_measured_with_the_heuristics_config():
    found = autotune.search(SHAPE, ("dfilters",), times(lambda kernel, config: 1.0))
    assert len(found["dfilters"].measured) > 3
    for kernel in ("dspatial", "dchannel"):
        assert [*found[kernel].measured] == [heuristic_config(SHAPE, kernel)]


def test_where_every_config_fails_the_error_names_the_kernel():
    def fails(kernel, config):
        if kernel == "dx":
            raise RuntimeError("no")
        return 1.0

    found = autotune.search(SHAPE, ("fwd", "dx"), times(fails))
    assert found["fwd"].best == FIRST
    with pytest.raises(RuntimeError, match=r"All .* configs of the dx kernel failed"):
        _ = found["dx"].best


def test_a_measured_config_is_used_on_its_device_only_and_joins_the_older(cache):
    other = dataclasses.replace(SHAPE, batch=7)
    autotune.write_tuned_configs(H200.name, {(other, "fwd"): OTHERS[1]})
    autotune.write_tuned_configs(H200.name, {(SHAPE, "fwd"): OTHERS[0]})
    assert [file.name for file in cache.iterdir()] == ["nvidia_h200.json"]
    with aot.use_target(H200):
        assert choose_config(SHAPE, "fwd") == OTHERS[0]
        assert choose_config(other, "fwd") == OTHERS[1]
        assert choose_config(SHAPE, "dx") == heuristic_config(SHAPE, "dx")
    with aot.use_target(A100):
        assert choose_config(SHAPE, "fwd") == FIRST


def test_the_users_configs_take_precedence_over_the_shipped(cache, monkeypatch, tmp_path_factory):
    shipped = tmp_path_factory.mktemp("shipped")
    other = dataclasses.replace(SHAPE, batch=7)
    file = autotune.write_tuned_configs(H200.name, {(SHAPE, "fwd"): OTHERS[0], (other, "fwd"): OTHERS[1]})
    file.rename(shipped / file.name)
    monkeypatch.setattr(autotune, "SHIPPED", shipped)
    autotune.write_tuned_configs(H200.name, {(SHAPE, "fwd"): OTHERS[2]})
    with aot.use_target(H200):
        assert (choose_config(SHAPE, "fwd"), choose_config(other, "fwd")) == (OTHERS[2], OTHERS[1])


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
        assert choose_config(SHAPE, "fwd") == FIRST
    assert f"{file} must hold kernel configs" in caplog.text
    with pytest.raises(ValueError, match="must hold kernel configs"):
        autotune.write_tuned_configs(H200.name, {(SHAPE, "fwd"): FIRST})
    assert file.read_text() == content


def test_a_file_of_configs_that_do_not_fit_their_kernel_is_skipped_too(cache, caplog):
    autotune.write_tuned_configs(
        H200.name, {(SHAPE, "dx"): dataclasses.replace(heuristic_config(SHAPE, "dx"), tile_h=3)}
    )
    with aot.use_target(H200):
        assert choose_config(SHAPE, "dx") == heuristic_config(SHAPE, "dx")
    assert "`tile_h` and `tile_w` must be multiples of (2, 2)" in caplog.text
