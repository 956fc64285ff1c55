"""One step of a decoder as a program: a search outside of the network finds what the network's own search finds."""

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import returnn_lite.catalog  # noqa: F401 - fills the registries
from returnn_lite.config import Config
from returnn_lite.errors import ConfigError
from returnn_lite.export.part import Part
from returnn_lite.export.program import Arrays, Runner, file_of
from returnn_lite.export.step_parts import loop_parts
from returnn_lite.export.task import export_task
from returnn_lite.library import load
from returnn_lite.log import Log
from returnn_lite.network.network import Network
from returnn_lite.rec.step_function import StepFunction
from returnn_lite.tasks import eval_names
from tests.export.test_export import config_of
from tests.to_torch.test_to_torch import ATTENTION, EXTERN, NETS, linear, network
from tests.to_torch.test_to_torch import batch as random_batch

HEADS = {"num_heads": 2, "total_key_dim": 6, "n_out": 6}
SELF_ATTENTION = {  # a cache that grows, and the number of the tick
    "output": {"class": "choice", "target": "classes", "beam_size": 4, "from": "prob", "initial_output": 0},
    "end": {"class": "compare", "kind": "equal", "from": "output", "value": 0},
    "embed": linear("prev:output", 6),
    "count": {"class": "cast", "dtype": "float32", "from": ":i"},
    "x": {"class": "eval", "from": ["embed", "count"], "eval": "source(0) + 0.1 * source(1)"},
    "self": {"class": "self_attention", "from": "x", "attention_left_only": True, **HEADS},
    "sum": {"class": "combine", "kind": "add", "from": ["x", "self"]},
    "prob": {"class": "softmax", "target": "classes", "from": ["sum", "base:mean"]},
}
FRAMES = {  # a label for each frame
    "embed": linear("prev:output", 4),
    "said": {"class": "compare", "kind": "not_equal", "from": "output", "value": 0, "initial_output": True},
    "masked": {
        "class": "masked_computation", "mask": "prev:said", "from": "embed",
        "unit": {"class": "rec", "unit": "lstm", "n_out": 6, "from": "data"},
    },
    "history": {"class": "unmask", "from": "masked", "mask": "prev:said"},
    "joint": {"class": "combine", "kind": "add", "activation": "tanh", "from": ["data:source", "history"]},
    "prob": {"class": "softmax", "target": "classes", "from": "joint"},
    "output": {"class": "choice", "target": "classes", "beam_size": 4, "from": "prob", "initial_output": 0},
}  # fmt: skip
NETWORKS = {
    "attention": ATTENTION,
    "transducer": {
        "x": linear("data"),
        "output": {"class": "rec", "from": "x", "target": "classes", "include_eos": True, "unit": FRAMES},
    },
    "self-attention": {
        "mean": {"class": "reduce", "mode": "mean", "axes": "T", "from": "data"},
        "output": {"class": "rec", "from": [], "target": "classes", "max_seq_len": 12, "unit": SELF_ATTENTION},
    },
}


def plain(name: str) -> dict:
    """The net, whose scores are sums."""
    description = copy.deepcopy(NETWORKS[name])
    description["output"]["unit"]["output"]["length_normalization"] = False
    return description


def net_of(name: str) -> Network:
    """The net with random parameters."""
    options = {"search": True, "eval": False, "extra_layers": ("output",), "eval_names": eval_names}
    net = Network(Config({"extern_data": EXTERN}), plain(name), **options).eval()
    with torch.no_grad():
        for i, param in enumerate(net.params.values()):
            torch.nn.init.normal_(param, std=0.6, generator=torch.Generator().manual_seed(i))
        net.params["output/rec/prob/b"][0] = 1.0  # so that some hypotheses end
    return net


def runners(parts: list[Part]) -> list:
    """The programs, from their files."""
    found = []
    for part in parts:
        runner = Runner(file_of(part.program(), part.inputs, part.outputs))
        assert part.check(runner, part.name).gap < 1e-5
        found.append(runner)
    return found


