"""Values recorded from the PyTorch port, so that parity is tested where torch is not.

`python -m tests.golden` records them again (with torch); `tests/with_torch/test_golden.py` states when that is needed.
"""
