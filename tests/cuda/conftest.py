"""Tests that need a GPU: deselected where there is none, which is said."""

from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config, items):
    """Takes the files of this folder out, unless there is a GPU."""
    if torch.cuda.is_available():
        return
    left_out = [item for item in items if item.path.is_relative_to(HERE)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_report_header():
    """Says it."""
    return None if torch.cuda.is_available() else "tests/cuda: deselected, they need a GPU"


@pytest.fixture
def cuda():
    """The options of a run on the GPU."""
    return {"device": "cuda"}
