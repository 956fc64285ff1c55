"""Ways of training in several processes give the numbers of one process, or of each other."""

from pathlib import Path

import pytest
import torch

from tests.engine.several import train

# A model without chance, whose parameter `idle` gets no gradient; all see all data, in the same order.
TORCH = """
import torch
from tests.engine import torch_models

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(4, 5), torch.nn.Linear(5, 4)])
        self.idle = torch.nn.Parameter(torch.ones(3))

    def forward(self, x):
        return self.blocks[1](self.blocks[0](x).tanh()).log_softmax(-1)

def get_model(**_):
    return Net()

globals().update(torch_models.options(Path("out"), train=train, get_model=get_model))
del network, use_tensorflow
"""
LAYERS = """
network["h"]["dropout"] = 0.0
"""
ROWS = """
network["frames"] = {"class": "reinterpret_data", "from": "data:classes", "size_base": "data"}
network["labels"] = {"class": "linear", "from": "frames", "n_out": 4}  # its gradient has rows only
network["h"]["from"] = ["data", "labels"]
network["h"]["dropout"] = 0.0
"""
# Kinds of parameters: of sub-networks, shared, in loops, not trained, single numbers; and what reads them elsewhere.
NET = """
counting = {"update_sample_only_in_training": True, "force_sample": True}  # processes count for themselves
block = {"class": "subnetwork", "subnetwork": {
    "norm": {"class": "batch_norm", "from": "data", **counting},
    "up": {"class": "linear", "n_out": 7, "activation": "relu", "from": "norm", "L2": 0.01, "batch_norm": counting},
    "output": {"class": "linear", "n_out": 5, "activation": None, "from": "up", "darc1": 0.01},
}}
network = {
    "b0": {**block, "from": "data"},
    "b1": {**block, "from": "b0"},
    "again": {"class": "linear", "n_out": 7, "activation": "tanh", "from": "b0",
              "reuse_params": {"map": {"W": {"reuse_layer": "b1/up"}, "b": None}}},
    "lstm": {"class": "rec", "unit": "nativelstm2", "n_out": 5, "from": ["b1", "again"], "initial_state": "var"},
    "loop": {"class": "rec", "from": "lstm", "unit": {
        "s": {"class": "linear", "n_out": 4, "activation": "tanh", "from": ["data:source", "prev:s"],
              "initial_output": "var"},
        "t": {"class": "linear", "n_out": 4, "activation": "tanh", "from": ["s", "prev:t"]},
        "output": {"class": "combine", "kind": "add", "from": ["s", "t"]},
    }},
    "frozen": {"class": "linear", "n_out": 5, "activation": "tanh", "from": "loop", "trainable": False},
    "scale": {"class": "variable", "shape": (), "init": 1.0},
    "scaled": {"class": "combine", "kind": "mul", "from": ["frozen", "scale"]},
    "conv": {"class": "conv", "filter_size": (3,), "padding": "same", "n_out": 5, "from": "scaled"},
    "output": {"class": "softmax", "loss": "ce", "from": "conv", "target": "classes"},
    "aux": {"class": "softmax", "loss": "ce", "from": "b0", "target": "classes", "loss_scale": 0.3},
}
grad_checkpoint = ["b1", "loop"]
"""
RF = """
from tests.engine import rf_models, torch_models
from returnn_lite import frontend as rf

rf_models.Net.__call__ = lambda self, x: rf.log_softmax(self.layers(x), axis=rf_models.class_dim)
globals().update(torch_models.options(
    Path("out"), train=train, get_model=rf_models.get_model, train_step=rf_models.train_step,
    extern_data=rf_models.EXTERN))
del network, use_tensorflow
"""
BASE = """
train["seq_ordering"] = "default"
optimizer = {"class": "adamw", "weight_decay": 0.01}
gradient_clip_global_norm = 0.5
num_epochs = 2
max_seqs = 3
log = ["./log"]
"""
UNEVEN = "train['data'] = train['data'][:13]\n"
GUARDED = {"num_allowed_consec_invalid_gradient_steps": 2, "log_grad_norm": True, "accum_grad_multiple_step": 2}
FURTHER = {"gradient_noise": 0.1, "weight_averaging": {"kind": "ema"}, "save_epoch1_initial_model": True}
WAYS = {
    "grad": {},
    "grad_explicit": {"reduce_type": "grad_explicit"},
    "param": {"reduce_type": "param", "param_sync_step": 2},
    "fsdp": {"class": "fsdp"},
}
KINDS = {"torch": TORCH, "rf": RF, "layers": LAYERS, "rows": ROWS, "net": NET}


