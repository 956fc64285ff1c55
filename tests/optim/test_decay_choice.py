"""`weight_decay_modules_blacklist`, `weight_decay_custom_include_check`, `param_groups_custom`."""

import pytest
import torch

from returnn_lite import frontend as rf
from returnn_lite.config import Config
from returnn_lite.errors import ConfigError
from returnn_lite.frontend.bridge import rf_module_to_pt_module
from returnn_lite.layers.core.params import ParamOwner
from returnn_lite.log import Log
from returnn_lite.optim import Updater
from returnn_lite.optim.decay_choice import without_decay
from returnn_lite.optim.param_groups import ParamInfo
from tests.nets import network

NET = {
    "embedding": {"class": "linear", "n_out": 3, "from": "data:classes", "activation": None},
    "norm": {"class": "layer_norm", "from": "embedding"},
    "hidden": {"class": "linear", "n_out": 3, "from": "norm", "activation": "tanh"},
    "output": {"class": "softmax", "n_out": 5, "from": "hidden", "loss": "ce", "target": "classes"},
}
MATRICES = {"embedding/W", "hidden/W", "output/W"}
WEIGHTS = {"hidden/W", "output/W"}


def updater(options, **config):
    net = network(NET)
    optimizer = {"class": "torch.AdamW", "weight_decay": 0.1, **options}
    settings = Config({"optimizer": optimizer, "learning_rate": 0.1, **config})
    return Updater(
        net.params, settings, param_options=net.param_options, initial_learning_rate=0.1, log=Log.silent(), network=net
    )


def decayed(options, **config):
    made = updater(options, **config)
    return {n for g in made.groups for n in g.names if made.optimizers[g.optimizer].options()["weight_decay"]}


def test_blacklist():
    assert decayed({}, backend="torch") == WEIGHTS
    assert decayed({"weight_decay_modules_blacklist": []}) == MATRICES | {"norm/scale"}
    assert decayed({"weight_decay_modules_blacklist": ["torch.nn.LayerNorm"]}) == MATRICES
    assert decayed({"weight_decay_modules_blacklist": ["rf.Linear", "rf.Embedding"]}) == {"output/W", "norm/scale"}
    assert "hidden/b" in decayed({})


def test_check_goes_first():
    seen = {}

    def check(*, module, full_param_name, **_):
        seen[full_param_name] = module.class_name
        return {"hidden/b": True, "output/W": False}.get(full_param_name)

    found = decayed({"weight_decay_custom_include_check": check})
    assert found == {"hidden/W", "hidden/b"}
    assert seen["norm/scale"] == "layer_norm" and len(seen) == 8


def test_groups_by_a_function():
    def groups(*, model, rf_model, optimizer_class, optimizer_opts, **_):
        assert optimizer_class is torch.optim.AdamW and rf_model is None
        assert optimizer_opts == {"lr": 0.1, "weight_decay": 0.1}
        yield {"params": [model.params["hidden/W"]], "weight_decay": 0.3}
        yield {"params": [model.params["hidden/b"], model.params["output/W"]], "lr_multiplier": 0.5}

    made = updater({"param_groups_custom": groups})
    by_name = {name: made.optimizers[group.optimizer] for group in made.groups for name in group.names}
    assert set(by_name) == {"hidden/W", "hidden/b", "output/W"}
    assert by_name["hidden/W"].options()["weight_decay"] == 0.3
    assert by_name["output/W"].learning_rate_multiplier == 0.5


@pytest.mark.parametrize(("options", "words"), [
    ({"weight_decay_modules_blacklist": "LayerNorm"}, "must be a list of classes"),
    ({"weight_decay_custom_include_check": 3}, "must be a function"),
    ({"param_groups_custom": [1]}, "must be a function"),
    ({"param_groups_custom": lambda: [{"lr": 1}]}, 'must return dicts with "params"'),
    ({"param_groups_custom": lambda: [{"params": [torch.ones(1)]}]}, "not a trainable parameter"),
    ({"param_groups_custom": lambda: [], "param_groups": [{"layer": "hidden", "lr": 1.0}]}, "cannot be used together"),
])  # fmt: skip
def test_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        updater(options)


def test_biases_of_torch_lstms_are_decayed():
    params = dict(torch.nn.LSTM(2, 3).named_parameters())
    infos = {name: ParamInfo(name, param.dim(), param=param) for name, param in params.items()}
    assert without_decay({"weight_decay": 0.1}, infos, {}, torch_backend=True) == {}
    others = {name: ParamInfo(name, 1) for name in ("b", "x_b", "bias_x", "mybias")}
    assert set(without_decay({"weight_decay": 0.1}, others, {}, torch_backend=True)) == {"mybias"}
    given = {"weight_decay": 0.1, "weight_decay_modules_blacklist": []}
    assert set(without_decay(given, infos, {}, torch_backend=False)) == {"bias_ih_l0", "bias_hh_l0"}


def test_what_a_check_gets():
    seen = []

    def check(*, module, rf_module, full_param_name, param):
        seen.append((module, rf_module, full_param_name, param))

    module = torch.nn.Linear(2, 3)
    info = ParamInfo("encoder.weight", 2, module=module, param=module.weight)
    options = {"weight_decay": 0.1, "weight_decay_custom_include_check": check}
    assert without_decay(options, {"encoder.weight": info}, {}, torch_backend=True) == {}
    assert seen == [(module, None, "weight", module.weight)]


def test_sparse_grad_of_a_layer():
    for wanted, options in ((True, {}), (False, {"sparse_grad": False})):
        net = network({**NET, "embedding": {**NET["embedding"], **options}})
        rows = {"data": torch.zeros(1, 2, 4), "classes": torch.tensor([[0, 1]], dtype=torch.int32)}
        out = net(rows, {key: torch.tensor([2], dtype=torch.int32) for key in rows})
        (grad,) = torch.autograd.grad(out.objective, [net.params["embedding/W"]])
        assert grad.is_sparse is wanted


def test_modules_of_the_frontend():
    """Their classes are others than torch's of the same name."""

    class Net(rf.Module):
        def __init__(self):
            dim = rf.Dim(3, name="features")
            self.norm, self.embedding = rf.LayerNorm(dim), rf.Embedding(rf.Dim(4, name="classes"), dim)
            self.linear = rf.Linear(dim, dim)

    module = rf_module_to_pt_module(Net())
    owners = {
        f"{prefix}.{name}": ParamOwner.of_torch(prefix, part)
        for prefix, part in module.named_modules()
        for name, _ in part.named_parameters(recurse=False)
    }
    infos = {name: ParamInfo(name, 2, module=o.module, classes=o.classes) for name, o in owners.items()}

    def without(blacklist):
        options = {"weight_decay": 0.1} | ({} if blacklist is None else {"weight_decay_modules_blacklist": blacklist})
        return set(without_decay(options, infos, {}, torch_backend=True)) - {"norm.bias", "linear.bias"}

    assert without(None) == set()
    assert without(["rf.LayerNorm", "rf.Embedding"]) == {"norm.scale", "embedding.weight"}
    assert without([rf.Embedding, torch.nn.LayerNorm]) == {"embedding.weight"}
    assert without(["torch.nn.LayerNorm"]) == set()
