"""Tabulates the resources of the GPU kernels; no GPU needed: `python -m experiments.kernels`."""

import sys

from experiments.reports.kernels import main

if __name__ == "__main__":
    sys.exit(main())
