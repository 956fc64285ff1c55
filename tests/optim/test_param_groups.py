"""`param_groups`: who is selected, which options win, what is refused."""

import pytest
import torch

from returnn_lite.config import Config
from returnn_lite.engine.steering import settings_of, steer
from returnn_lite.errors import ConfigError
from returnn_lite.layers.core.params import ParamOwner
from returnn_lite.log import Log
from returnn_lite.optim import Updater
from returnn_lite.optim.param_groups import param_infos, read_rules
from tests.nets import network
from tests.optim.small_net import Run, parameters

NET = {
    "emb": {"class": "linear", "n_out": 3, "activation": None, "from": "data:classes"},
    "lstm": {"class": "rec", "unit": "nativelstm2", "n_out": 4, "from": "data"},
    "norm": {"class": "layer_norm", "from": "lstm"},
    "loop": {"class": "rec", "from": "norm", "unit": {
        "s": {"class": "rnn_cell", "unit": "standardlstm", "n_out": 3, "from": "data:source"},
        "output": {"class": "linear", "activation": None, "n_out": 2, "from": "s"}}},
    "output": {"class": "softmax", "loss": "ce", "target": "classes", "from": "loop"},
    "other": {"class": "softmax", "loss": "as_is", "n_out": 2, "from": "emb"},
}  # fmt: skip


def groups(*rules: dict, **optimizer) -> Run:
    return Run(optimizer={"class": "torch.SGD", **optimizer, "param_groups": list(rules)})


def of(run: Run, name: str):
    """The optimizer of a parameter."""
    key = next(group.optimizer for group in run.updater.groups if name in group.names)
    return run.updater.optimizers[key]


@pytest.mark.parametrize("selector, names", [
    ({"params": "output/*"}, {"output/W", "output/b"}),
    ({"params": ["h/W", "*/b"]}, {"h/W", "h/b", "output/b"}),
    ({"params": "re:.*/W"}, {"h/W", "output/W"}),
    ({"layer": "h"}, {"h/W", "h/b"}),
    ({"layer": ["o*"]}, {"output/W", "output/b"}),
    ({"kind": "bias"}, {"h/b", "output/b"}),
    ({"kind": ["ndim2+"]}, {"h/W", "output/W"}),
    ({"kind": "weight", "layer": "h"}, {"h/W"}),
    ({"filter": lambda name, info, layer: info.ndim == 1 and name < "o"}, {"h/b"}),
])  # fmt: skip
def test_selectors(selector: dict, names: set[str]):
    run = groups({**selector, "weight_decay": 0.5})
    assert {name for name in run.params if of(run, name).options()["weight_decay"] == 0.5} == names


def test_kinds_of_a_network():
    net = network(NET)
    infos = param_infos(net.params, net)
    kinds = {name: info.kinds - {"ndim1", "ndim2+"} for name, info in infos.items()}
    assert kinds["emb/W"] == {"weight", "embedding"} and kinds["emb/b"] == {"bias"}
    assert kinds["lstm/rec/W"] == {"weight"} and kinds["lstm/rec/W_re"] == {"weight", "recurrent"}
    assert kinds["norm/scale"] == kinds["norm/bias"] == {"norm"}
    assert kinds["lstm/rec/b"] == {"bias"} and kinds["output/W"] == {"weight"}
    assert {info.layer for info in infos.values()} >= {"emb", "lstm", "norm", "loop/rec/output", "output"}
    inside = [name for name in infos if name.startswith("loop/")]
    updater = updater_of(net, [{"layer": "loop", "momentum": 0.5}])
    found = [group.names for group in updater.groups if updater.optimizers[group.optimizer].options()["momentum"]]
    assert [sorted(names) for names in found] == [sorted(inside)]


class Module(torch.nn.Module):
    """Some layers of torch."""

    def __init__(self):
        super().__init__()
        self.emb = torch.nn.Embedding(3, 4)
        self.lstm = torch.nn.LSTM(4, 5)
        self.norm = torch.nn.LayerNorm(5)
        self.convs = torch.nn.ModuleList([torch.nn.Conv1d(5, 6, 3)])

    def param_owners(self):
        modules = dict(self.named_modules())
        return {n: ParamOwner.of_torch(at := n.rpartition(".")[0], modules[at]) for n, _ in self.named_parameters()}


