"""Tables of what the GPU suite measured: `python -m experiments.gpu_report DIR`."""

import sys

from experiments.reports.gpu import main

if __name__ == "__main__":
    sys.exit(main())
