"""`ddf evaluate RUN --corruptions`."""

import json


def test_evaluate_prints_the_errors_under_corruptions_in_one_document(ddf, tiny_run):
    few = ("--data.eval-split", "test[:40]")
    printed = ddf("evaluate", tiny_run, *few, "--corruptions", "contrast", "fog", "--severities", "5", "3", "--json")
    assert printed.status == 0, printed.err
    found = json.loads(printed.out)
    assert list(found["corruptions"]) == ["fog", "contrast"]
    assert found["severities"] == [3, 5]
    assert found["families"] == {
        "weather": found["corruptions"]["fog"]["mean_error"],
        "digital": found["corruptions"]["contrast"]["mean_error"],
    }
    assert "fog: error" in printed.err


def test_people_read_a_table(ddf, tiny_run, monkeypatch):
    row = {"family": "weather", "errors": [0.25, 0.5], "mean_error": 0.375}
    scores = {"test_loss": 1.0, "test_accuracy": 0.9, "test_top5_accuracy": 1.0, "test_examples": 8}
    found = {"name": "tiny", "step": 2, "severities": [3, 5], "corruptions": {"fog": row}}
    found |= {"families": {"weather": 0.375}, "mean_corruption_error": 0.375}
    monkeypatch.setattr("ddf_jax.training.robustness.robustness", lambda *_, **__: scores | found)
    first, *_, heads, fog, weather, mean = ddf("evaluate", tiny_run, "--corruptions", "fog").out.splitlines()
    assert first.startswith("tiny, step 2: test accuracy 90.00%")
    assert heads.split() == ["corruption", "family", "3", "5", "mean"]
    assert fog.split() == ["fog", "weather", "25.0", "50.0", "37.5"]
    assert (weather.split()[-1], mean.split()[-1]) == ("37.5", "37.5")


def test_unknown_corruptions_and_severities_are_refused_in_one_line(refused, tiny_run):
    assert "must be one of all, benchmark, noise," in refused("evaluate", tiny_run, "--corruptions", "rain")
    assert "1, 2, 3, 4 and 5, got 6" in refused("evaluate", tiny_run, "--corruptions", "fog", "--severities", "6")
