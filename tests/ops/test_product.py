"""`product` against `torch.einsum`."""

import pytest
import torch

from returnn_lite.ops.product import product

SIZES = {"b": 2, "t": 5, "h": 3, "k": 1, "q": 4, "f": 6, "l": 2}


@pytest.mark.parametrize(
    "equation",
    [
        "bt,btf->bf",  # attention
        "bkt,tbf->bkf",  # weights with an axis of size 1, base time-major
        "tb,tbf->bf",
        "bth,bthf->bhf",  # heads
        "lbt,tbf->lbf",  # many queries
        "bqlt,btf->bqlf",
        "bqlt,btf->qblf",  # result in another order
        "bt,bt->b",
        "t,tf->f",
        "bht,bthfq->bhfq",
        "bth,bthf->bf",  # two axes summed
    ],
)
def test_product_is_einsum(equation):
    """Same values, same gradients."""
    inputs = equation.split("->")[0].split(",")
    a, b = (torch.randn([SIZES[c] for c in letters], dtype=torch.float64, requires_grad=True) for letters in inputs)
    ours, expected = product(equation, a, b), torch.einsum(equation, a, b)
    assert ours.shape == expected.shape
    torch.testing.assert_close(ours, expected)
    weights = torch.randn_like(expected)
    for mine, reference in zip(
        torch.autograd.grad(ours, (a, b), weights), torch.autograd.grad(expected, (a, b), weights), strict=True
    ):
        torch.testing.assert_close(mine, reference)


def test_product_of_nothing():
    """No frames give a sum of 0."""
    assert product("bt,btf->bf", torch.zeros(2, 0), torch.zeros(2, 0, 3)).tolist() == [[0.0] * 3] * 2
    assert product("bqt,btf->bqf", torch.zeros(0, 2, 4), torch.zeros(0, 4, 3)).shape == (0, 2, 3)
