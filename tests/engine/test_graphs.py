"""Which steps are recorded, for batches of which shapes; a recorded step has the numbers of the usual one."""

from contextlib import nullcontext

import pytest
import torch

from returnn_lite.config import Config
from returnn_lite.engine.graphs.net_step import NetStep, NetStepInParts, moved_to
from returnn_lite.engine.graphs.repeated import RepeatedSteps, repeated_steps, stays_eager
from returnn_lite.engine.graphs.shapes import Padding, batch_shape, padded_shape, padded_size
from returnn_lite.engine.step import by_itself
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.optim.gradients import gradients
from tests.engine.run_again import Recorder, RunAgain, steps
from tests.nets import DENSE, batch, network, randomised

CPU = torch.device("cpu")
LINEAR = {"class": "linear", "activation": "tanh", "n_out": 6, "from": "data"}
OUTPUT = {"class": "softmax", "loss": "ce", "from": "x"}
LSTM = {"class": "rec", "unit": "nativelstm2", "n_out": 4, "from": "data"}
ATTENTION = {"class": "self_attention", "num_heads": 2, "total_key_dim": 6, "n_out": 6, "from": "y"}
NETS = {
    "linear": {"x": LINEAR, "output": OUTPUT},
    "blstm": {
        "f": {**LSTM, "direction": 1},
        "b": {**LSTM, "direction": -1},
        "x": {"class": "copy", "from": ["f", "b"]},
        "output": OUTPUT,
    },
    "self-attention": {"y": LINEAR, "x": ATTENTION, "output": OUTPUT},
    "normalised": {"y": LINEAR, "x": {"class": "layer_norm", "from": "y"}, "output": {**OUTPUT, "L2": 0.01}},
    "statistics": {"y": LINEAR, "x": {"class": "batch_norm", "from": "y"}, "output": OUTPUT},
    "conv": {
        "x": {"class": "conv", "filter_size": (3,), "padding": "same", "n_out": 6, "from": "data"},
        "output": OUTPUT,
    },
}


def logging():
    lines, log = [], Log.silent()
    log.v3 = log.v4 = lines.append
    return lines, log


def random_batch(longest, count=3):
    lengths = [longest, longest - 1, *[3] * (count - 2)]
    return batch(DENSE, {"data": lengths, "classes": lengths}, size=count)


def test_sizes_grow_by_an_eighth_at_most():
    for size in range(1, 600):
        padded = padded_size(size)
        assert size <= padded <= size * 9 / 8
        assert padded_size(padded) == padded


def test_there_are_few_sizes():
    assert len({padded_size(n) for n in range(1, 1025)}) <= 8 * 8


@pytest.mark.parametrize("name", NETS)
def test_recorded_steps_have_the_numbers_of_the_usual_ones(name):
    net, forward = randomised(network(NETS[name])).train(), steps()
    for longest, count in ((17, 17), (17, 17), (18, 17), (17, 18), (40, 3), (18, 18)):
        data, lengths = random_batch(longest, count)
        found = forward(net, data, lengths, [])
        with torch.no_grad():
            kept = {n: p.clone() for n, p in net.params.items()}
        trained = {n: p for n, p in net.params.items() if p.requires_grad}
        want = net(data, lengths)
        grads = gradients(want.objective, trained)
        with torch.no_grad():
            for n, p in net.params.items():
                p.copy_(kept[n])
        torch.testing.assert_close(found.objective.detach(), want.objective.detach())
        assert found.losses.keys() == want.losses.keys()
        for key, loss in want.losses.items():
            torch.testing.assert_close(found.losses[key].error, loss.error)
            torch.testing.assert_close(found.losses[key].inv_norm, loss.inv_norm)
        if found.gradients is not None:
            for key, grad in grads.items():
                torch.testing.assert_close(found.gradients[key], grad)
    assert len(forward.steps) == (2 if name == "conv" else 1)
    if name not in ("conv", "statistics"):
        assert next(iter(forward.steps)).data[1][1] == (18, 18, 4)


def test_few_shapes_are_not_padded():
    net, forward = network(NETS["linear"]).train(), steps(exact=2)
    for longest in (17, 17, 19, 19, 18, 18, 17):
        forward(net, *random_batch(longest), [])
    assert [shape.data[1][1][1] for shape in forward.steps] == [17, 19, 18]
    assert [type(step.step) for step in forward.steps.values()] == [NetStep, NetStep, NetStepInParts]


