"""One thread: the problems here are small, and other tests may share the cores."""

import torch

torch.set_num_threads(1)
