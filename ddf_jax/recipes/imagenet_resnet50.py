"""The baseline of `imagenet_ddf_resnet50`: the same recipe with 3×3 convolutions instead of dynamic filters.

Command:   ddf train imagenet_resnet50
Hardware:  8 H200 (`ddf plan imagenet_resnet50` shows what each of them holds)
Time:      not yet run
Expected:  77.2 % top-1 (Zhou et al., CVPR 2021, Table 5); not yet run here
"""

import dataclasses

from ddf_jax.recipes.imagenet_ddf_resnet50 import recipe as ddf

recipe = dataclasses.replace(ddf, name="imagenet_resnet50", model=dataclasses.replace(ddf.model, name="resnet50"))
