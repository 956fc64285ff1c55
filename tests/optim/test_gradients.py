"""The stages between gradients and optimizer, against their formulas."""

import math

import pytest
import torch

from returnn_lite.errors import ConfigError
from returnn_lite.optim import gradients as grad
from returnn_lite.optim.gradients import NoiseGenerators


def values() -> list[torch.Tensor]:
    torch.manual_seed(3)
    return [torch.randn(3, 4), torch.randn(5) * 10, torch.randn(())]


@pytest.mark.parametrize("compute", [grad.gradients, grad.backward])
def test_mistakes_in_models_are_told_in_one_line(compute):
    param = torch.ones(3, requires_grad=True)
    changed = (param * 2).exp()
    objective = changed.square().sum()
    with torch.no_grad():
        changed.add_(1)
    with pytest.raises(
        ConfigError, match="^the gradients cannot be computed: one of the variables .* inplace"
    ) as caught:
        compute(objective, {"param": param})
    assert "\n" not in str(caught.value)
    objective = param.exp().sum()
    objective.backward()
    with pytest.raises(ConfigError, match="^the gradients cannot be computed: Trying to backward .* a second time"):
        compute(objective, {"param": param})


def test_clip_values():
    for got, value in zip(grad.clip_values(values(), 0.5), values(), strict=True):
        assert torch.equal(got, value.clamp(-0.5, 0.5))


def test_clip_norms():
    for got, value in zip(grad.clip_norms(values(), 2.0), values(), strict=True):
        assert torch.allclose(got, value * 2.0 / max(value.norm().item(), 2.0))


def test_clip_average_norms():
    for got, value in zip(grad.clip_average_norms(values(), 0.3), values(), strict=True):
        average = value.norm().item() / value.numel()
        assert torch.allclose(got, value * 0.3 * min(1 / average, 1 / 0.3))


@pytest.mark.parametrize("limit", [1.0, 1000.0])
def test_clip_global_norm(limit: float):
    norm = grad.global_norm(values(), like=torch.zeros(()))
    assert norm.item() == pytest.approx(math.sqrt(sum((value**2).sum().item() for value in values())), rel=1e-6)
    for got, value in zip(grad.clip_global_norm(values(), limit, norm), values(), strict=True):
        assert torch.allclose(got, value * min(1.0, limit / norm.item()))


@pytest.mark.parametrize("norm", [math.nan, math.inf])
def test_a_norm_that_is_not_finite_gives_nan(norm: float):
    assert all(got.isnan().all() for got in grad.clip_global_norm(values(), 1.0, torch.tensor(norm)))


def test_zero_gradients_survive_all_clips():
    zeros = [torch.zeros(3)]
    for got in (grad.clip_norms(zeros, 1.0), grad.clip_average_norms(zeros, 1.0),
                grad.clip_global_norm(zeros, 1.0, torch.tensor(0.0))):  # fmt: skip
        assert torch.equal(got[0], zeros[0])


def test_global_norm_of_nothing_is_zero():
    like = torch.ones(2, dtype=torch.float64)
    assert torch.equal(grad.global_norm([], like=like), torch.zeros((), dtype=torch.float64))


def test_nan_and_inf():
    (got,) = grad.without_nan_and_inf([torch.tensor([math.nan, math.inf, -math.inf, 2.0])])
    assert got.tolist() == [0.0, 0.0, 0.0, 2.0]


@pytest.mark.parametrize("norm, zero", [(1.0, False), (2.0, False), (2.1, True), (math.nan, True), (math.inf, True)])
def test_zero_above(norm: float, zero: bool):
    (got,) = grad.zero_above([torch.tensor([1.0, math.nan])], 2.0, torch.tensor(norm))
    assert (got[0].item() == 0.0) == zero and got[1].isnan().item() != zero


def test_inputs_are_not_changed():
    ours, norm = values(), torch.tensor(3.0)
    grad.clip_values(ours, 0.1), grad.clip_norms(ours, 0.1), grad.clip_average_norms(ours, 0.1)
    grad.clip_global_norm(ours, 0.1, norm), grad.without_nan_and_inf(ours), grad.zero_above(ours, 0.1, norm)
    grad.add_noise(ours, 0.1, NoiseGenerators(1, 1))
    assert all(map(torch.equal, ours, values()))


def test_noise_is_truncated_normal():
    noise = NoiseGenerators(seed=1, step=0).truncated_normal(torch.empty(200_000))
    assert noise.abs().max() <= 2.0
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 0.8796) < 0.01  # of a normal one cut at 2
    assert abs((noise.abs() < 1).float().mean() - 0.6827 / 0.9545) < 0.01


def test_noise_depends_on_seed_and_step_alone():
    def drawn(seed: int, step: int) -> torch.Tensor:
        return grad.add_noise([torch.zeros(4)], 0.3, NoiseGenerators(seed, step))[0]

    assert torch.equal(drawn(1, 5), drawn(1, 5))
    assert not torch.equal(drawn(1, 5), drawn(1, 6)) and not torch.equal(drawn(1, 5), drawn(2, 5))
    assert not torch.equal(*grad.add_noise([torch.zeros(4)] * 2, 0.3, NoiseGenerators(1, 1)))


def test_clipping_of_rows_comes_before_their_sum():
    sparse = torch.sparse_coo_tensor(
        torch.tensor([[2, 2]]), torch.tensor([[3.0], [4.0]]), (5, 1), check_invariants=True
    )
    (value,) = grad.clip_values([grad.value_of(sparse)], 1.0)
    assert grad.with_value(sparse, value).to_dense().tolist() == [[0], [0], [2], [0], [0]]
    assert grad.global_norm([grad.value_of(sparse)], like=sparse).item() == pytest.approx(5.0)


@pytest.mark.parametrize("sparse", [False, True])
def test_maximize_norm(sparse: bool):
    """Against the norm's gradient by differences."""
    torch.manual_seed(1)
    params = {name: torch.randn(4, 2, dtype=torch.float64, requires_grad=True) for name in ("a", "b")}
    rows = torch.tensor([0, 2, 2])

    def objective() -> torch.Tensor:
        first = torch.nn.functional.embedding(rows, params["a"], sparse=sparse)
        return (first.tanh() ** 2).sum() + (params["b"].exp() * first.sum()).sum()

    def norm() -> torch.Tensor:
        return torch.cat([g.flatten() for g in grad.dense(grad.gradients(objective(), params)).values()]).norm()

    plain = grad.gradients(objective(), params)
    found = grad.gradients(objective(), params, create_graph=True)
    found = grad.maximize_norm(found, params, {"a": 0.1, "b": 0.0})
    assert torch.allclose(found["b"], plain["b"]) and not found["a"].requires_grad
    with torch.no_grad():
        old = params["a"][2, 1].item()
        params["a"][2, 1] = old + 1e-6
    above = norm()
    with torch.no_grad():
        params["a"][2, 1] = old - 1e-6
    slope = (above - norm()).item() / 2e-6
    assert found["a"][2, 1].item() == pytest.approx(plain["a"].to_dense()[2, 1].item() - 0.1 * slope, abs=1e-6)


def test_unused_parameters_and_a_constant_objective():
    params = {"a": torch.ones(2, requires_grad=True), "b": torch.ones(2, requires_grad=True)}
    assert list(grad.gradients(params["a"].sum(), params)) == ["a"]
    assert grad.gradients(torch.zeros(()), params) == {}
    assert grad.maximize_norm({}, params, {"a": 1.0, "b": 1.0}) == {}
