"""Tabulates what a sharded training step needs of each GPU; no GPU needed: `python -m experiments.plans`."""

import sys

from experiments.reports.plans import main

if __name__ == "__main__":
    sys.exit(main())
