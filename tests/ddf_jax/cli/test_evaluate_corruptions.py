"""`ddf evaluate RUN --corruptions`."""

import json

MEMBERS = {"weather": "fog", "digital": "contrast"}


def test_evaluate_prints_the_errors_under_corruptions_as_a_table_or_as_json(ddf, tiny_run):
    words = ["evaluate", tiny_run, "--corruptions", "contrast", "fog", "--severities", "5", "3"]
    printed = ddf(*words)
    assert printed.status == 0, printed.err
    found = json.loads(ddf(*words, "--json").out)
    assert list(found["corruptions"]) == ["fog", "contrast"]
    assert found["severities"] == [3, 5]
    assert found["families"] == {name: found["corruptions"][of]["mean_error"] for name, of in MEMBERS.items()}
    lines = printed.out[printed.out.index("tiny, step 2: test accuracy") :].splitlines()  # behind the progress
    assert lines[4].split() == ["corruption", "family", "3", "5", "mean"]
    assert lines[5].split()[:2] == ["fog", "weather"]
    assert lines[-1].startswith("mean corruption error")


def test_unknown_corruptions_and_severities_are_refused_in_one_line(refused, tiny_run):
    assert "must be one of all, benchmark, noise," in refused("evaluate", tiny_run, "--corruptions", "rain")
    assert "1, 2, 3, 4 and 5, got 6" in refused("evaluate", tiny_run, "--corruptions", "fog", "--severities", "6")
