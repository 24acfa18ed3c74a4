"""What a trained network does with an image, as arrays and as pictures."""

from ddf_jax.inspect.grad_cam import grad_cam as grad_cam
from ddf_jax.inspect.observe import Observation as Observation
from ddf_jax.inspect.observe import layer_shapes as layer_shapes
from ddf_jax.inspect.observe import observe as observe
from ddf_jax.inspect.pictures import inspect_run as inspect_run
from ddf_jax.inspect.spectrum import power_spectrum as power_spectrum
