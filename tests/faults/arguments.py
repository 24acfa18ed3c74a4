"""The command line of the driver."""

import argparse
import secrets
from collections.abc import Sequence
from pathlib import Path

KINDS = ("process", "reader", "lock", "kill", "signal", "file", "damage", "change", "power")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="default: another each time")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="default: all")
    parser.add_argument("--count", type=int, help="faults of each kind; default: the kind's own number")
    parser.add_argument("--only", help="KIND:INDEX, to repeat one fault")
    parser.add_argument("--jobs", type=int, default=2, help="faults at a time; default: 2")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep what the processes leave in a new folder")
    parser.add_argument("--out", type=Path, help="a file for the results as JSON lines")
    return parser.parse_args(words)
