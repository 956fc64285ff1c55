"""Every update rule: its formula, its state, row-sparse gradients."""

import io
import math

import numpy as np
import pytest
import torch

from returnn_lite.optim import RULES, LazyRule, RuleOptimizer
from returnn_lite.optim.algorithms import Adam
from returnn_lite.optim.fused import can_be_fused

LR, STEPS, EPSILON = 0.05, 6, 1e-8
OPTIONS = {
    "gradientdescent": {},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.8, "use_nesterov": True},
    "adam": {"epsilon": EPSILON},
    "nadam": {"beta1": 0.8, "epsilon": 1e-3},
    "adamw": {"weight_decay": 0.01, "epsilon": EPSILON},
    "amsgrad": {"epsilon": EPSILON},
    "adadelta": {"epsilon": 1e-3},
    "adagrad": {"initial_accumulator_value": 0.3},
    "adagradda": {"l1_regularization_strength": 0.05, "l2_regularization_strength": 0.1},
    "rmsprop": {"epsilon": 1e-4, "momentum": 0.5},
    "rmsprop centered": {"epsilon": 1e-4, "centered": True},
    "normalizedsgd": {},
    "neuraloptimizer1": {},
    "gradvariancescaled": {},
    "proximalgradientdescent": {"l1_regularization_strength": 0.1, "l2_regularization_strength": 0.2},
    "proximaladagrad": {"l1_regularization_strength": 0.1},
    "ftrl": {"l1_regularization_strength": 0.1, "l2_regularization_strength": 0.1},
}


def make(case: str, **options) -> RuleOptimizer:
    name = {"nesterov": "momentum"}.get(case, case).split()[0]
    return RuleOptimizer(RULES[name](**OPTIONS.get(case, {}) | options))


# --- the formulas, in numpy and double precision: (w, g, state, t, options) -> w --------------------------------------


def momentum(w, g, s, t, momentum, use_nesterov=False):
    s["a"] = momentum * s.get("a", 0) + g
    return w - LR * (g + momentum * s["a"] if use_nesterov else s["a"])


def moments(g, s, beta1, beta2):
    s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g * g
    return s["m"], s["v"]


def corrected(t, beta1, beta2):
    return LR * math.sqrt(1 - beta2**t) / (1 - beta1**t)


def adam(w, g, s, t, epsilon, beta1=0.9, beta2=0.999, weight_decay=0.0):
    m, v = moments(g, s, beta1, beta2)
    return w * (1 - weight_decay) - corrected(t, beta1, beta2) * m / (np.sqrt(v) + epsilon)


def nadam(w, g, s, t, epsilon, beta1=0.9, beta2=0.999):
    m, v = moments(g, s, beta1, beta2)
    return w - corrected(t, beta1, beta2) * (beta1 * m + (1 - beta1) * g) / (np.sqrt(v) + epsilon)


def amsgrad(w, g, s, t, epsilon, beta1=0.9, beta2=0.999):
    m, v = moments(g, s, beta1, beta2)
    s["max"] = np.maximum(s.get("max", 0), v)
    return w - corrected(t, beta1, beta2) * m / (np.sqrt(s["max"]) + epsilon)


def adadelta(w, g, s, t, epsilon, rho=0.95):
    s["A"] = rho * s.get("A", 0) + (1 - rho) * g * g
    d = np.sqrt(s.get("U", 0) + epsilon) / np.sqrt(s["A"] + epsilon) * g
    s["U"] = rho * s.get("U", 0) + (1 - rho) * d * d
    return w - LR * d


def adagrad(w, g, s, t, initial_accumulator_value=0.1):
    s["A"] = s.get("A", initial_accumulator_value) + g * g
    return w - LR * g / np.sqrt(s["A"])


def rmsprop(w, g, s, t, epsilon, decay=0.9, momentum=0.0, centered=False):
    s["S"] = decay * s.get("S", 1.0) + (1 - decay) * g * g
    s["G"] = decay * s.get("G", 0.0) + (1 - decay) * g
    root = np.sqrt(s["S"] - (s["G"] ** 2 if centered else 0) + epsilon)
    s["M"] = momentum * s.get("M", 0) + LR * g / root
    return w - s["M"]


