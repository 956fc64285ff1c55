"""Initial values: bounds and deviations of the distributions, and how the config names them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from returnn_lite.errors import ConfigError
from returnn_lite.layers.core.init import fans, initializer


def draw(value: Any, shape: Sequence[int] = (300, 100), seed: int = 42, **kwargs: Any) -> torch.Tensor:
    return initializer(value, **kwargs)(shape, torch.Generator().manual_seed(seed), torch.float32)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((), (1, 1)), ((7,), (7, 7)), ((3, 5), (3, 5)), ((2, 3, 5), (6, 10)), ((4, 2, 3, 5), (24, 40))],
)
def test_fans(shape: Sequence[int], expected: tuple[int, int]) -> None:
    assert fans(shape) == expected


@pytest.mark.parametrize(
    ("value", "bound"),
    [
        ("glorot_uniform", math.sqrt(6 / 400)),
        ("glorot_uniform_initializer", math.sqrt(6 / 400)),
        ("GlorotUniform", math.sqrt(6 / 400)),
        ("xavier", math.sqrt(6 / 400)),
        ("he_uniform", math.sqrt(6 / 300)),
        ("lecun_uniform()", math.sqrt(3 / 300)),
        ("VarianceScaling(scale=0.5, mode='fan_out', distribution='uniform')", math.sqrt(1.5 / 100)),
        (
            {"class": "VarianceScaling", "scale": 0.5, "mode": "fan_avg", "distribution": "uniform"},
            math.sqrt(1.5 / 200),
        ),
        ("random_uniform_initializer(minval=-0.05, maxval=0.05)", 0.05),
        ("random_uniform_abs_initializer(0.01)", 0.01),
        ("uniform_unit_scaling(factor=2)", 2 * math.sqrt(3 / 300)),
    ],
)
def test_uniform(value: Any, bound: float) -> None:
    x = draw(value)
    assert 0.99 * bound < x.abs().max() <= bound
    assert x.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert abs(x.mean().item()) < 0.02 * bound


@pytest.mark.parametrize(
    ("value", "std", "cut"),
    [
        ("glorot_normal", math.sqrt(2 / 400), True),
        ("xavier_initializer(uniform=False)", math.sqrt(2 / 400), True),
        ("he_normal", math.sqrt(2 / 300), True),
        ("lecun_normal", math.sqrt(1 / 300), True),
        ("variance_scaling_initializer(mode='fan_in', distribution='normal', scale=0.78)", math.sqrt(0.78 / 300), True),
        ("VarianceScaling(distribution='untruncated_normal')", math.sqrt(1 / 300), False),
        ("random_normal_initializer(mean=0, stddev=0.1)", 0.1, False),
        ("truncated_normal(stddev=0.1)", 0.1 * 0.87962566, True),
        ("variance_scaling_non_zero_initializer(0.25)", math.sqrt(1 / 300), False),
    ],
)
def test_normal(value: str, std: float, cut: bool) -> None:
    x = draw(value)
    assert x.std().item() == pytest.approx(std, rel=0.03)
    assert abs(x.mean().item()) < 0.03 * std
    assert (x.abs().max().item() <= 2.0001 * std / 0.87962566) == cut


def test_random_uniform_default_is_zero_to_one() -> None:
    x = draw("random_uniform")
    assert 0 <= x.min() < 0.01
    assert 0.99 < x.max() < 1


def test_non_zero_fraction() -> None:
    assert (draw("variance_scaling_non_zero(0.25)") != 0).float().mean().item() == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("shape", [(4, 4), (6, 3), (3, 6), (2, 3, 5)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    x = draw("orthogonal(gain=2)", shape).reshape(-1, shape[-1])
    gram = x.T @ x if x.shape[0] >= x.shape[1] else x @ x.T
    torch.testing.assert_close(gram, 4 * torch.eye(len(gram)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.5, 0.5),
        (1, 1.0),
        (np.float32(0.25), 0.25),
        (None, 0.0),
        ("zeros", 0.0),
        ("ones_initializer", 1.0),
        ("constant_initializer(3)", 3.0),
        ({"class": "constant", "value": 4}, 4.0),
        ("max(sqrt(16), 2)", 4.0),
        ("float(layer.size)", 7.0),
    ],
)
def test_constants(value: Any, expected: float) -> None:
    x = draw(value, (2, 3), layer=SimpleNamespace(size=7))
    assert x.tolist() == [[expected] * 3] * 2


def test_arrays_and_identity() -> None:
    values = np.arange(6.0).reshape(2, 3)
    assert draw(values, (2, 3)).tolist() == values.tolist()
    assert draw("numpy.ones((2,)) * 3", (2,)).tolist() == [3, 3]
    assert draw("identity(gain=3)", (2, 3)).tolist() == [[3, 0, 0], [0, 3, 0]]
    with pytest.raises(ConfigError, match=r"here: initial values must be of shape \(4,\), but are \(2, 3\) instead"):
        draw(values, (4,), path="here")


def test_text_file(tmp_path) -> None:
    (tmp_path / "init.txt").write_text("1 2\n3 4\n")
    assert draw(f"load_txt_file_initializer({str(tmp_path / 'init.txt')!r})", (2, 2)).tolist() == [[1, 2], [3, 4]]


def test_the_generator_decides() -> None:
    state = torch.get_rng_state()
    for name in ("glorot_uniform", "he_normal", "random_normal", "orthogonal", "variance_scaling_non_zero"):
        assert torch.equal(draw(name, seed=1), draw(name, seed=1))
        assert not torch.equal(draw(name, seed=1), draw(name, seed=2))
    assert torch.equal(draw("random_normal(seed=5)", seed=1), draw("random_normal(seed=5)", seed=2))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0.1", "invalid initializer: '0.1'"),
        ("glorot_unifrom", "invalid initializer: 'glorot_unifrom'; did you mean \"glorot_uniform\"?"),
        ("glorot_uniform(foo=1)", "invalid initializer: 'glorot_uniform\\(foo=1\\)': .*foo"),
        ({"class": "orthogonal", "size": 3}, "invalid initializer: 'orthogonal': .*size"),
        ({"scale": 3}, "invalid initializer: `class` must be a name, but is None instead"),
        (object, "invalid initializer"),
        ("VarianceScaling(mode='fan')", "`mode` must be"),
        ("VarianceScaling(distribution='gauss')", "`distribution` must be"),
    ],
)
def test_errors(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        draw(value if value is not object else {1, 2})
