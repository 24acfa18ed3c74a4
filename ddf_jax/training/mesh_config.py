"""The fields of a recipe that arrange its devices."""

import dataclasses

from ddf_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Axes of the mesh of devices. Any arrangement gives the same losses to rounding."""

    data: int = 0
    """Groups of devices that share a batch, each with all parameters; 0: as many as the other axes leave."""
    fsdp: int = 1
    """Devices that share a batch, the parameters and the optimizer's state (as ZeRO does)."""
    tensor: int = 1
    """Devices that share the channels of the blocks whose spatial operator keeps channels apart."""

    def __post_init__(self) -> None:
        if self.data < 0 or self.fsdp < 1 or self.tensor < 1:
            raise UserError(
                f"`mesh` must have `data` from 0 on (0: the rest) and `fsdp` and `tensor` from 1 on, got {self}."
            )

    def shape(self, devices: int) -> tuple[int, int, int]:
        """The sizes of the axes for a number of devices.

        Raises:
            UserError: the devices cannot be arranged so.

        >>> MeshConfig(fsdp=2).shape(8)
        (4, 2, 1)
        """
        rest, left = divmod(devices, self.fsdp * self.tensor)
        data = self.data or rest
        if data * self.fsdp * self.tensor != devices or left:
            raise UserError(
                f"`mesh` must arrange all {devices} devices, but data {self.data or 'the rest'} × fsdp {self.fsdp} × "
                f"tensor {self.tensor} does not. Change an axis, or leave `mesh.data` at 0."
            )
        return data, self.fsdp, self.tensor