def search(parts: list[Part], data: Arrays, lengths: Arrays, beam: int, bound: int) -> tuple[list, torch.Tensor]:
    """The hypotheses of each sequence and their scores (B, K); ended ones stay as they are."""
    start, step = runners(parts)
    feeds = [{port.name: port.feeds for port in part.outputs if port.feeds} for part in parts]
    names = {port.name for port in parts[0].inputs}
    out = start({k: x for k, x in {**data, "data_lengths": lengths["data"]}.items() if k in names})
    count, classes = out["log_probs"].shape
    given = {feeds[0][name]: x for name, x in out.items() if name in feeds[0]}
    scores, ended, hyps = torch.zeros(count, 1), torch.zeros(count, 1, dtype=torch.bool), [[[]] for _ in range(count)]
    ticks = out.get("ticks", torch.full((count,), bound)).unsqueeze(1)
    frames = [port.name for port in parts[1].inputs if port.role == "frame"]
    ends = torch.full((classes,), -1e30)
    ends[0] = 0.0
    for tick in range(1, bound + 1):
        log_probs = out["log_probs"].unflatten(0, (count, -1))
        totals = scores.unsqueeze(2) + torch.where(ended.unsqueeze(2), ends, log_probs)
        scores, best = totals.flatten(1).topk(beam)
        parent, label = best // classes, best % classes
        hyps = [[hyps[b][parent[b, k]] + [int(label[b, k])] for k in range(beam)] for b in range(count)]
        rows = (parent + torch.arange(count).unsqueeze(1) * log_probs.shape[1]).flatten()
        given = {name: x[rows] for name, x in given.items()}
        inputs = {**given, "labels": label.flatten().int(), "tick": torch.tensor(tick, dtype=torch.int32)}
        inputs |= {name: given[name][:, min(tick, bound - 1)] for name in frames}
        out = step({port.name: inputs[port.name] for port in parts[1].inputs})
        ended = ended.flatten()[rows].view(count, beam) | (tick >= ticks)
        if "ended" in out:
            ended |= out["ended"].view(count, beam)
        given |= {feeds[1][name]: x for name, x in out.items() if name in feeds[1]}
        if ended.all():
            break
    return hyps, scores


@pytest.mark.parametrize("name", NETWORKS)
def test_search(name: str):
    net = net_of(name)
    data, lengths = random_batch(net, 3, 12)
    with torch.no_grad():
        out = net(data, lengths)["output"].batch_front()
        hyps, scores = search(loop_parts(net, "output", (data, lengths)), data, lengths, 4, 12)
    torch.testing.assert_close(scores, out.beam.scores)
    ends = out.length(out.spec.time_dim).values.tolist()
    found = [h for hyps_of_seq in hyps for h in hyps_of_seq]
    for hyp, row, end in zip(found, out.data, ends, strict=True):
        assert hyp[:end] == row[:end].tolist() and not any(hyp[end:])
    assert len(set(ends)) > 1


def test_ports():
    with torch.no_grad():
        start, step = loop_parts(net_of("self-attention"), "output", None)
    assert [port.name for port in start.inputs] == ["data", "data_lengths"]
    ports = {port.name: port for port in (*step.inputs, *step.outputs)}
    assert ports["labels"].classes == 7 and ports["tick"].axes == ()
    assert ports["state_self_k_left"].axes == ("rows", 2, "state_self_k_left_axis2", 3)
    assert ports["next_state_self_k_left"].feeds == "state_self_k_left"
    assert ports["given_mean"].role == "fixed" and ports["log_probs"].axes == ("rows", 7)


def test_example(tmp_path: Path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    export_task(config_of(plain("attention"), tmp_path, export_formats="onnx", export_loop="output"), Log.silent())
    features = torch.randn(14, 5, generator=torch.Generator().manual_seed(14)).numpy()
    np.save(tmp_path / "x.npy", features)
    example = Path(__file__).resolve().parents[2] / "demos/export/search.py"
    run = f"runpy.run_path({str(example)!r}, run_name='__main__')"
    call = [sys.executable, "-c", f"import sys, runpy; sys.modules['returnn_lite'] = None; {run}", "net", "x.npy", "4"]
    said = subprocess.run(call, cwd=tmp_path, check=True, timeout=600, capture_output=True, text=True).stdout.split()
    model = load({"extern_data": EXTERN, "network": plain("attention"), "allow_random_model_init": True})
    best = model.search(features)[0]
    assert [int(label) for label in said[1:]] == best.labels.tolist()
    assert float(said[0]) == pytest.approx(best.score, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "loop", "message"),
    [
        ("search", "encoder", "export_loop: layer 'encoder' must be a loop .* but is of class 'rec'"),
    ],
)
def test_refused(name: str, loop: str, message: str):
    net, _ = network(name)
    with pytest.raises(ConfigError, match=message) as caught:
        StepFunction(net, loop)
    assert "\n" not in str(caught.value)


def test_a_loop_without_choice_is_refused():
    net, _ = network("own loop")
    assert "choice" not in str(NETS["own loop"])
    with pytest.raises(ConfigError, match="must make one search choice, but makes 0"):
        StepFunction(net, "output")
