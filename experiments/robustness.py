"""Compares classifiers on corrupted pictures: `python -m experiments.robustness`."""

import sys

from experiments.reports.robustness import main

if __name__ == "__main__":
    sys.exit(main())
