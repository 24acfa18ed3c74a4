"""What a server takes at most, so that no request costs the others their answers or the machine its memory."""

import dataclasses

from ddf_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of requests; one that exceeds them is refused with the status in brackets."""

    max_bytes: int = 16 << 20
    """Of a request's body [413]."""
    max_pixels: int | None = None
    """Of an image [413], and of a batch; default: 2²⁴ of a classifier, 2²² of a detector, 2²⁰ for depth."""
    max_requests: int = 64
    """Requests that are read or wait for their answer at a time [503]."""
    max_batch: int = 8
    """Images that are computed together."""
    batch_seconds: float = 0.005
    """Time that an image waits for others to share a batch with."""
    read_seconds: float = 10.0
    """Time to send a request [408]."""
    answer_seconds: float = 30.0
    """Time from then to the answer [503]."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "batch_seconds" else 1 if isinstance(value, int) else 1e-3
            if value is not None and not least <= value < float("inf"):
                raise UserError(f"`{field.name}` must be at least {least}, got {value}.")
