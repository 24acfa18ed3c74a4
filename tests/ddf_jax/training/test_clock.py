import time

import pytest

from ddf_jax.training.clock import Clock


def test_launches_add_up_and_only_training_counts_as_training(monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    clock = Clock()
    now = 103.0
    with clock.training():
        now = 108.0
        assert clock.training_seconds == 5.0
    now = 110.0
    seconds, training_seconds = clock.seconds, clock.training_seconds
    assert (seconds, training_seconds) == (10.0, 5.0)

    now = 500.0
    later = Clock()
    later.go_on_from(seconds, training_seconds)
    with later.training():
        now = 502.0
    assert (later.seconds, later.training_seconds) == (12.0, 7.0)