def text(kind, **more):
    if kind is ROWS:  # the norm is that of rows before they are summed, so that it would depend on the processes
        more["gradient_clip_global_norm"] = 0.0
    return "".join([kind, BASE, *(f"{key} = {value!r}\n" for key, value in more.items())])


def parameters(folder: Path, epoch: int = 2, suffix: str = "") -> dict[str, torch.Tensor]:
    return torch.load(folder / "out" / f"model.{epoch:03d}{suffix}.pt", weights_only=True)["model"]


def state(folder: Path, epoch: int = 2) -> dict[str, torch.Tensor]:
    """The tensors of an optimizer's state, by parameter and slot."""
    optimizers = torch.load(folder / "out" / f"model.{epoch:03d}.opt.pt", weights_only=True)["optimizer"]["optimizers"]
    slots = next(iter(optimizers.values()))["slots"]
    return {f"{name}/{key}": value for name, values in slots.items() for key, value in values.items()}


def scores(folder: Path, epoch: int = 2) -> dict[str, float]:
    table = eval((folder / "out" / "rates").read_text(), {"EpochData": dict})
    found = table[epoch]["error"]
    return {
        f"{key}/{name}": number
        for key, value in found.items() if not key.startswith(":")
        for name, number in (value if isinstance(value, dict) else {"": value}).items()
    }  # fmt: skip


def same(first, second, tolerance=1e-5):
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(torch.as_tensor(value), torch.as_tensor(second[name]), atol=tolerance, rtol=1e-5)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """All trainings of this page: by one process, two and four."""
    base = tmp_path_factory.mktemp("runs")
    ones = {base / f"{kind}-one": text(config) for kind, config in KINDS.items()}
    train(1, {**ones, base / "guarded-one": text(TORCH, **GUARDED), base / "net-on": text(NET)})
    train(1, {base / f"further-{kind}-one": text(KINDS[kind], **FURTHER) for kind in ("torch", "net")})
    equal = {
        base / f"{kind}-{name}": text(config, torch_distributed=way)
        for kind, config in KINDS.items() for name, way in WAYS.items()
    }  # fmt: skip
    shares = {
        base / f"shares-{kind}-{name}": text(config, torch_distributed={**WAYS[name], "data": "shares"})
        for kind, config in KINDS.items() for name in ("grad", "grad_explicit", "fsdp")
    }  # fmt: skip
    apart = {"reduce_type": "param", "param_sync_step": 1000, "data": "shares"}
    further = {
        base / "apart": text(TORCH, torch_distributed=apart, num_epochs=1),
        base / "uneven": text(TORCH + UNEVEN, torch_distributed={"data": "shares"}, max_seqs=1),
        base / "uneven-param": text(TORCH + UNEVEN, torch_distributed={**WAYS["param"], "data": "shares"}, max_seqs=1),
        base / "four": text(TORCH, torch_distributed=WAYS["fsdp"]),
        base / "back": text(TORCH, torch_distributed=WAYS["fsdp"]),
        **{
            base / f"further-{kind}": text(KINDS[kind], torch_distributed=WAYS["fsdp"], **FURTHER)
            for kind in ("torch", "net")
        },
        base / "net-back": text(NET, torch_distributed=WAYS["fsdp"]),
        base / "guarded": text(TORCH, torch_distributed=WAYS["fsdp"], **GUARDED),
    }
    train(2, {**equal, **shares, **further})
    # What two processes have begun, four and one go on with.
    kept = {**WAYS["fsdp"], "options": {"reshard_after_forward": False, "modules": ["b*", "loop"]}}
    on = {base / "net-on": text(NET, torch_distributed=kept, num_epochs=3)}
    train(4, {base / "four": text(TORCH, torch_distributed=WAYS["fsdp"], num_epochs=3), **on})
    halves = [f"train['data'] = train['data'][{start}:{start + 7}]\n" for start in (0, 7)]
    alone = {base / f"half{i}": text(TORCH + half, num_epochs=1) for i, half in enumerate(halves)}
    again = {base / f"{kind}three": text(config, num_epochs=3) for kind, config in (("", TORCH), ("net-", NET))}
    back = {base / f"{kind}back": text(config, num_epochs=3) for kind, config in (("", TORCH), ("net-", NET))}
    train(1, {**back, **again, **alone})
    return base


