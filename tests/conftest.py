"""One thread for torch: the suite is small, and machines that measure latency share their cores with it."""

import torch

torch.set_num_threads(1)
