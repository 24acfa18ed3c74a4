"""Compares joint depth upsampling methods on one test split: `python -m experiments.depth`."""

import sys

from experiments.reports.depth import main

if __name__ == "__main__":
    sys.exit(main())
