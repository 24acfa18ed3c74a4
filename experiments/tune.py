"""Tunes the GPU kernels on the GPU at hand: `python -m experiments.tune`."""

import sys

from experiments.benchmarks.tune import main

if __name__ == "__main__":
    sys.exit(main())
