"""Optimizers of torch and of other packages: names, options, errors, gradients of rows, closures, state."""

import sys
import types

import pytest
import torch

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.optim.resolve import default_options, make_optimizer
from returnn_lite.optim.rule_optimizer import RuleOptimizer
from returnn_lite.optim.thinc_optimizers import ThincOptimizer
from returnn_lite.optim.torch_optimizers import TorchOptimizer
from tests.optim.small_net import INPUTS, Run, objective, parameters


class Own(torch.optim.SGD):
    """A user's class."""


def resolve(value, **config):
    made = Config({"optimizer": value, **config})
    return make_optimizer(default_options(made, Log.silent()), made, "optimizer")


@pytest.mark.parametrize("value, cls", [
    ("sgd", torch.optim.SGD),
    ("RAdam", torch.optim.RAdam),
    ("lbfgs", torch.optim.LBFGS),
    ("MuonOptimizer", torch.optim.Muon),
    ("torch.Adam", torch.optim.Adam),
    ("torch.adam", torch.optim.Adam),
    ("torch.optim.AdamW", torch.optim.AdamW),
    ("optim.NAdam", torch.optim.NAdam),
    ("torch.optim.adamax.Adamax", torch.optim.Adamax),
    ({"class": torch.optim.ASGD}, torch.optim.ASGD),
    ({"class": lambda: "torch.Rprop"}, torch.optim.Rprop),
    ({"class": lambda: Own}, Own),
])  # fmt: skip
def test_names_of_torch(value, cls: type):
    made = resolve(value)
    assert isinstance(made, TorchOptimizer) and type(made.torch) is cls


def test_bare_names_are_the_rules_unless_the_backend_is_torch():
    assert isinstance(resolve("adam"), RuleOptimizer)
    assert type(resolve("adam", backend="torch").torch) is torch.optim.Adam
    assert resolve({"class": "adam", "epsilon": 1e-3}, backend="torch").options()["eps"] == 1e-3
    assert isinstance(resolve("nadam", backend="tensorflow"), RuleOptimizer)
    assert isinstance(resolve("normalizedsgd", backend="torch"), RuleOptimizer)
    assert isinstance(resolve("thinc.adam"), ThincOptimizer)


def test_options():
    made = resolve({"class": "torch.Adam", "beta2": 0.9, "epsilon": 1e-3, "weight_decay": 0.1, "use_locking": False})
    assert made.torch.defaults["betas"] == (0.9, 0.9) and made.torch.defaults["eps"] == 1e-3
    made.set_option("beta1", 0.5)
    assert made.options()["betas"] == (0.5, 0.9) and made.options()["beta1"] == 0.5
    assert "lr" not in made.options()
    rule = resolve({"class": "adam", "betas": (0.8, 0.9), "eps": 1e-3}).rule
    assert rule.options() == {"beta1": 0.8, "beta2": 0.9, "epsilon": 1e-3}


@pytest.mark.parametrize("value, path, message", [
    ("radamm", 'optimizer["class"]', 'unknown optimizer "radamm"; did you mean "radam"?'),
    ("torch.AdamWW", 'optimizer["class"]', 'did you mean "torch.AdamW"?'),
    ("thinc.Adm", 'optimizer["class"]', 'did you mean "thinc.Adam"?'),
    ("zyx", 'optimizer["class"]', 'other libraries by dotted path, such as "pytorch_optimizer.Lion"'),
    ("no_such_package.Lion", 'optimizer["class"]', "cannot import 'no_such_package'"),
    ({"class": dict}, 'optimizer["class"]', "must be a sub-class of torch.optim.Optimizer, but is <class 'dict'>"),
    ("collections.OrderedDict", 'optimizer["class"]', "must be a sub-class of torch.optim.Optimizer"),
    ("torch.optim.adam.Adm", 'optimizer["class"]', 'has no class \'Adm\'; did you mean "Adam"?'),
    ({"class": "torch.SGD", "momentun": 0.9}, 'optimizer["momentun"]', 'did you mean "momentum"?'),
    ({"class": "torch.SGD", "lr": 0.9}, 'optimizer["lr"]', "set learning_rate outside of the optimizer dict"),
    ({"class": "torch.SGD", "nesterov": True}, "optimizer", "Nesterov momentum requires a momentum"),
    ({"class": "torch.Adam", "weight_decay": -1}, "optimizer", "Invalid weight_decay"),
    ({"class": "torch.Adam", "fused": True, "foreach": True}, "optimizer", "cannot be"),
    ({"class": "torch.Adam", "differentiable": True}, 'optimizer["differentiable"]', "must be False"),
    ({"class": "torch.Adafactor", "d": 0.5}, "optimizer", "Clipping threshold"),
    ({"class": "adam", "lookahead_k": 0.5}, 'optimizer["lookahead_k"]', "must be a number of updates"),
    ({"class": "adam", "lookahead_k": 5, "lookahead_alpha": 2}, 'optimizer["lookahead_alpha"]', "at most 1"),
    ({"class": "adam", "schedules": {"beta3": [1]}}, 'optimizer["schedules"]["beta3"]', 'did you mean "beta'),
    ({"class": "adam", "schedules": [1]}, 'optimizer["schedules"]', "must be a dict of schedules"),
    ({"class": "adam", "plateau_score": "mn"}, 'optimizer["plateau_score"]', 'must be "min" or "max"'),
])  # fmt: skip
def test_errors(value, path: str, message: str):
    with pytest.raises(ConfigError) as caught:
        resolve(value)
    assert caught.value.path == path and message in caught.value.message


