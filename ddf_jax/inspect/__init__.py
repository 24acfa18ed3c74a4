"""Pictures of a trained network: generated filters, class activation maps, power spectra."""

from ddf_jax.inspect.attribution import Activations as Activations
from ddf_jax.inspect.attribution import compute_activations as compute_activations
from ddf_jax.inspect.attribution import grad_cam as grad_cam
from ddf_jax.inspect.attribution import layer_shapes as layer_shapes
from ddf_jax.inspect.pictures import Picture as Picture
from ddf_jax.inspect.pictures import inspect_run as inspect_run
from ddf_jax.inspect.spectra import power_spectrum as power_spectrum
