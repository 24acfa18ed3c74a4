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
    height: int = 1
    """Devices that share the rows of each image, for images too large for one."""

    def __post_init__(self) -> None:
        if self.data < 0 or min(self.fsdp, self.tensor, self.height) < 1:
            raise UserError(
                f"`mesh` must have `data` from 0 on (0: the rest) and `fsdp`, `tensor`, `height` from 1 on, got {self}."
            )

    def shape(self, devices: int) -> tuple[int, int, int, int]:
        """The sizes of the axes for a number of devices.

        Raises:
            UserError: the devices cannot be arranged so.

        >>> MeshConfig(fsdp=2).shape(8)
        (4, 2, 1, 1)
        """
        others = self.fsdp * self.tensor * self.height
        data = self.data or devices // others
        if data * others != devices:
            raise UserError(
                f"`mesh` must arrange all {devices} devices, but data {self.data or 'the rest'} × fsdp {self.fsdp} × "
                f"tensor {self.tensor} × height {self.height} does not. Change an axis, or leave `mesh.data` at 0."
            )
        return data, self.fsdp, self.tensor, self.height
