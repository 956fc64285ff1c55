"""Eval strings that are plain arithmetic."""

import sys

import pytest
import torch

from returnn_lite.layers.arithmetic import formula


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("source(0) + source(1) * 0.5", 3.5),
        (" (source(0) - 1) / source(1)\n", 1 / 3),
        ("-source(0) * -2", 4.0),
        ("source(0) / 4 + source(0)", 2.5),
    ],
)
def test_value(text, want):
    found = formula(text)
    assert found is not None
    assert found([torch.tensor(2.0), torch.tensor(3.0)]).item() == pytest.approx(want)


def test_sources_that_are_read():
    assert formula("source(2) + source(0)").reads == {0, 2}


@pytest.mark.parametrize(
    "text",
    [
        "tf.tanh(source(0))",
        "source(0, as_data=True)",
        "source(-1)",
        "source(i)",
        "source(True)",
        "source(0) ** 2",
        "source(0) // 2",
        "source(0) + True",
        "source(0) + 'a'",
        "source(0)[0]",
        "1.0",
        "source(0) if 1 else source(1)",
        "source(0) +",
        "self.network",
    ],
)
def test_other_code(text):
    assert formula(text) is None


def test_torch_may_import_modules_meanwhile():
    """It does so with the names of the frame that calls it, for instance in the first step with `grad_checkpoint`."""
    found = []
    formula("source(0) + 1").function(lambda i: found.append(sys._getframe(1).f_builtins) or i)
    assert "__import__" in found[0]
