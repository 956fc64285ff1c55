"""Lion against its formula in numpy, and in configs by the name that they import."""

import numpy as np
import pytest
import torch

from returnn_lite.compat.config_imports import config_imports
from returnn_lite.errors import ConfigError
from returnn_lite.optim.lion import Lion


def test_the_formula():
    rng = np.random.RandomState(3)
    p, m = rng.randn(4, 3), np.zeros((4, 3))
    param = torch.nn.Parameter(torch.tensor(p))
    unused = torch.nn.Parameter(torch.ones(2))
    optimizer = Lion([param, unused], lr=0.1, betas=(0.8, 0.95), weight_decay=0.5)
    for _ in range(4):
        g = rng.randn(4, 3)
        param.grad = torch.tensor(g)
        optimizer.step()
        p = p - 0.1 * (np.sign(0.8 * m + 0.2 * g) + 0.5 * p)
        m = 0.95 * m + 0.05 * g
        np.testing.assert_allclose(param.detach().numpy(), p, rtol=1e-12)
    np.testing.assert_allclose(optimizer.state[param]["exp_avg"].numpy(), m, rtol=1e-12)
    assert unused not in optimizer.state and unused.tolist() == [1, 1]


def test_a_closure_gives_the_loss():
    param = torch.nn.Parameter(torch.tensor([2.0, -3.0]))
    optimizer = Lion([param], lr=0.5)

    def loss():
        optimizer.zero_grad()
        value = param.square().sum()
        value.backward()
        return value.item()

    assert optimizer.step(loss) == 13 and param.tolist() == [1.5, -2.5]


@pytest.mark.parametrize("options, message", [
    ({"lr": -1}, "Lion: lr: must be at least 0, but is -1 instead"),
    ({"betas": (0.9, 1.0)}, r"Lion: betas: must be two numbers in \[0, 1\)"),
])  # fmt: skip
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        Lion([torch.nn.Parameter(torch.ones(1))], **options)


def test_the_name_that_configs_import():
    found = {}
    with config_imports():
        exec("from returnn.torch.optim.lion import Lion as found", found)
    assert found["found"] is Lion
