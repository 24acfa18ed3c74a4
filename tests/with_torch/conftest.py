"""Each worker of pytest computes on one core: two that share all cores wait for each other."""

import torch

torch.set_num_threads(1)
