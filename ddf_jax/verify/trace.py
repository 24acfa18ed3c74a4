"""The values that are compared: all that one forward pass, one backward pass and one training step compute."""

import numpy as np

TrainingTrace = dict[str, dict[str, np.ndarray]]
"""By kind of value (`TRACE_KINDS`), then by official name: an array in PyTorch's layout."""

LOGITS = "logits"
INPUT = "input"
OUTPUT = "output"  # of an upsampler that is compared alone
LAYER_INPUTS = (INPUT, "guidance")

TRACE_KINDS = {
    "evaluation": "output of each layer with running statistics",
    "training": "output of each layer with the batch's statistics",
    "loss": "cross entropy in training",
    "gradient": "of the loss, for each parameter and the input",
    "statistics": "running statistics after the batch",
    "step": "each parameter after a step of SGD",
}

# The step: SGD with momentum and weight decay, as in the papers.
LEARNING_RATE = 0.1
MOMENTUM = 0.9
WEIGHT_DECAY = 1e-4
