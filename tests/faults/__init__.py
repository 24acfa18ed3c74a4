"""Faults that a training run must survive: `python -m tests.faults --seed N`, or `make faults`.

Each fault is done to a run of the tiny recipe in a process of its own. Afterwards, whatever the fault,

1. no good checkpoint is lost,
2. the same command ends with the bits of a run without faults,
3. an error is one line, with the right exit status,
4. no process hangs.

One file is one kind of faults, or a group of them; `registry.py` lists them.
"""
