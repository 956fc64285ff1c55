"""Set-up of all tests: one thread per process (the tensors are tiny, and several processes share the machine)."""

import os
import signal

# Before torch is imported; processes started by tests inherit it.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

# Shells have background jobs ignore it, and so would all programs that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import torch  # noqa: E402

torch.set_num_threads(1)


def pytest_terminal_summary(terminalreporter):
    """Says how many layer classes the suites of tests/layers run over (a test there demands a row for each)."""
    from returnn_lite.tools.layer_reference import classes

    terminalreporter.write_line(f"layer classes, each with rows in the suites over all layers: {len(classes())}")
