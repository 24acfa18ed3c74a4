"""Checks and times everything on the GPU at hand: `python -m experiments.gpu_suite --out DIR`."""

import sys

from experiments.benchmarks.gpu_suite import main

if __name__ == "__main__":
    sys.exit(main())