def test_a_shape_is_recorded_when_it_comes_again():
    net, forward = network(NETS["linear"]).train(), steps()
    found = []
    for longest in (16, 30, 16, 16, 30, 50):
        forward(net, *random_batch(longest), [])
        found.append(len(forward.steps))
    assert found == [0, 0, 1, 1, 2, 2]


def test_the_most_frequent_steps_are_kept():
    net, forward = network(NETS["linear"]).train(), steps(kept=2)
    for longest in (16, 16, 30, 30, 16, 50, 50, 50, 50):
        forward(net, *random_batch(longest), [])
    assert {shape.data[0][1][1] for shape in forward.steps} == {16, 30}  # 50 has come twice as often, not more
    forward(net, *random_batch(50), [])
    assert {shape.data[0][1][1] for shape in forward.steps} == {16, 52}


def test_evaluation_is_as_usual():
    net, forward = network(NETS["linear"]), steps()
    with torch.no_grad():
        made = [forward(net, *random_batch(16), []) for _ in range(3)]
    assert all(out.gradients is None and out["x"].data.shape[1] == 16 for out in made)


def test_another_network_starts_anew():
    forward = steps()
    for net in (network(NETS["linear"]).train(), network(NETS["linear"]).train()):
        assert [forward(net, *random_batch(16), []).gradients is not None for _ in range(2)] == [False, True]


def test_moved_parameters_start_anew():
    net, forward = network(NETS["linear"]).train(), steps()
    for _ in range(2):
        forward(net, *random_batch(16), [])
    net.params["x/W"].data = net.params["x/W"].data.clone()
    assert forward(net, *random_batch(16), []).gradients is None


def test_statistics_count_once():
    net, forward = randomised(network(NETS["statistics"])).train(), steps()
    usual = randomised(network(NETS["statistics"])).train()
    for _ in range(4):
        forward(net, *random_batch(16), [])
        usual(*random_batch(16))
    for name, param in usual.params.items():
        torch.testing.assert_close(net.params[name], param)


def test_a_recorded_step_that_is_wrong_is_not_repeated():
    lines, log = logging()
    net = randomised(network(NETS["linear"])).train()

    class Wrong(RunAgain):
        def repeat(self, data, lengths):
            made = super().repeat(data, lengths)
            made.gradients = {name: 2 * grad for name, grad in made.gradients.items()}
            return made

    class WrongRecorder:
        def record(self, shape, step):
            return Wrong(shape, step)

    forward = RepeatedSteps(log, lambda net: WrongRecorder(), probing=nullcontext)
    data, lengths = random_batch(16)
    out = [forward(net, data, lengths, []) for _ in range(3)]
    trained = {n: p for n, p in net.params.items() if p.requires_grad}
    grads = gradients(net(data, lengths).objective, trained)
    for name, grad in grads.items():
        torch.testing.assert_close(out[1].gradients[name], grad)
    assert out[2].gradients is None
    assert "one has given the loss" in lines[-1]


def test_steps_that_lack_memory_take_that_of_recorded_ones(monkeypatch):
    lines, log = logging()
    net, forward = network(NETS["linear"]).train(), steps(log)
    for _ in range(2):
        forward(net, *random_batch(16), [])
    assert forward(net, *random_batch(30), []).gradients is not None  # a usual step, with its gradients

    def too_large(*_):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(NetStep, "values", too_large)
    assert torch.isfinite(forward(net, *random_batch(40), []).objective)
    assert lines[-1].endswith("they leave too little memory for other data")
    assert not forward.steps


def test_layers_that_look_at_the_step_are_not_recorded():
    lines, log = logging()
    counted = {"class": "eval", "from": "data", "eval": "source(0) * float(self.network.global_train_step + 1)"}
    net = network({"y": counted, "x": {**LINEAR, "from": "y"}, "output": OUTPUT}).train()
    assert stays_eager(net) == ['layer network["y"] may look at the step']
    forward = steps(log)
    assert [forward(net, *random_batch(16), []).gradients for _ in range(3)] == [None] * 3
    assert lines == [
        'torch_cuda_graph: the steps of this network are not recorded: layer network["y"] may look at the step'
    ]


