"""`torch_compile`: runs of layers of a program as functions of raw tensors, compiled for any batch and time sizes."""
