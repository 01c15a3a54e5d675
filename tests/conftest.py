"""What holds for every test."""

from __future__ import annotations

import torch

# The networks here are tiny: more threads only wait for each other, and tests run beside other work.
torch.set_num_threads(1)
