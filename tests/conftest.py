"""Set-up of all tests: one thread per process (the tensors are tiny, and several processes share the machine)."""

import os

# Before torch is imported; processes started by tests inherit it.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import torch  # noqa: E402

torch.set_num_threads(1)


def pytest_terminal_summary(terminalreporter):
    """Says how many layer classes the suites of tests/layers run over (a test there demands a row for each)."""
    from returnn_lite.tools.layer_reference import classes

    terminalreporter.write_line(f"layer classes, each with rows in the suites over all layers: {len(classes())}")
