"""What is compared: everything that one forward pass, one backward pass and one step of a model compute."""

from collections.abc import Callable

import numpy as np

# Kind of value, then official name, to array in torch's layout.
Observation = dict[str, dict[str, np.ndarray]]
Observe = Callable[..., Observation]

LOGITS = "logits"
INPUT = "input"
OUTPUT = "output"  # of a layer that is compared alone
LAYER_INPUTS = (INPUT, "guidance")

KINDS = {
    "evaluation": "output of each layer with running statistics",
    "training": "output of each layer with the batch's statistics",
    "loss": "cross entropy in training",
    "gradient": "of the loss, for each parameter and the input",
    "statistics": "running statistics after the batch",
    "step": "each parameter after a step of SGD",
}

# The step: momentum SGD with decay, as the papers train.
LEARNING_RATE = 0.1
MOMENTUM = 0.9
WEIGHT_DECAY = 1e-4
