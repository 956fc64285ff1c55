"""Products by oneDNN where those of torch are slow: the same numbers and gradients; and what is left to torch."""

import pytest
import torch
import torch.nn.functional as F

from returnn_lite.ops import kernels
from returnn_lite.ops import linear as module
from returnn_lite.ops.linear import added_product, linear

available = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
TENSORS = {"x": (2, 40, 30), "weight": (30, 50), "bias": (50,), "sums": (40, 50)}


@pytest.fixture
def calls(monkeypatch):
    """The products of oneDNN, on a machine on which torch's own are slow, however small they are."""
    made, product = [], module._product
    monkeypatch.setattr(module, "slow_products", lambda: True)
    monkeypatch.setattr(module, "FEWEST", 1)
    monkeypatch.setattr(module, "FEWEST_AGAIN", 1)
    monkeypatch.setattr(module, "_product", lambda *args: made.append(args[0].shape) or product(*args))
    return made


def leaves():
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(size, generator=generator).requires_grad_() for name, size in TENSORS.items()}


FORMS = {
    "linear": lambda x, weight, bias, sums: linear(x, weight.t().contiguous(), bias),
    "weights transposed": lambda x, weight, bias, sums: linear(x, weight.t(), bias),
    "without bias": lambda x, weight, bias, sums: linear(x, weight.t()),
    "time in front": lambda x, weight, bias, sums: linear(x.transpose(0, 1), weight.t(), bias),
    "repeated": lambda x, weight, bias, sums: linear(x[:1].expand(3, -1, -1), weight.t(), bias),
    "narrowing": lambda x, weight, bias, sums: linear(sums, weight),
    "narrowing, transposed": lambda x, weight, bias, sums: linear(sums, weight.t().contiguous().t()),
    "sums": lambda x, weight, bias, sums: added_product(sums, x[0], weight),
    "a sum for all": lambda x, weight, bias, sums: added_product(bias, x[0], weight),
    "a sum for all, as a row": lambda x, weight, bias, sums: added_product(sums[:1], x[0], weight),
}


@available
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_numbers_and_gradients_are_those_of_torch(form, calls, monkeypatch):
    def results():
        given = leaves()
        out = form(**given)
        first = torch.autograd.grad(
            (out * out.detach().cos()).sum(), given.values(), create_graph=True, allow_unused=True
        )
        again = sum((g.square() * g.detach().sin()).sum() for g in first if g is not None)
        return [out, *first, *torch.autograd.grad(again, given.values(), allow_unused=True)]

    found = results()
    assert len(calls) >= 5  # one forward, two backward, and those for the gradients of the gradients
    monkeypatch.setattr(module, "slow_products", lambda: False)
    calls.clear()
    for mine, torchs in zip(found, results(), strict=True):
        assert (mine is None) == (torchs is None)
        if mine is not None:
            torch.testing.assert_close(mine, torchs, rtol=1e-4, atol=1e-3)
    assert not calls


@available
def test_gradients_that_nobody_wants_are_not_computed(calls):
    x, weight = torch.randn(40, 30), torch.randn(50, 30, requires_grad=True)
    linear(x, weight).sum().backward()
    assert calls == [(40, 30), (30, 40)]
    with torch.no_grad():
        assert not linear(x, weight).requires_grad


@available
@pytest.mark.parametrize("size", [(30, 50), (50, 30)])
def test_gradients_lie_in_memory_as_their_weights(size, calls):
    weight = torch.randn(size)
    for used in (weight, weight.t()):
        given = used.detach().requires_grad_()
        (found,) = torch.autograd.grad(linear(torch.randn(40, used.shape[1]), given).sum(), given)
        assert found.stride() == used.stride()
    assert len(calls) == 4


def vmapped(x, weight):
    return torch.vmap(lambda w: linear(x, w))(torch.stack([weight, weight]))[0]


def in_half_precision(x, weight):
    with torch.autocast("cpu", torch.bfloat16):
        return linear(x, weight)


def without_onednn(x, weight):
    torch.backends.mkldnn.set_flags(_enabled=False)
    try:
        return linear(x, weight)
    finally:
        torch.backends.mkldnn.set_flags(_enabled=True)


LEFT_ALONE = {
    "doubles": lambda x, weight: linear(x.double(), weight.double()),
    "vmap": vmapped,
    "mixed precision": in_half_precision,
    "switched off": without_onednn,
    "few rows": lambda x, weight: linear(x[:3], weight),
    "no rows": lambda x, weight: linear(x[:0], weight),
}


@available
@pytest.mark.parametrize("use", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_left_to_torch(use, calls):
    x, weight = torch.randn(40, 30), torch.randn(50, 30)
    found = use(x, weight)
    assert not calls
    torch.testing.assert_close(found.float(), F.linear(x, weight)[: len(found)], rtol=0.05, atol=0.2)


@pytest.mark.parametrize(
    ("cpu", "capability", "slow"),
    [
        ("vendor_id\t: AuthenticAMD cpu family\t: 26", "AVX512", True),
        ("vendor_id\t: AuthenticAMD cpu family\t: 25", "AVX512", False),
        ("vendor_id\t: AuthenticAMD cpu family\t: 26", "AVX2", False),
        ("vendor_id\t: GenuineIntel cpu family\t: 6", "AVX512", False),
        ("AMD64 Family 26 Model 68 Stepping 0, AuthenticAMD", "AVX512", True),
        ("", "AVX512", False),
    ],
)
def test_where_products_are_slow(cpu, capability, slow, monkeypatch):
    monkeypatch.setattr(kernels, "_cpu", lambda: cpu)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    for backend in (torch.backends.mkl, torch.backends.mkldnn):
        monkeypatch.setattr(backend, "is_available", lambda: True)
    for known in (kernels.slow_functions, kernels.slow_products):
        known.cache_clear()
    try:
        assert kernels.slow_products() is slow
    finally:
        for known in (kernels.slow_functions, kernels.slow_products):
            known.cache_clear()
