"""Recomputes the papers' tables from this project's modules: `python -m experiments.tables`."""

import sys

from experiments.reports.tables import main

if __name__ == "__main__":
    sys.exit(main())
