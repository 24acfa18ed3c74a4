"""An image and a depth map of lower resolution in, depth of the image's resolution out."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ddf_jax.data.decode import decode_depth, decode_image, encode_depth, encode_png
from ddf_jax.errors import UserError
from ddf_jax.serving.services import Arrays, Example, Service, Size, data_url
from ddf_jax.training.tasks import Model

LARGEST = 65.534
"""Metres: whole millimetres in 16 bits, without 65535."""


class DepthService(Service):
    """`image` uint8 [B, H, W, 3] and `low` float32 [B, ⌈H/S⌉, ⌈W/S⌉, 1], 0 in holes, to `depth` float32 [B, H, W, 1].

    The unit of `depth` is that of `low`; files are in metres. Both are read as stored: turning one of the two by its
    EXIF orientation would tear the scene apart.
    """

    files: ClassVar[Mapping[str, str]] = {
        "image": "an image: PNG, JPEG, WebP, …",
        "depth": "its depth map: a grey PNG, TIFF or PGM of 16 bits in millimetres, a TIFF or NPY of floats in metres",
    }
    max_pixels: ClassVar[int] = 1 << 20
    any_size: ClassVar[bool] = False  # holes are filled by a pyramid, whose height depends on the size
    resizes: ClassVar[bool] = False

    def inputs(self, batch: Size, height: Size, width: Size) -> list[dict[str, jax.ShapeDtypeStruct]]:
        low = self.task.low_shape(height, width)
        return [
            {
                "image": jax.ShapeDtypeStruct((batch, height, width, self.info.channels), jnp.uint8),
                "low": jax.ShapeDtypeStruct((batch, *low, 1), jnp.float32),
            }
        ]

    def compute(self, model: Model, arrays: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        image = arrays["image"].astype(jnp.float32) / 255
        return {"depth": self.task.predict(model, {"image": image, "low": arrays["low"]})}

    def read(self, files: Mapping[str, bytes], *, picture: bool = False) -> Example:
        image = decode_image(files["image"], self.info.channels, self.data.decoding, upright=False)
        low, (height, width) = decode_depth(files["depth"], max_pixels=self.data.max_pixels), image.shape[:2]
        self.task.check_low(low.shape, height, width)
        if not 0 < low.max() <= LARGEST:
            raise UserError(f"Depth must be measured somewhere and at most {LARGEST} m, got {low.max():.4g} m.")
        return Example({"image": image, "low": low[..., None]}, (height, width), image if picture else None)

    def answer(self, name: str, outputs: Arrays, example: Example) -> dict[str, Any]:
        depth = np.clip(outputs["depth"][..., 0], 0.001, LARGEST)  # 0 and 65535 would mean that nothing was measured
        height, width = example.size
        document = {
            "out": data_url(encode_depth(depth).getvalue()),
            "height": height,
            "width": width,
            "scale": self.task.scale,
        }
        if example.image is not None:
            shades = np.interp(depth, (depth.min(), max(depth.max(), depth.min() + 0.001)), (255, 0)).astype(np.uint8)
            document["picture"] = data_url(encode_png(shades).getvalue())
        return document
