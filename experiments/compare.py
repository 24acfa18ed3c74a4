"""Prints finished runs side by side: `python -m experiments.compare`."""

import sys

from experiments.reports.compare import main

if __name__ == "__main__":
    sys.exit(main())
