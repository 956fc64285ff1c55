"""Expressions over `tf` whose results are Python values, hold infinities, or are lenient where TensorFlow is not."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from returnn_lite.compat.tf import Context, Namespace, eval_names, helper_functions, unwrap, wrap

NAMES = {
    "tf": eval_names()["tf"],
    "U": Namespace("U", helper_functions(Context())),
    "x": wrap(torch.tensor([[1.789, 0.437, 0.096], [-1.863, -0.277, -0.355]])),
    "p": wrap(torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.5, 0.0]])),
    "z3": wrap(torch.arange(1.0, 25.0).reshape(2, 4, 3)),
    "bb": wrap(torch.tensor([[True, False, True], [False, False, True]])),
}
INF = math.inf


@pytest.mark.parametrize("text, expected", [
    ("x.get_shape().ndims", 2),
    ("x.get_shape().as_list()", [2, 3]),
    ("len(x.shape)", 2),
    ("x.dtype == tf.float32", True),
    ("U.get_shape(x)[1]", 3),
    ("U.get_shape_dim(x, 1)", 3),
])  # fmt: skip
def test_python_values(text: str, expected: Any):
    value = eval(text, dict(NAMES))
    assert value == expected and type(value) is type(expected)


LOG = [[-2.3025851, -1.6094379, -0.3566750], [-0.6931472, -0.6931472, -INF]]
CHOSEN = [[1.789, -INF, 0.096], [-INF, -INF, -0.355]]


@pytest.mark.parametrize("text, expected", [
    ("tf.log(p)", LOG),
    ("tf.math.log(p)", LOG),
    ("tf.where(bb, x, -float('inf'))", CHOSEN),
    ("U.where_bc(bb, x, float('-inf'))", CHOSEN),
])  # fmt: skip
def test_infinities(text: str, expected: list[list[float]]):
    torch.testing.assert_close(unwrap(eval(text, dict(NAMES))), torch.tensor(expected), rtol=1e-6, atol=1e-6)


def test_log_sigmoid_is_a_helper_too():
    assert eval_names()["log_sigmoid"](torch.zeros(1)).item() == pytest.approx(-math.log(2))


def test_an_int_beside_floats_is_taken_as_float():
    """TensorFlow raises a TypeError; configs that mean 0.0 run here."""
    value = unwrap(eval("U.where_bc(bb[:, None, :], z3, 0)", dict(NAMES)))
    assert value.dtype == torch.float32
    assert value[:, 0].tolist() == [[1.0, 0.0, 3.0], [0.0, 0.0, 15.0]]