def normalized(w, g, s, t):
    return w - LR * g / math.sqrt(max((g * g).sum(), 1e-12))


def neural(w, g, s, t, beta1=0.9, factor=0.1):
    s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    return w - LR * g * np.where(np.sign(s["m"]) == np.sign(g), 1, factor)


def variance_scaled(w, g, s, t, beta1=0.9, beta2=0.999, epsilon=1e-16):
    s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    q = (g - s["m"]) ** 2
    s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * q
    return w - LR * g * np.minimum(s["v"] / (q + epsilon), 1)


def shrink(x, lr, l1, l2):
    return np.sign(x) * np.maximum(np.abs(x) - lr * l1, 0) / (1 + lr * l2)


def proximal(w, g, s, t, l1_regularization_strength, l2_regularization_strength):
    return shrink(w - LR * g, LR, l1_regularization_strength, l2_regularization_strength)


def proximal_adagrad(w, g, s, t, l1_regularization_strength):
    s["A"] = s.get("A", 0.1) + g * g
    own = LR / np.sqrt(s["A"])
    return shrink(w - own * g, own, l1_regularization_strength, 0)


def ftrl(w, g, s, t, l1_regularization_strength, l2_regularization_strength):
    l1, before = l1_regularization_strength, s.get("A", 0.1)
    s["A"] = before + g * g
    s["z"] = s.get("z", 0) + g - (np.sqrt(s["A"]) - np.sqrt(before)) / LR * w
    moved = (np.sign(s["z"]) * l1 - s["z"]) / (np.sqrt(s["A"]) / LR + 2 * l2_regularization_strength)
    return np.where(np.abs(s["z"]) > l1, moved, 0)


def dual_averaging(w, g, s, t, l1_regularization_strength, l2_regularization_strength):
    s["G"], s["A"] = s.get("G", 0) + g, s.get("A", 0.1) + g * g
    shrunk = np.sign(s["G"]) * np.maximum(np.abs(s["G"]) - t * l1_regularization_strength, 0)
    return -LR * shrunk / (np.sqrt(s["A"]) + LR * t * l2_regularization_strength)


FORMULAS = {
    "adagradda": dual_averaging,
    "gradientdescent": lambda w, g, s, t: w - LR * g,
    "momentum": momentum,
    "nesterov": momentum,
    "adam": adam,
    "nadam": nadam,
    "adamw": adam,
    "amsgrad": amsgrad,
    "adadelta": adadelta,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "rmsprop centered": rmsprop,
    "normalizedsgd": normalized,
    "neuraloptimizer1": neural,
    "gradvariancescaled": variance_scaled,
    "proximalgradientdescent": proximal,
    "proximaladagrad": proximal_adagrad,
    "ftrl": ftrl,
}


def parameters(seed: int = 1) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {"a": torch.randn(5, 3), "b": torch.randn(4), "c": torch.randn(())}