@pytest.mark.parametrize(("kind", "way"), [(k, w) for k in KINDS for w in WAYS])
def test_all_data_in_the_same_order_train_as_one_process(runs, kind, way):
    """Parameters, optimizer states and scores; with parts of parameters, too, the files have whole ones."""
    found, expected = runs / f"{kind}-{way}", runs / f"{kind}-one"
    same(parameters(found), parameters(expected))
    same(state(found), state(expected))
    same(scores(found), scores(expected))


def test_norms_of_parts_are_those_of_the_whole(runs):
    """Gradients that are summed, checked and whose norm is reported."""
    same(parameters(runs / "guarded"), parameters(runs / "guarded-one"))
    same(scores(runs / "guarded"), scores(runs / "guarded-one"))
    assert "train_loss_grad_norm:p2/" in scores(runs / "guarded")


@pytest.mark.parametrize("kind", ["torch", "net"])
def test_all_models_of_parts_are_whole(runs, kind):
    """That before the first step, and the averaged one; with the noise of one process in the gradients."""
    found, expected = runs / f"further-{kind}", runs / f"further-{kind}-one"
    same(parameters(found, 0), parameters(expected, 0))
    same(parameters(found, 2, ".avg"), parameters(expected, 2, ".avg"))
    same(parameters(found), parameters(expected))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_averaged_alike(runs, kind):
    """While they are computed, afterwards, and in parts."""
    expected = runs / f"shares-{kind}-grad_explicit"
    for way in ("grad", "fsdp"):
        found = runs / f"shares-{kind}-{way}"
        same(parameters(found), parameters(expected))
        same(scores(found), scores(expected))
    one = parameters(runs / f"{kind}-one")
    assert any(not torch.allclose(value.float(), one[name].float()) for name, value in parameters(expected).items())


def test_parameters_are_averaged(runs):
    """Two processes with half of the data each, averaged at the end: the mean of two trainings."""
    halves = [parameters(runs / f"half{i}", 1) for i in (0, 1)]
    mean = {name: (value + halves[1][name]) / 2 for name, value in halves[0].items()}
    same(parameters(runs / "apart", 1), mean)
    assert not torch.allclose(halves[0]["blocks.0.weight"], halves[1]["blocks.0.weight"], atol=1e-3)


@pytest.mark.parametrize(("name", "steps"), [("uneven", 6), ("uneven-param", 7)])
def test_an_epoch_ends_with_the_data_of_one(runs, name, steps):
    """13 sequences are 7 and 6 steps.

    With averages every 2 steps, ranks ask before steps 1, 2, 4, 6 and 8, or when they have no more.
    """
    assert f"Epoch 2: Trained {steps} steps" in (runs / name / "log").read_text()


@pytest.mark.parametrize("name", ["four", "back", "net-back", "net-on"])
def test_another_number_of_processes_goes_on(runs, name):
    """Two processes with a part of every parameter, then four such, or one; one, then four."""
    expected = runs / ("net-three" if name.startswith("net") else "three")
    same(parameters(runs / name, 3), parameters(expected, 3))
    same(state(runs / name, 3), state(expected, 3))
    same(scores(runs / name, 3), scores(expected, 3))
