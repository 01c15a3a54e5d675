"""What holds for every test."""

from __future__ import annotations

import torch
from hypothesis import settings

# The networks here are tiny: more threads only wait for each other, and tests run beside other work.
torch.set_num_threads(1)

# The same examples at every run, so that a commit passes or fails for good; `pytest --hypothesis-profile explore`
# draws new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile("repeatable")