def gradients_of(params: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    return {name: torch.randn(w.shape, generator=generator) for name, w in params.items()}


def test_every_rule_has_its_formula_here():
    assert {case.split()[0] for case in OPTIONS} - {"nesterov"} == {rule.name for rule in RULES.values()}
    assert FORMULAS.keys() == OPTIONS.keys()


@pytest.mark.parametrize("case", OPTIONS)
def test_formula(case: str):
    params, optimizer = parameters(), make(case)
    expected, states = {name: w.double().numpy() for name, w in params.items()}, {name: {} for name in params}
    for t in range(1, STEPS + 1):
        grads = gradients_of(params, t)
        optimizer.apply(params, grads, LR)
        for name, grad in grads.items():
            w, g = expected[name], grad.double().numpy()
            expected[name] = FORMULAS[case](w, g, states[name], t, **OPTIONS[case])
            np.testing.assert_allclose(params[name].numpy(), expected[name], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("case", OPTIONS)
def test_gradients_are_not_changed(case: str):
    params, optimizer = parameters(), make(case)
    grads = gradients_of(params, 1)
    optimizer.apply(params, grads, LR)
    assert all(torch.equal(grad, gradients_of(params, 1)[name]) for name, grad in grads.items())


@pytest.mark.parametrize("case", OPTIONS)
def test_saved_and_loaded_goes_on_bit_by_bit(case: str):
    params, optimizer = parameters(), make(case)
    for t in range(3):
        optimizer.apply(params, gradients_of(params, t), LR)
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "params": params}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other = make(case)
    assert other.load_state_dict(saved["optimizer"], saved["params"]) == []
    for t in range(3, 6):
        optimizer.apply(params, gradients_of(params, t), LR)
        other.apply(saved["params"], gradients_of(params, t), LR)
    assert all(torch.equal(w, saved["params"][name]) for name, w in params.items())
    assert other.powers == optimizer.powers


def test_reset_starts_anew():
    optimizer = make("adam")
    first, second = parameters(), parameters()
    optimizer.apply(first, gradients_of(first, 0), LR)
    optimizer.reset()
    optimizer.apply(second, gradients_of(second, 0), LR)
    assert all(torch.equal(w, second[name]) for name, w in first.items())


def test_a_parameter_without_gradient_stays_and_has_no_state():
    params, optimizer = parameters(), make("momentum")
    optimizer.apply(params, {"a": torch.ones(5, 3)}, LR)
    assert torch.equal(params["b"], parameters()["b"]) and "b" not in optimizer.slots


def test_state_of_another_shape_starts_anew():
    params, optimizer = parameters(), make("adam")
    optimizer.apply(params, gradients_of(params, 0), LR)
    grown = params | {"a": torch.zeros(6, 3)}
    other = make("adam")
    assert other.load_state_dict(optimizer.state_dict(), grown) == ["a"]
    assert "a" not in other.slots and "b" in other.slots


def test_learning_rate_multiplier():
    params, expected = parameters(), parameters()
    grads = gradients_of(params, 0)
    optimizer = RuleOptimizer(RULES["momentum"](momentum=0.9))
    optimizer.learning_rate_multiplier = 0.1
    optimizer.apply(params, grads, optimizer.rate(LR))
    make("momentum").apply(expected, grads, LR * 0.1)
    assert all(torch.equal(w, expected[name]) for name, w in params.items())


def test_parameters_of_several_types():
    params = {"a": torch.ones(3), "b": torch.ones(3, dtype=torch.float64), "c": torch.ones(3, dtype=torch.bfloat16)}
    make("adam").apply(params, {name: torch.ones_like(w) for name, w in params.items()}, LR)
    assert all((w < 1).all() and w.dtype == dtype for w, dtype in zip(
        params.values(), (torch.float32, torch.float64, torch.bfloat16), strict=True))  # fmt: skip


def test_one_fused_call_is_the_formula(monkeypatch):
    """With gradients of another layout, too."""
    generator = torch.Generator().manual_seed(1)
    rule = Adam(beta1=0.9, beta2=0.98, epsilon=1e-8)
    found, want = ([torch.ones(4, 3), torch.ones(5)] for _ in range(2))
    slots = [[[torch.zeros(4, 3), torch.zeros(5)] for _ in range(2)] for _ in range(2)]
    powers = dict.fromkeys(rule.bases, 1.0)
    for _ in range(5):
        g = [torch.randn(3, 4, generator=generator).t(), torch.randn(5, generator=generator)]
        powers = {key: powers[key] * base for key, base in rule.bases.items()}
        rate = rule.rate(0.1, powers)
        rule.update_fused(found, g, rate, *slots[0])
        with monkeypatch.context() as patch:
            patch.setattr("returnn_lite.optim.algorithms.can_be_fused", lambda _: False)
            rule.update(want, g, rate, *slots[1])
    for a, b in zip([*found, *slots[0][0], *slots[0][1]], [*want, *slots[1][0], *slots[1][1]], strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("w", "want"),
    [
        (torch.ones(4, 3), True),
        (torch.nn.Parameter(torch.ones(2)), True),
        (torch.ones(4, 3, dtype=torch.float64), False),
        (torch.ones(4, 3)[:, :2], False),
        (torch.ones(4, 3).t(), False),
    ],
)
def test_what_can_be_fused(w, want):
    assert can_be_fused([torch.ones(1, dtype=w.dtype), w]) is want


def test_parts_of_larger_parameters():
    """What lies between them stays."""
    whole = torch.ones(4, 3)
    make("adam").apply({"a": whole[:, :2]}, {"a": torch.ones(4, 2)}, LR)
    assert torch.allclose(whole, torch.tensor([1 - LR, 1 - LR, 1.0]).expand(4, 3))


def test_expanded_gradients():
    """Gradients of a sum are one number, expanded."""
    params = {"a": torch.zeros(3, 2)}
    make("adam").apply(params, {"a": torch.ones(()).expand(3, 2)}, LR)
    assert torch.allclose(params["a"], torch.full((3, 2), -LR))


# --- row-sparse gradients ---------------------------------------------------------------------------------------------

ROWS = torch.tensor([[1, 3, 1]])  # row 1 twice


def sparse_step(case: str, steps: int = 3) -> tuple[torch.Tensor, torch.Tensor, RuleOptimizer, RuleOptimizer]:
    """After some dense steps: one sparse step (w, optimizer), and the same with the dense gradient."""
    w = parameters()["a"]
    one, two = {"a": w.clone()}, {"a": w.clone()}
    sparse, dense = make(case), make(case)
    for t in range(steps):
        grad = gradients_of(one, t)["a"]
        sparse.apply(one, {"a": grad}, LR)
        dense.apply(two, {"a": grad}, LR)
    values = torch.randn(3, 3, generator=torch.Generator().manual_seed(7))
    grad = torch.sparse_coo_tensor(ROWS, values, (5, 3), check_invariants=True)
    before = one["a"].clone()
    sparse.apply(one, {"a": grad}, LR)
    dense.apply(two, {"a": grad.to_dense()}, LR)
    touched = torch.tensor([1, 3])
    assert torch.allclose(one["a"][touched], two["a"][touched], rtol=1e-6)
    for ours, theirs in zip(sparse.slots.get("a", []), dense.slots.get("a", []), strict=True):
        assert torch.allclose(ours[touched], theirs[touched], rtol=1e-6)
    return one["a"] - before, two["a"] - before, sparse, dense


OTHERS = torch.tensor([0, 2, 4])


@pytest.mark.parametrize("case", ["momentum", "nesterov", "adadelta", "rmsprop", "rmsprop centered", "ftrl"])
def test_lazy_rules_leave_other_rows(case: str):
    optimizer, params = make(case), parameters()
    for t in range(3):
        optimizer.apply(params, gradients_of(params, t), LR)
    before = [tensor[OTHERS] for tensor in (params["a"], *optimizer.slots["a"])]
    optimizer.apply(params, {"a": torch.sparse_coo_tensor(ROWS, torch.ones(3, 3), (5, 3), check_invariants=True)}, LR)
    after = [tensor[OTHERS] for tensor in (params["a"], *optimizer.slots["a"])]
    assert all(map(torch.equal, before, after))
    sparse_step(case)


@pytest.mark.parametrize("case", ["gradientdescent", "adagrad", "adam", "amsgrad", "gradvariancescaled", "adamw"])
def test_rules_that_treat_rows_as_dense(case: str):
    moved, dense_moved, sparse, dense = sparse_step(case)
    assert torch.allclose(moved, dense_moved, rtol=1e-6)
    assert all(map(torch.allclose, sparse.slots.get("a", []), dense.slots.get("a", [])))


def test_nadam_decays_all_moments_but_moves_touched_rows_only():
    moved, dense_moved, sparse, dense = sparse_step("nadam")
    assert (moved[OTHERS] == 0).all() and (dense_moved[OTHERS] != 0).all()
    assert all(map(torch.allclose, sparse.slots["a"], dense.slots["a"]))


def test_lazy_is_known_by_class():
    lazy = {name for name, rule in RULES.items() if issubclass(rule, LazyRule)}
    assert {"momentum", "adadelta", "rmsprop"} <= lazy and not {"adam", "nadam", "normalizedsgd"} & lazy
