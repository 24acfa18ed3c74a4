"""These tests compile much and run it once: the CPU's lowest level of optimisation halves their time.

It concerns LLVM alone. What XLA does before, fusion and the order of operations, is as ever.
"""

import os

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"
