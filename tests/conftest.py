"""Set-up of all tests: one thread per process (the tensors are tiny, and several processes share the machine)."""

import os

# Before torch is imported; processes started by tests inherit it.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import torch  # noqa: E402

torch.set_num_threads(1)
