"""The operators, layers and networks in PyTorch, for comparison and for the exchange of checkpoints.

The formulation is independent (`torch.nn.functional.unfold`, autograd for every gradient), in PyTorch's layout and with
the parameter names of the official repositories, whose checkpoints load with `strict=True`. It runs wherever PyTorch
runs, in any floating dtype, at any image size. It needs the extra `torch` (`pip install "ddf-jax[torch]"`).
"""

from ddf_jax.torch_port.carafe import CARAFE as CARAFE
from ddf_jax.torch_port.ddf import DDF as DDF
from ddf_jax.torch_port.ddf import DDFUp as DDFUp
from ddf_jax.torch_port.ddf import FilterNorm as FilterNorm
from ddf_jax.torch_port.involution import Involution as Involution
from ddf_jax.torch_port.nat import NAT as NAT
from ddf_jax.torch_port.networks import create as create
from ddf_jax.torch_port.networks import list_models as list_models
from ddf_jax.torch_port.operators import dynamic_filter as dynamic_filter
from ddf_jax.torch_port.operators import dynamic_upsample as dynamic_upsample
from ddf_jax.torch_port.rednet import RedNet as RedNet
from ddf_jax.torch_port.resnet import ResNet as ResNet
from ddf_jax.torch_port.san import SAN as SAN
