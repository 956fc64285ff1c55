"""The hyperbolic tangent in its own form: exact, also at the ends and near 0, with the gradient of torch's."""

import math

import pytest
import torch

from returnn_lite.ops import kernels
from returnn_lite.ops.tanh import LARGE, by_expm1, tanh


@pytest.fixture
def slow(monkeypatch):
    """A machine on which torch's own is slow."""
    monkeypatch.setattr("returnn_lite.ops.tanh.slow_functions", lambda: True)


def test_relative_error():
    x = torch.cat([torch.linspace(-12, 12, 100001), torch.logspace(-37, 38, 10001), -torch.logspace(-37, 38, 10001)])
    wanted = torch.tanh(x.double())
    error = (by_expm1(x).double() - wanted).abs() / wanted.abs().clamp(min=1e-37)
    assert float(error.max()) < 2e-7


def test_ends():
    found = by_expm1(torch.tensor([math.inf, -math.inf, math.nan, 0.0, -0.0]))
    assert (
        found[:2].tolist() == [1.0, -1.0] and bool(found[2].isnan()) and found[3:].signbit().tolist() == [False, True]
    )


def test_gradient(slow):
    x = torch.linspace(-4, 4, LARGE).requires_grad_()
    (tanh(x) * 3).sum().backward()
    torch.testing.assert_close(x.grad, 3 * (1 - torch.tanh(x.detach()) ** 2), atol=1e-6, rtol=1e-5)
    (first,) = torch.autograd.grad(tanh(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    y = torch.tanh(x.detach())
    torch.testing.assert_close(second, -2 * y * (1 - y**2), atol=1e-6, rtol=1e-5)


def test_where_it_is_used(slow, monkeypatch):
    """Large float32 tensors on CPUs whose own is slow; never where calls are recorded."""
    used = []
    monkeypatch.setattr("returnn_lite.ops.tanh.by_expm1", lambda x: used.append(x.numel()) or torch.tanh(x))
    tanh(torch.zeros(LARGE))
    tanh(torch.zeros(LARGE - 1))
    tanh(torch.zeros(LARGE, dtype=torch.float64))

    class Recording(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            return function(*args, **(kwargs or {}))

    with Recording():
        tanh(torch.zeros(LARGE))
    monkeypatch.setattr("returnn_lite.ops.tanh.slow_functions", lambda: False)
    tanh(torch.zeros(LARGE))
    assert used == [LARGE]


@pytest.mark.parametrize(("name", "want"), [("AuthenticAMD", True), ("GenuineIntel", False)])
def test_slow_cpus(tmp_path, monkeypatch, name, want):
    (tmp_path / "cpuinfo").write_text(f"vendor_id\t: {name}\n")
    monkeypatch.setattr(kernels, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    kernels.slow_functions.cache_clear()
    try:
        assert kernels.slow_functions() is want
    finally:
        kernels.slow_functions.cache_clear()
