"""Set-up of all tests: one thread per process (the tensors are tiny, and several processes share the machine)."""

import os
import signal

# Before torch is imported; processes started by tests inherit it.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

# Shells have background jobs ignore it, and so would all programs that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)

HERE = Path(__file__).parent
# What starts programs, trains for long, or reads the whole source: left out by `make test-fast`.
SLOW = """
    agent/test_agent.py agent/test_ppo_options.py client compat/test_torch_configs.py configs engine/test_check.py
    engine/test_data.py engine/test_distributed.py engine/test_eval_views.py engine/test_interrupt.py
    engine/test_old_configs.py engine/test_own_layers.py engine/test_pretrain.py engine/test_schedules.py
    engine/test_torch_model.py engine/test_train.py faults network/test_construction_cost.py network/test_depth.py
    network/test_saving.py optim/test_docs_resume.py package rec/test_compiled.py test_house_rules.py
    to_torch/test_recipes.py to_torch/test_to_torch.py tools/test_compatibility.py tools/test_scripts.py
""".split()


def pytest_collection_modifyitems(items):
    """Marks the slow files."""
    slow = [HERE / name for name in SLOW]
    for item in items:
        if any(item.path == path or path in item.path.parents for path in slow):
            item.add_marker(pytest.mark.slow)


def pytest_terminal_summary(terminalreporter):
    """Says how many layer classes the suites of tests/layers run over (a test there demands a row for each)."""
    from returnn_lite.tools.layer_reference import classes

    terminalreporter.write_line(f"layer classes, each with rows in the suites over all layers: {len(classes())}")
