"""Values with other gradients than their own."""

import pytest
import torch

from returnn_lite.ops.elementwise import log_above
from returnn_lite.ops.gradients import filtered_gradient, reported_as, scaled_gradient, with_gradient


def grad_of(y: torch.Tensor, x: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    (found,) = torch.autograd.grad(y, x, torch.ones_like(y) if weights is None else weights)
    return found


def test_a_given_gradient() -> None:
    x = torch.zeros(2, 3, requires_grad=True)
    gradient = torch.arange(6.0).reshape(2, 3)
    y = with_gradient(x, torch.tensor([5.0, 7.0]), gradient)
    assert y.tolist() == [5.0, 7.0]
    assert torch.equal(grad_of(y, x, torch.tensor([1.0, 10.0])), gradient * torch.tensor([[1.0], [10.0]]))
    assert torch.equal(grad_of(with_gradient(x, torch.tensor(1.0), gradient), x, torch.tensor(2.0)), 2 * gradient)


def test_reported_as_another_value() -> None:
    x = torch.tensor([0.3, 2.7], requires_grad=True)
    y = reported_as(x.round(), x * 3)
    assert y.tolist() == [0.0, 3.0] and grad_of(y, x).tolist() == [3.0, 3.0]


@pytest.mark.parametrize(("scale", "shift", "axis"), [(2.0, 0.0, None), (-1.0, 0.5, None), (0.5, 2.0, 1)])
def test_a_scaled_gradient(scale: float, shift: float, axis: int | None) -> None:
    x, g = torch.ones(2, 3, requires_grad=True), torch.tensor([[1.0, -2.0, 3.0], [0.0, 1.0, 1.0]])
    y = scaled_gradient(x, scale, shift, axis)
    assert torch.equal(y, x)
    wanted = g * scale + shift * (1.0 if axis is None else g.abs().sum(axis, keepdim=True))
    torch.testing.assert_close(grad_of(y, x, g), wanted)
    assert not scaled_gradient(x, 0.0).requires_grad


def test_a_logarithm_that_is_bounded_below() -> None:
    x = torch.tensor([0.0, 0.5], requires_grad=True)
    for fake, below in ((True, 10.0), (False, 0.0)):
        y = log_above(x, 0.1, fake_gradient=fake)
        torch.testing.assert_close(y, torch.tensor([0.1, 0.5]).log())
        torch.testing.assert_close(grad_of(y, x), torch.tensor([below, 2.0]))


def test_large_gradients_of_a_sequence_are_dropped() -> None:
    x, g = torch.zeros(2, 2, requires_grad=True), torch.tensor([[1.0, 0.5], [0.1, -3.0]])
    assert grad_of(filtered_gradient(x, 0, 4.0), x, g).tolist() == [[1.0, 0.5], [0.0, 0.0]]
    assert grad_of(filtered_gradient(x, 1, 4.0), x, g).tolist() == [[1.0, 0.0], [pytest.approx(0.1), 0.0]]
    assert not grad_of(filtered_gradient(x, None, 4.0), x, g).any()
