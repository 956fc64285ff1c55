"""RETURNN's config language on PyTorch: datasets, layer networks, training, forward and search from one config file.

Importing this package is cheap: nothing heavy (torch, h5py, …) is loaded before a task needs it.
"""

__version__ = "0.1.0"
