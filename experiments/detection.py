"""Compares runs of detection and panoptic segmentation: `python -m experiments.detection`."""

import sys

from experiments.reports.detection import main

if __name__ == "__main__":
    sys.exit(main())
