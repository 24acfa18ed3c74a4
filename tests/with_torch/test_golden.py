"""The recorded values are those of the port."""

import pytest

from tests.golden import fingerprint
from tests.golden.__main__ import record


@pytest.mark.parametrize("name", fingerprint.MODELS)
def test_the_records_are_current(name):
    recorded, now = fingerprint.load(name), record(name)
    assert now.keys() == recorded.keys(), "run `python -m tests.golden`"
    errors = fingerprint.errors(now, recorded)
    assert max(errors.values()) <= 1e-10, "run `python -m tests.golden`"