def test_kinds_of_a_torch_module():
    net = Module()
    infos = param_infos(dict(net.named_parameters()), net)
    kinds = {name: info.kinds - {"ndim1", "ndim2+"} for name, info in infos.items()}
    assert kinds["emb.weight"] == {"weight", "embedding"} and kinds["norm.weight"] == kinds["norm.bias"] == {"norm"}
    assert kinds["lstm.weight_hh_l0"] == {"weight", "recurrent"} and kinds["lstm.bias_ih_l0"] == {"bias"}
    assert kinds["convs.0.weight"] == {"weight", "conv"} and infos["convs.0.weight"].layer == "convs.0"
    rule = read_rules([{"layer": "convs", "momentum": 0.5}], "x")[0]
    assert {name for name, info in infos.items() if rule.matches(info)} == {"convs.0.weight", "convs.0.bias"}


def updater_of(net, rules: list[dict], **config) -> Updater:
    made = Config({"optimizer": {"class": "torch.SGD", "param_groups": rules}, **config})
    return Updater(
        net.params, made, param_options=net.param_options, initial_learning_rate=1.0, log=Log.silent(), network=net
    )


def test_the_last_rule_wins_option_by_option():
    run = groups({"layer": "h", "weight_decay": 0.5, "momentum": 0.5}, {"kind": "bias", "weight_decay": 0.1})
    assert [(of(run, name).options()["weight_decay"], of(run, name).options()["momentum"]) for name in run.params] == [
        (0.5, 0.5), (0.1, 0.5), (0, 0), (0.1, 0)]  # fmt: skip


def test_learning_rates():
    rules = [
        {"params": "h/W", "lr": 0.02},
        {"params": "h/b", "lr_multiplier": 0.5},
        {"params": "output/b", "lr_absolute": 3},
    ]
    run = Run(optimizer={"class": "torch.SGD", "param_groups": rules}, learning_rate=0.1)
    run.updater.start_epoch(1)
    rates = {
        name: run.updater.rates.of_step(0, 0.2)[group.optimizer] for group in run.updater.groups for name in group.names
    }
    assert rates == pytest.approx({"h/W": 0.04, "h/b": 0.1, "output/W": 0.2, "output/b": 3})
    run.epoch(1, learning_rate=0.2)
    assert run.rates == [0.2, 0.2]


def test_multipliers_come_after_a_dynamic_rate():
    rules = [{"layer": "h", "lr_multiplier": 0.5}, {"layer": "output", "lr_multiplier": 2.0}]
    asked = []

    def rate(*, learning_rate, **_):
        asked.append(learning_rate)
        return 0.3

    options = {"optimizer": {"class": "torch.SGD", "param_groups": rules}, "dynamic_learning_rate": rate}
    run = Run(**options, learning_rate=0.1).epoch(1)
    assert sorted(run.updater.rates.of_step(0, 0.2).values()) == pytest.approx([0.15, 0.6])
    assert run.rates == [0.3, 0.3] and asked == [0.1, 0.1, 0.2]  # of the run, without a multiplier


def test_groups_with_names_can_be_steered():
    run = groups(
        {"params": "h/W", "name": "a", "lr_multiplier": 0.5},
        {"params": "h/b", "name": "b", "lr_absolute": 3},
        momentum=0.8,
    )
    assert settings_of(run.updater.optimizers) == {"momentum": 0.8, "group:a": 1.0}
    for settings, expected in (({"group:a": 3.0, "momentum": 0.7}, [0.3, 3, 0.2, 0.2]), ({}, [0.1, 3, 0.2, 0.2])):
        steer(run.updater.optimizers, settings)
        assert [of(run, name).rate(0.2) for name in run.params] == pytest.approx(expected)
        assert [of(run, name).options()["momentum"] for name in run.params] == [0.7] * 4