def test_what_waits_is_not_recorded():
    lines, log = logging()
    net = network(NETS["linear"]).train()

    def waits():
        raise ConfigError('network["x"]', "waits for the GPU")

    forward = RepeatedSteps(log, lambda net: Recorder(), probing=waits)
    assert [forward(net, *random_batch(16), []).gradients for _ in range(3)] == [None] * 3
    assert lines == ['torch_cuda_graph: the steps of this network are not recorded: network["x"]: waits for the GPU']


LOSSES = {
    "ce": {},
    "ctc": {"n_out": 6},
    "mse": {"class": "linear", "activation": "sigmoid", "n_out": 5},
    "as_is": {"class": "linear", "activation": None, "n_out": 5},
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_in_parts_has_the_numbers_of_the_whole(loss):
    output = {**OUTPUT, "loss": loss, **LOSSES[loss]}
    net = randomised(network({"x": {**LINEAR, "L2": 0.01}, "output": output})).train()
    data, lengths = random_batch(7)
    if loss == "ctc":
        lengths["classes"] = torch.tensor([2, 3, 1], dtype=torch.int32)
    whole, parts = NetStep(net).values(data, lengths), NetStepInParts(net).values(data, lengths)
    torch.testing.assert_close(parts.objective, whole.objective)
    assert parts.losses.keys() == whole.losses.keys()
    assert parts.gradients.keys() == whole.gradients.keys()
    for name, grad in whole.gradients.items():
        torch.testing.assert_close(parts.gradients[name], grad)


def test_outputs_without_history_give_the_same_losses():
    net = randomised(network(NETS["linear"])).train()
    step = NetStepInParts(net)
    outputs = step.outputs(*random_batch(7))
    want, grads = step.losses(outputs)
    found, same = step.losses(moved_to(outputs, [x.detach().clone() for x in outputs.tensors]))
    assert torch.equal(found.objective, want.objective)
    assert all(torch.equal(a, b) for a, b in zip(same, grads, strict=True))


def test_losses_that_wait_are_computed_apart():
    lines, log = logging()
    net, runs = network(NETS["linear"]).train(), []

    def waits_at_first():
        runs.append(1)
        if len(runs) == 1:
            raise ConfigError('network["output"]', "waits for the GPU")
        return nullcontext()

    forward = RepeatedSteps(log, lambda net: Recorder(), probing=waits_at_first)
    assert [forward(net, *random_batch(16), []).gradients is not None for _ in range(3)] == [False, True, True]
    assert lines[0] == 'torch_cuda_graph: the losses are not recorded: network["output"]: waits for the GPU'
    assert isinstance(forward.step, NetStepInParts)


def test_padding_is_left_out_where_layers_see_it():
    mean = {"class": "reduce", "mode": "mean", "axes": "B", "from": "data"}
    found = {name: Padding.of(network(NETS[name])) for name in ("self-attention", "conv", "statistics")}
    found["over the batch"] = Padding.of(network({"m": mean, "x": {**LINEAR, "from": ["data", "m"]}, "output": OUTPUT}))
    assert found["self-attention"] == Padding(frames=True, sequences=True)
    assert found["conv"] == Padding(frames=False, sequences=True)
    assert found["statistics"] == Padding(frames=False, sequences=False)
    assert found["over the batch"] == Padding(frames=True, sequences=False)
    specs, shape = network(NETS["conv"]).extern_data.specs, batch_shape(*random_batch(17, 17))
    assert padded_shape(shape, specs, found["self-attention"]).data[1][1] == (18, 18, 4)
    assert padded_shape(shape, specs, found["conv"]).data[1][1] == (18, 17, 4)
    assert padded_shape(shape, specs, found["statistics"]) == shape


def test_the_option():
    log = Log.silent()
    wanted = Config({"torch_cuda_graph": True})
    assert repeated_steps(wanted, log, CPU) is by_itself
    assert repeated_steps(Config({}), log, torch.device("cuda")) is by_itself
    assert isinstance(repeated_steps(wanted, log, torch.device("cuda")), RepeatedSteps)
    with pytest.raises(ConfigError, match="torch_cuda_graph: must be True, False or the number of steps to keep"):
        repeated_steps(Config({"torch_cuda_graph": "yes"}), log, CPU)
