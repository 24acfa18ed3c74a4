"""Functions without parameters: activations, pooling, strided views, convolution, upsampling, checks of shapes."""

from ddf_jax.functional.activations import relu as relu
from ddf_jax.functional.checks import check_channels as check_channels
from ddf_jax.functional.checks import check_feature_map as check_feature_map
from ddf_jax.functional.joint_upsampling import bicubic_upsample as bicubic_upsample
from ddf_jax.functional.joint_upsampling import blocks as blocks
from ddf_jax.functional.joint_upsampling import colour_distances as colour_distances
from ddf_jax.functional.joint_upsampling import depth_to_space as depth_to_space
from ddf_jax.functional.joint_upsampling import fill_holes as fill_holes
from ddf_jax.functional.joint_upsampling import guided_upsample as guided_upsample
from ddf_jax.functional.joint_upsampling import joint_bilateral_upsample as joint_bilateral_upsample
from ddf_jax.functional.joint_upsampling import neighbours as neighbours
from ddf_jax.functional.joint_upsampling import pad_to as pad_to
from ddf_jax.functional.joint_upsampling import place_distances as place_distances
from ddf_jax.functional.joint_upsampling import space_to_depth as space_to_depth
from ddf_jax.functional.joint_upsampling import window_logits as window_logits
from ddf_jax.functional.kernel_gradient import convolution as convolution
from ddf_jax.functional.per_channel import channel_spread as channel_spread
from ddf_jax.functional.per_channel import channel_sums as channel_sums
from ddf_jax.functional.per_channel import rectified_affine as rectified_affine
from ddf_jax.functional.per_sample import per_sample_conv as per_sample_conv
from ddf_jax.functional.pooling import average_pool as average_pool
from ddf_jax.functional.pooling import global_average as global_average
from ddf_jax.functional.pooling import max_pool as max_pool
from ddf_jax.functional.pooling import maximum as maximum
from ddf_jax.functional.views import strided as strided
