"""One thread for torch: on tables of a few rows threads only wait for each other, all the more beside other work."""

import importlib.util

if importlib.util.find_spec("torch") is not None:
    import torch

    torch.set_num_threads(1)
