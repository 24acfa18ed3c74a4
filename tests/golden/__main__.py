"""Records the values: `python -m tests.golden`."""

from ddf_jax import torch_port
from ddf_jax.verify.random_inputs import random_weights
from ddf_jax.verify.torch_trace import trace_port
from tests.golden.fingerprint import MARGIN, MODELS, NUM_CLASSES, OPTIONS, Fingerprint, fingerprint, inputs, save


def record(name: str) -> Fingerprint:
    """What the port computes now."""
    model = torch_port.create(name, num_classes=NUM_CLASSES, **OPTIONS)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    weights = random_weights(shapes, margin=MARGIN)
    return fingerprint(trace_port(model, weights, inputs(), dtype="float64"))


if __name__ == "__main__":
    for model in MODELS:
        save(model, record(model))
