"""Initial values by their statistics."""

import math

import pytest
import torch

from returnn_lite.errors import ConfigError
from returnn_lite.ops.initial import DISTRIBUTIONS, FAN_MODES, orthogonal, truncated_normal_, variance_scaling_

SHAPE = (200, 300)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("mode", FAN_MODES)
def test_the_variance(mode: str, distribution: str) -> None:
    options = {"scale": 3.0, "mode": mode, "distribution": distribution}
    x = variance_scaling_(torch.empty(SHAPE), (20, 40), generator=generator(), **options)
    std = math.sqrt(3.0 / {"fan_in": 20, "fan_out": 40, "fan_avg": 30}[mode])
    assert float(x.std()) == pytest.approx(std, rel=0.02)
    limit = {"uniform": math.sqrt(3), "untruncated_normal": math.inf}.get(distribution, 2 / 0.8796)
    assert float(x.abs().max()) <= limit * std * 1.0001


def test_cut_at_two_standard_deviations() -> None:
    x = truncated_normal_(torch.empty(SHAPE), 1.0, 0.5, generator())
    assert float(x.min()) >= 0.0 and float(x.max()) <= 2.0 and float(x.mean()) == pytest.approx(1.0, abs=0.01)
    assert (truncated_normal_(torch.empty(3), 1.0, 0.0, None) == 1).all()


def test_orthonormal_rows_or_columns() -> None:
    x = orthogonal(torch.empty(2, 2, 6), generator(), 2.0).reshape(4, 6)
    torch.testing.assert_close(x @ x.t(), 4 * torch.eye(4))
    y = orthogonal(torch.empty(6, 4), generator())
    torch.testing.assert_close(y.t() @ y, torch.eye(4))
    with pytest.raises(ConfigError, match="must have two axes"):
        orthogonal(torch.empty(3), generator())
