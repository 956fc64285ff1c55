"""A network as torch, pickle and copy see it: names of parameters, copies, files, and how it is printed."""

import copy
import gc
import io
import pickle

import pytest
import torch

from returnn_lite.compat.tf import eval_names
from returnn_lite.config import Config
from returnn_lite.network import Network
from returnn_lite.network.builder import Builder
from returnn_lite.network.construct import Net
from returnn_lite.rec.loop_builder import LoopBuilder
from returnn_lite.tensor import Dim
from tests.nets import DENSE, batch, network, randomised
from tests.rec.nets import ATTENTION, END, KEYS, decoder, labels, linear, loop
from tests.rec.nets import LENGTHS as REC_LENGTHS

LENGTHS = {"data": [4, 2, 3], "classes": [4, 2, 3]}
NOISY = {"h": {**linear("data"), "dropout": 0.5}, "output": {"class": "softmax", "from": "h", "loss": "ce"}}
RANDOM = {
    "noise": {"class": "random", "shape": [3], "distribution": "normal", "seed": 5},
    "output": {"class": "combine", "kind": "add", "from": ["h", "noise"], "is_output_layer": True},
    "h": linear("data"),
}
KEPT = {"output": {"class": "rec", "unit": "lstm", "from": "data", "n_out": 3, "initial_state": "keep_over_epoch"}}
MASKED = {
    "mask": {"class": "compare", "from": "one", "value": 0.0, "kind": "greater"},
    "one": {"class": "reduce", "mode": "sum", "axis": "F", "from": "data"},
    "output": {"class": "masked_computation", "mask": "mask", "from": "data", "unit": linear("data")},
}
NETS = {
    "decoder": (decoder(ATTENTION), KEYS, REC_LENGTHS),
    "dropout": (NOISY, DENSE, LENGTHS),
    "random numbers of its own": (RANDOM, DENSE, LENGTHS),
    "a state that is kept": (KEPT, DENSE, LENGTHS),
    "masked": (MASKED, DENSE, LENGTHS),
}


def through_pickle(net):
    return pickle.loads(pickle.dumps(net))


def through_a_file(net):
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def values(net, keys, lengths):
    out = net(*batch(keys, lengths))
    return [out["output"].data, out.objective]


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("copied", [copy.deepcopy, through_pickle, through_a_file])
def test_a_copy_goes_on_as_the_network_would(name, copied):
    layers, keys, lengths = NETS[name]
    net = randomised(network(layers, keys)).train()
    net.global_step, net.epoch = 7, 3
    frozen = next(iter(net.params.values()))
    frozen.requires_grad_(False)
    values(net, keys, lengths)  # random numbers and states move on
    made = copied(net)
    assert (made.global_step, made.epoch, made.training) == (7, 3, True)
    assert [n for n, p in made.params.items() if not p.requires_grad] == [next(iter(net.params))]
    for found, expected in zip(values(made, keys, lengths), values(net, keys, lengths), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    for name_, param in made.params.items():
        assert param is not net.params[name_] and param.data_ptr() != net.params[name_].data_ptr()


def test_search_and_what_else_was_asked_for_are_kept():
    unit = {"output": labels(), "prob": linear("data:source", 5), "end": END}
    layers = {"output": loop(unit, ["data"], max_seq_len=3), "more": linear("data")}
    config = Config({"extern_data": KEYS})
    net = Network(config, layers, search=True, eval=False, extra_layers=("more",))
    made = through_pickle(net)
    assert "more" in made.layers and not made.loss_nodes
    assert made.layers["output"].program.width == net.layers["output"].program.width is not None


def test_shared_dims_of_a_description_are_shared_in_the_copy():
    time = Dim(None, "time")
    keys = {"data": {"dim": 4, "same_dim_tags_as": {"T": time}}, "classes": {"dim": 4, "same_dim_tags_as": {"T": time}}}
    net = network({"output": {"class": "combine", "kind": "add", "from": ["data", "data:classes"]}}, keys)
    made = through_pickle(net)
    assert made.spec("output").rank == net.spec("output").rank == 3
    assert made.spec("output").time_dim not in (time, None)
    assert copy.deepcopy(net).spec("output").time_dim == time


def test_settings_that_no_file_can_hold_are_left_out():
    net = network({"output": linear("data")}, DENSE, module=torch, function=lambda: 0, answer=42)
    made = through_pickle(net)
    assert made.context.config.int("answer", 0) == 42 and not made.context.config.has("module")


def test_names_for_eval_strings_that_the_config_knows_are_kept():
    config = Config({"extern_data": DENSE})
    config.eval_names = eval_names
    net = Network(config, {"output": {"class": "eval", "from": "data", "eval": "tf.nn.relu(source(0))"}})
    expected, _ = values(net, DENSE, LENGTHS)
    torch.testing.assert_close(values(through_pickle(net), DENSE, LENGTHS)[0], expected)


def test_parameters_have_the_names_of_checkpoints():
    net = network({"_a": linear("data"), "output": linear("_a", reuse_params="_a")}, {"data": {"dim": 3}})
    assert list(net.params) == [".95.a/W", ".95.a/b"]
    assert list(net.state_dict()) == [name for name, _ in net.named_parameters()] == list(net.params)
    assert [id(p) for p in net.parameters()] == [id(p) for p in net.params.values()]
    outer = torch.nn.Sequential(net)
    assert list(outer.state_dict()) == ["0..95.a/W", "0..95.a/b"]


def test_state_dicts_are_loaded_and_checked():
    net = network({"output": linear("data")}, DENSE)
    wanted = {"output/W": torch.ones(4, 3), "output/b": torch.full((3,), 2.0)}
    net.load_state_dict(wanted)
    assert all(torch.equal(net.params[name], value) for name, value in wanted.items())
    out = net(*batch(DENSE, LENGTHS))["output"]
    data = batch(DENSE, LENGTHS)[0]["data"]
    torch.testing.assert_close(out.data, torch.tanh(data.sum(-1, keepdim=True) + 2.0).expand(out.data.shape))
    with pytest.raises(RuntimeError, match='Missing key.*"output/b".*\n.*Unexpected key.*"other"'):
        net.load_state_dict({"output/W": wanted["output/W"], "other": torch.zeros(1)})


def test_printing_shows_the_layers_in_their_order():
    text = str(network(decoder(ATTENTION), KEYS))
    lines = [line.strip() for line in text.splitlines()]
    starts = [
        "Network(", "encoder: linear(data:data) -> [B, T:", "output: rec(", "before: output/emb: linear(prev:output)",
        "inside: output/s: rnn_cell(emb, prev:att) -> ", "after: output/prob: softmax(", "loss output/prob: ce", ")",
    ]  # fmt: skip
    at = [next(i for i, line in enumerate(lines) if line.startswith(start)) for start in starts]
    assert at == sorted(at)
    assert lines[at[1]].endswith("; W (4, 3); b (3,)")


def test_a_program_cannot_be_changed():
    net = network(decoder(ATTENTION), KEYS)
    for program in (net.program, net.layers["output"].program):
        with pytest.raises(AttributeError):
            program.nodes = ()


def builders():
    """How many objects that build nets are alive."""
    gc.collect()
    return sum(issubclass(type(found), (Net, Builder, LoopBuilder)) for found in gc.get_objects())


@pytest.mark.parametrize("name", NETS)
def test_nothing_that_runs_knows_a_builder(name):
    layers, keys, lengths = NETS[name]
    before = builders()
    net = network(layers, keys)
    assert builders() == before
    assert net(*batch(keys, lengths))["output"].data.numel()
