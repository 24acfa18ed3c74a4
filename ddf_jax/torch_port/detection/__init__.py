"""Detectors in PyTorch with the parameter names and the numbers of MMDetection, for comparison.

Boxes, anchors, assignment, suppression, RoIAlign and post-processing are written in plain PyTorch; neither torchvision
nor MMDetection is needed.
"""

from ddf_jax.torch_port.detection.detections import Detections as Detections
from ddf_jax.torch_port.detection.detector import Detector as Detector
from ddf_jax.torch_port.detection.names import create as create
from ddf_jax.torch_port.detection.names import list_models as list_models
from ddf_jax.torch_port.detection.recorded import quantities as quantities
from ddf_jax.torch_port.detection.settings import Settings as Settings
from ddf_jax.torch_port.detection.settings import Truth as Truth
from ddf_jax.torch_port.detection.settings import golden_order as golden_order
