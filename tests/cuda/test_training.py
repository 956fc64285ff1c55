"""The engine's options on a GPU: mixed precision, scaled gradients, memory, profiles. Needs a GPU."""

import math
import re

import pytest
import torch

from tests.engine import helpers, torch_models
from tests.engine.helpers import run

MODELS = pytest.mark.parametrize("models", [helpers, torch_models], ids=["layers", "torch"])


def dev_scores(folder):
    return [float(value) for value in re.findall(r"'dev_(?:score|loss_ce)': ([\d.]+)", (folder / "rates").read_text())]


def parameters(folder, epoch):
    return torch.load(folder / f"model.{epoch:03d}.pt")["model"]


@MODELS
@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
@pytest.mark.parametrize("graphs", [True, False], ids=["graphs", "eager"])
def test_mixed_precision_learns_as_float32(tmp_path, cuda, models, kind, graphs):
    plain, low = tmp_path / "plain", tmp_path / "low"
    changes = {**cuda, "num_epochs": 6, "torch_cuda_graph": graphs}
    run(models.options(plain, **changes))
    run(
        models.options(
            low, torch_amp=kind, grad_scaler=None if kind == "bfloat16" else {"init_scale": 256.0}, **changes
        )
    )
    assert dev_scores(low)[-1] == pytest.approx(dev_scores(plain)[-1], rel=0.1)
    assert all(value.dtype != torch.float16 for value in parameters(low, 6).values())


def test_recorded_steps_use_the_present_parameters(tmp_path, cuda):
    """A cast of a parameter that is kept in a recorded step would be that of its first value for ever."""
    changes = {**cuda, "num_epochs": 5, "torch_amp": "bfloat16", "network": helpers.network(dropout=0.0)}
    run(helpers.options(tmp_path / "recorded", torch_cuda_graph=True, **changes))
    run(helpers.options(tmp_path / "eager", torch_cuda_graph=False, **changes))
    recorded, eager = (parameters(tmp_path / name, 5) for name in ("recorded", "eager"))
    for name, value in eager.items():
        torch.testing.assert_close(recorded[name], value, rtol=0.02, atol=0.02)


@MODELS
def test_the_scale_is_saved_and_goes_on(tmp_path, cuda, models):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    changes = {**cuda, "torch_amp": "float16", "grad_scaler": {"growth_interval": 3}}
    run(models.options(whole, num_epochs=4, **changes))
    run(models.options(parts, num_epochs=2, **changes))
    run(models.options(parts, num_epochs=4, **changes))
    first, second = (torch.load(folder / "model.004.opt.pt")["optimizer"]["loss_scale"] for folder in (whole, parts))
    assert first == second
    for name, value in parameters(whole, 4).items():
        torch.testing.assert_close(parameters(parts, 4)[name], value, rtol=1e-4, atol=1e-5)


@MODELS
def test_memory_and_norms_in_the_log(tmp_path, cuda, models):
    lines = run(models.options(tmp_path, num_epochs=1, torch_log_memory_usage=True, log_grad_norm=True, **cuda))
    steps = [line for line in lines if re.match(r"(train epoch 1|ep 1 train), step", line)]
    assert steps and all(re.search(r"mem_usage:cuda [\d.]+[KMG]?B", line) for line in steps)
    norms = [float(re.search(r"grad_norm:p2 ([\d.e+-]+)", line)[1]) for line in steps]
    assert all(math.isfinite(norm) and norm > 0 for norm in norms)
    assert any(line.startswith("Memory usage (cuda") for line in lines)


def test_a_profile_of_the_gpu(tmp_path, cuda, monkeypatch):
    monkeypatch.chdir(tmp_path)
    schedule = {"skip_first": 1, "wait": 0, "warmup": 1, "active": 2}
    lines = run(helpers.options(tmp_path, torch_profile={"schedule": schedule}, max_seqs=2, **cuda))
    assert (tmp_path / "torch_profile.json").exists() and any("CUDA" in line for line in lines)


def test_grad_checkpoint_halves_the_peak(cuda):
    """Blocks of a feed-forward net: the same gradients, with at most 0.55 of the memory."""
    from tests.nets import batch, network, randomised

    inside = {
        "norm": {"class": "layer_norm", "from": "data"},
        "up": {"class": "linear", "n_out": 1024, "activation": "swish", "from": "norm", "dropout": 0.1},
        "down": {"class": "linear", "n_out": 256, "activation": None, "from": "up"},
        "output": {"class": "combine", "kind": "add", "from": ["data", "down"]},
    }
    made = {"in": {"class": "linear", "n_out": 256, "activation": None, "from": "data"}}
    for i in range(12):
        made[f"block{i}"] = {"class": "subnetwork", "subnetwork": inside, "from": f"block{i - 1}" if i else "in"}
    made["output"] = {"class": "softmax", "from": "block11", "loss": "ce", "target": "classes"}
    keys = {"data": {"dim": 4}, "classes": {"dim": 5, "sparse": True}}
    data, lengths = batch(keys, {"data": [2000] * 3, "classes": [2000] * 3})
    data, lengths = ({key: value.cuda() for key, value in values.items()} for values in (data, lengths))

    def measured(**config):
        net = randomised(network(made, keys, **config), scale=0.05).to("cuda").train()
        net.seed(1)
        trained = list(net.params.values())
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        out = net(data, lengths)
        objective = out.objective
        out.forget_layers()
        grads = torch.autograd.grad(objective, trained)
        return torch.cuda.max_memory_allocated() - before, [grad.cpu() for grad in grads]

    plain, parts = measured(), measured(grad_checkpoint=True)
    for one, other in zip(plain[1], parts[1], strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)
    assert parts[0] <= 0.55 * plain[0], f"{parts[0]} of {plain[0]} bytes"


def test_forward_splits_what_does_not_fit(tmp_path, cuda, monkeypatch):
    run(torch_models.options(tmp_path, num_epochs=1, **cuda))
    seen = []

    def forward_step(*, model, extern_data, run_ctx):
        data = extern_data["data"]
        seen.append(len(data.raw_tensor))
        if len(data.raw_tensor) > 2:
            torch.empty(2**50, device="cuda")
        run_ctx.mark_as_output(model(data.raw_tensor), "log_probs", dims=[*data.dims[:2], 4])

    changes = {"task": "forward", "load_epoch": 1, "eval": helpers.dataset(6, 2), "forward_step": forward_step}
    changes |= {"output_file": str(tmp_path / "out.hdf"), "forward_auto_split_batch_on_oom": True, "max_seqs": None}
    run(torch_models.options(tmp_path, batch_size=10000, **changes, **cuda))
    assert seen[0] == 6 and max(seen[-3:]) <= 2 and (tmp_path / "out.hdf").exists()