def test_frozen():
    run = groups({"params": "h/W", "freeze": True}, {"params": "h/b", "freeze_until_epoch": 2})
    start = {name: param.clone() for name, param in parameters().items()}
    run.epoch(1)
    assert [torch.equal(run.params[name], start[name]) for name in run.params] == [True, True, False, False]
    run.epoch(2)
    assert [torch.equal(run.params[name], start[name]) for name in run.params] == [True, False, False, False]


def test_clipping_of_a_group():
    run, free = groups({"layer": "h", "grad_clip_norm": 1e-3}), groups()
    run.epoch(1), free.epoch(1)
    moved = torch.cat([(run.params[name] - parameters()[name]).detach().flatten() for name in ("h/W", "h/b")])
    assert 0 < float(moved.norm()) <= 2 * 0.1 * 1e-3 * 1.0001
    assert float((free.params["h/W"] - parameters()["h/W"]).detach().norm()) > 1e-3


def test_other_optimizers_and_schedules():
    rules = [
        {"kind": "bias", "optimizer": {"@optimizers": "Adam.v1", "learn_rate": 0.01}},
        {"params": "h/W", "momentum": 0.3},
    ]
    run = Run(
        optimizer={"class": "momentum", "momentum": 0.1, "schedules": {"momentum": [0.5, 0.6]}, "param_groups": rules}
    )
    assert of(run, "h/b").name == "thinc.Adam" and of(run, "h/b") is of(run, "output/b")
    assert of(run, "h/W").options()["momentum"] == 0.3 and of(run, "output/W").options()["momentum"] == 0.5
    run.epoch(1)
    assert of(run, "output/W").options()["momentum"] == 0.6


def test_weight_decay_with_backend_torch():
    run = Run(optimizer={"class": "AdamW", "weight_decay": 0.1}, backend="torch")
    assert [of(run, name).options()["weight_decay"] for name in run.params] == [0.1, 0, 0.1, 0]


@pytest.mark.parametrize("rule, path, message", [
    ({"layer": "g", "lr": 0.1}, '["param_groups"][0]', "no parameter matches layer 'g'"),
    ({"layer": "outptu", "lr": 0.1}, '["param_groups"][0]', 'did you mean "output"?'),
    ({"layer": "h", "momentun": 0.1}, '["param_groups"][0]["momentun"]', 'did you mean "momentum"?'),
    ({"layer": "h", "lr": "x"}, '["param_groups"][0]["lr"]', "must be a number"),
    ({"layer": "h", "name": 3}, '["param_groups"][0]["name"]', "must be a text, but is 3 instead"),
    ({"kind": "biass", "lr": 0.1}, '["param_groups"][0]["kind"]', 'did you mean "bias"?'),
    ({"lr": 0.1}, '["param_groups"][0]', "must have a selector"),
    ({"params": "re:(", "lr": 0.1}, '["param_groups"][0]["params"]', "is not a regular expression"),
    ({"params": 3}, '["param_groups"][0]["params"]', "must be a text or a list of texts"),
    ({"filter": 3}, '["param_groups"][0]["filter"]', "must be a function"),
    ({"layer": "h", "optimizer": 3}, '["param_groups"][0]["optimizer"]', "must be a dict"),
    ("h", '["param_groups"][0]', "must be a dict"),
])  # fmt: skip
def test_errors(rule, path: str, message: str):
    with pytest.raises(ConfigError) as caught:
        groups(rule)
    assert caught.value.path == f"optimizer{path}" and message in caught.value.message


def test_a_rule_may_be_optional():
    assert len(groups({"layer": "g", "momentum": 0.1, "optional": True}).updater.optimizers) == 1


def test_everything_frozen():
    with pytest.raises(ConfigError, match="must have trainable parameters"):
        groups({"params": "*", "freeze": True})


def test_lr_needs_a_base():
    with pytest.raises(ConfigError, match="use lr_absolute"):
        Run(optimizer={"class": "torch.SGD", "param_groups": [{"layer": "h", "lr": 0.1}]}, learning_rate=0.0)