def test_missing_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(ConfigError, match='install the extra "optimizers"'):
        resolve("pytorch_optimizer.Lion")


def test_any_package(monkeypatch):
    package = types.ModuleType("my_package")
    package.Own = Own
    monkeypatch.setitem(sys.modules, "my_package", package)
    a, b = (
        Run(optimizer={"class": "my_package.Own", "momentum": 0.9}),
        Run(optimizer={"class": "torch.SGD", "momentum": 0.9}),
    )
    assert a.epochs(2).equals(b.epochs(2))


def test_numbers_are_those_of_torch():
    run = Run(optimizer={"class": "torch.NAdam"}).epochs(3)
    params = parameters()
    by_hand = torch.optim.NAdam(params.values(), lr=0.1)
    for step in range(6):
        by_hand.zero_grad()
        objective(params, INPUTS[step]).backward()
        by_hand.step()
    assert all(torch.equal(param, params[name]) for name, param in run.params.items())
    assert all(param.grad is None for param in run.params.values())


def sparse_gradient(rows: list[int], values: list[list[float]]) -> torch.Tensor:
    return torch.sparse_coo_tensor(torch.tensor([rows]), torch.tensor(values), (4, 2), check_invariants=False)


@pytest.mark.parametrize("options", [
    {"class": "torch.SGD"}, {"class": "torch.SGD", "momentum": 0.9}, {"class": "torch.Adagrad"},
    {"class": "torch.Adam"}, {"class": "thinc.Adam"}, {"class": "torch.Adagrad", "weight_decay": 0.1},
])  # fmt: skip
def test_gradients_of_rows_count_as_dense_ones(options: dict):
    rows, dense = {"w": torch.ones(4, 2, requires_grad=True)}, {"w": torch.ones(4, 2, requires_grad=True)}
    for params, change in ((rows, lambda grad: grad), (dense, torch.Tensor.to_dense)):
        made = resolve(options)
        made.bind(params)
        for step in range(3):
            made.apply(params, {"w": change(sparse_gradient([step, 3, 3], [[1.0, 2.0], [0.5, 0.1], [0.3, 0.2]]))}, 0.1)
    assert torch.allclose(rows["w"], dense["w"], atol=1e-7)


def test_sparse_adam():
    params = {"w": torch.ones(4, 2, requires_grad=True)}
    made = resolve("torch.SparseAdam")
    made.bind(params)
    made.apply(params, {"w": sparse_gradient([1], [[1.0, 1.0]])}, 0.1)
    assert (params["w"][1] < 1).all() and (params["w"][[0, 2, 3]] == 1).all()
    with pytest.raises(
        ConfigError, match="takes only weights of sparse input .*, not w; choose others by `param_groups`"
    ):
        made.apply(params, {"w": torch.ones(4, 2)}, 0.1)


def test_lbfgs_evaluates_more_often():
    calls = []
    run = Run(optimizer={"class": "torch.LBFGS", "max_iter": 5})
    value = objective(run.params, INPUTS[0])

    def evaluate():
        calls.append(1)
        return objective(run.params, INPUTS[0])

    run.updater.step(value, global_step=0, learning_rate=0.1, epoch_step=0, evaluate=evaluate)
    assert len(calls) >= 3 and float(objective(run.params, INPUTS[0]).detach()) < float(value.detach())


def test_closure_of_a_usual_class():
    closure = Run(optimizer={"class": "torch.Adam", "closure": True}).epochs(2)
    assert closure.equals(Run(optimizer={"class": "torch.Adam"}).epochs(2))


@pytest.mark.parametrize("config, message", [
    ({"optimizer": {"class": "torch.LBFGS", "param_groups": [{"layer": "h", "max_iter": 2}]}}, "must be the only one"),
    ({"optimizer": "torch.LBFGS", "accum_grad_multiple_step": 2}, "must be 1 with torch.LBFGS"),
    ({"optimizer": "torch.LBFGS", "accum_grad_multiple_step": lambda **_: 1}, "must be 1 with torch.LBFGS"),
])  # fmt: skip
def test_closure_needs_all_for_itself(config: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        Run(**config)


def test_state_of_another_shape_starts_anew():
    run = Run(optimizer={"class": "torch.Adam"}).epochs(1)
    state = run.updater.state_dict()
    (saved,) = state["optimizers"].values()
    other = resolve("torch.Adam")
    other.bind({"h/W": torch.zeros(3, 5, requires_grad=True), "h/b": torch.zeros(4, requires_grad=True)})
    assert other.load_state_dict(saved, {}) == ["h/W"]
    assert set(other.state_dict()["slots"]) == {"h/b"}


def test_loaded_state_keeps_the_options_of_the_config():
    saved = resolve({"class": "torch.SGD", "momentum": 0.9, "weight_decay": 0.1})
    params = {"w": torch.ones(2, requires_grad=True)}
    saved.bind(params)
    saved.apply(params, {"w": torch.ones(2)}, 0.1)
    other = resolve({"class": "torch.SGD", "momentum": 0.5})
    other.bind(params)
    other.load_state_dict(saved.state_dict(), params)
    assert other.options()["momentum"] == 0.5 and other.options()["weight_decay"] == 0
    assert torch.equal(
        other.torch.state[params["w"]]["momentum_buffer"], saved.torch.state[params["w"]]["momentum_buffer"]
    )
    other.reset()
    assert not other.torch.state
