"""`python -m ddf_jax.cli` is `ddf`."""

import sys

from ddf_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
