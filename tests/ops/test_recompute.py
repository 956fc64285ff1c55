"""Values that are computed again for the gradient: the same numbers, and less memory in between."""

import contextlib

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from returnn_lite.ops.recompute import recomputed


class Produced(TorchDispatchMode):
    """Storages of all results, to ask which are still held."""

    def __init__(self):
        super().__init__()
        self.storages = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.storages[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        return result

    def held(self):
        return sum(size for storage, size in self.storages.values() if not storage.expired())


class Block(torch.nn.Module):
    """Products, dropout, norms with and without statistics, views, operations in place."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(8, 32), torch.nn.Linear(32, 8)
        self.layer_norm, self.batch_norm = torch.nn.LayerNorm(32), torch.nn.BatchNorm1d(32)

    def forward(self, x):
        hidden = torch.nn.functional.dropout(self.batch_norm(self.layer_norm(self.first(x))).tanh(), 0.3)
        left, right = hidden.chunk(2, -1)
        hidden = torch.cat([left * right.sigmoid(), torch.zeros_like(right).normal_().add_(right)], -1)
        return x + self.second(torch.where(hidden > 0, hidden, hidden.exp() - 1)).squeeze(-1)


def trained(scope, *, blocks=3):
    """Gradients and buffers, bytes held between forward and backward, the next random number."""
    torch.manual_seed(3)
    net = torch.nn.ModuleList([Block() for _ in range(blocks)])
    x = torch.randn(64, 8, requires_grad=True)
    with Produced() as produced:
        y = x
        for block in net:
            with scope():
                y = block(y)
        loss = (y * y).sum()
        held = produced.held()
    drawn = torch.rand(())
    loss.backward()
    numbers = [x.grad, *(p.grad for p in net.parameters()), *net.buffers(), drawn, torch.rand(())]
    return [n.clone() for n in numbers], held


def test_the_same_numbers_in_less_memory():
    plain, much = trained(contextlib.nullcontext)
    again, little = trained(recomputed)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    assert little < much / 5


def test_in_another_scope_and_without_gradients_it_has_no_effect():
    x = torch.ones(3, requires_grad=True)
    with recomputed(), recomputed():
        y = x.exp().tanh()
    (grad,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(grad, (1 - x.exp().tanh() ** 2) * x.exp())
    with torch.no_grad(), recomputed():
        assert not x.exp().requires_grad


def test_twice_and_twice_differentiable():
    x = torch.linspace(-1, 1, 5, requires_grad=True)
    with recomputed():
        y = x.exp().sin()
    for _ in range(2):
        (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), x, retain_graph=True)
        torch.testing.assert_close(first, x.exp().cos() * x.exp())
        torch.testing.assert_close(second, x.exp().cos() * x.exp() - x.exp().sin() * x.exp() ** 2)


def test_a_value_that_was_changed_in_place_is_refused_as_ever():
    x = torch.ones(3, requires_grad=True)
    with recomputed():
        y = x.exp()
        y.detach().add_(1)
    with pytest.raises(RuntimeError, match="modified in place"):
        y.sum().backward()


def test_hooks_hold_what_comes_from_outside():
    held = {}

    def pack(tensor):
        held[len(held)] = tensor.clone()
        return len(held) - 1

    x, w = torch.linspace(-1, 1, 5, requires_grad=True), torch.linspace(1, 2, 5)
    weights = w.clone()
    with recomputed((pack, lambda number: held[number])):
        y = (x.exp() * w).tanh() * w
    w.zero_()  # nobody reads it any more
    (grad,) = torch.autograd.grad(y.sum(), x)
    z = x.detach().exp() * weights
    torch.testing.assert_close(grad, (1 - z.tanh() ** 2) * weights * z)


def test_complex_views_and_a_generator():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, requires_grad=True)
    grads = []
    for scope in (contextlib.nullcontext, recomputed):
        generator.manual_seed(1)
        with scope():
            noise = torch.rand(4, generator=generator)
            y = torch.fft.rfft(x * noise).conj()
            y = (y * y.conj()).real * y.imag
        grads.append(torch.autograd.grad(y.sum(), x)[0])
    assert torch.equal(*grads)
