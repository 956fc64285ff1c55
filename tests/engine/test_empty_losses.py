"""Batches in which a loss has nothing to count: its score there is not defined, the training goes on."""

import math
import re

import numpy as np
import pytest
import torch

from returnn_lite.engine.report import EpochScores
from returnn_lite.frontend import get_run_ctx
from returnn_lite.network.objective import LossValue
from returnn_lite.trials.watch import mean_losses
from tests.engine.helpers import run

EXTERN = {"data": {"dim": 2}, "a": {"dim": 3, "sparse": True}, "b": {"dim": 3, "sparse": True}}


def sequence(seed, **targets):
    random = np.random.RandomState(seed)
    data = random.normal(size=(6, 2)).astype("float32")
    return {"data": data, **{key: np.array(targets.get(key, ()), "int32") for key in ("a", "b")}}


def dataset(*sequences):
    return {"class": "StaticDataset", "data": list(sequences), "output_dim": {"data": (2, 2), "a": (3, 1), "b": (3, 1)}}


MIXED = dataset(sequence(1, a=[0, 1]), sequence(2, b=[2]), sequence(3, a=[1]), sequence(4, b=[0, 2]))
ONLY_A = dataset(sequence(1, a=[0, 1]), sequence(3, a=[1]))


def scores(folder):
    environment = {"EpochData": lambda learningRate, error: error, "nan": math.nan, "np": np}  # noqa: N803
    return eval((folder / "rates").read_text(), environment)


def options(folder, train=MIXED, **changes):
    softmax = {"class": "softmax", "n_out": 4, "from": "enc", "loss": "ctc"}
    made = {
        "use_tensorflow": True, "device": "cpu", "train": train, "dev": train, "extern_data": EXTERN, "max_seqs": 1,
        "batch_size": 100, "num_epochs": 1, "learning_rate": 1e-20, "model": str(folder / "model"),
        "learning_rate_file": str(folder / "rates"), "network": {
            "enc": {"class": "rec", "unit": "nativelstm2", "n_out": 3, "from": "data"},
            "output": {**softmax, "target": "a"}, "other": {**softmax, "target": "b"},
        },
    }  # fmt: skip
    return {**made, **changes}


@pytest.mark.parametrize("normalized", [False, True])
def test_scores_do_not_depend_on_the_batches(tmp_path, normalized):
    found = []
    for count in (1, 4):
        made = options(tmp_path / str(count), max_seqs=count)
        for name in ("output", "other"):
            made["network"][name]["loss_opts"] = {"use_normalized_loss": normalized}
        lines = run(made)
        found.append(scores(tmp_path / str(count))[1])
        assert lines[-1] == "Finished training in epoch 1."
    for key in ("train_score_output", "train_score_other", "dev_score_output", "dev_error_other"):
        assert found[0][key] == pytest.approx(found[1][key], rel=1e-5) and math.isfinite(found[0][key])


def test_a_loss_without_any_target(tmp_path):
    lines = run(options(tmp_path, ONLY_A, num_epochs=3, learning_rate_control="newbob", cleanup_old_models=True))
    record = scores(tmp_path)[3]
    assert math.isnan(record["train_score_other"]) and math.isnan(record["dev_score_other"])
    assert math.isfinite(record["train_score_output"]) and lines[-1] == "Finished training in epoch 3."
    assert "note: train epoch 1: no targets for other: the score is undefined (nan)" in lines
    assert not any("broken" in line for line in lines)
    step = next(line for line in lines if line.startswith("train epoch 1, step 0"))
    assert "cost:other nan" in step and re.search(r"cost:output [\d.]+", step)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor([0.5, 0.25]))


def train_step(*, model, extern_data, **_):
    """Two tasks: the mean of x w over the sequences that have targets for it."""
    context = get_run_ctx()
    y = (extern_data["data"].raw_tensor * model.w).sum(-1).mean(1)  # (B,)
    for key in ("a", "b"):
        there = extern_data[key].dims[1].dyn_size_ext.raw_tensor > 0
        context.mark_as_loss(y[there], key, use_normalized_loss=True)


def torch_options(folder, train=MIXED, **changes):
    made = {"backend": "torch", "use_tensorflow": None, "network": None, "get_model": lambda **_: Net()}
    made |= {"train_step": train_step, "optimizer": {"class": "sgd"}, "learning_rate": 0.1}
    return {key: value for key, value in {**options(folder, train), **made, **changes}.items() if value is not None}


def test_models_written_in_torch(tmp_path):
    run(torch_options(tmp_path))
    weights = torch.tensor([0.5, 0.25])
    for entry in MIXED["data"]:
        weights -= 0.1 * torch.as_tensor(entry["data"]).mean(0)
    state = torch.load(tmp_path / "model.001.pt", weights_only=True)["model"]
    assert state["w"].tolist() == pytest.approx(weights.tolist(), abs=1e-6)
    assert all(math.isfinite(scores(tmp_path)[1][key]) for key in ("train_loss_a", "train_loss_b", "dev_loss_b"))


def test_models_written_in_torch_without_any_target(tmp_path):
    lines = run(torch_options(tmp_path, ONLY_A))
    record = scores(tmp_path)[1]
    assert math.isnan(record["train_loss_b"]) and math.isfinite(record["train_loss_a"])
    assert lines[-1] == "Finished training at epoch 1, global train step 2"


def test_a_batch_without_anything_to_train_by(tmp_path):
    """The first batch has no targets at all, its loss is a plain number."""

    def step(*, model, extern_data, **_):
        there = extern_data["a"].dims[1].dyn_size_ext.raw_tensor > 0
        y = (extern_data["data"].raw_tensor * model.w).sum(-1).mean(1)[there]
        get_run_ctx().mark_as_loss(y if there.any() else torch.zeros(0), "a")

    train = dataset(sequence(2, b=[2]), sequence(1, a=[0, 1]))
    assert run(torch_options(tmp_path, train, train_step=step))[-1].startswith("Finished training at epoch 1")


def loss(total, norm, *, normalized=True):
    return LossValue(total, None, torch.tensor(norm), 1.0, normalized)


def test_gradients_are_finite():
    x = torch.tensor([2.0, 3.0], requires_grad=True)
    (loss(x.sum(), 0.0).objective + loss(x.prod(), 3.0).objective).backward()
    assert x.grad.tolist() == pytest.approx([1.0, 2.0 / 3])
    assert loss(x.sum(), 0.0).objective.item() == 0 and loss(x.sum(), 0.0, normalized=False).objective.item() == 5


def test_sums_of_parts_of_an_epoch():
    """As of several processes: one of them has no targets for the loss."""
    columns = (("cost", "x"), ("inv_norm", "x"))
    parts = [EpochScores(), EpochScores()]
    assert math.isnan(parts[0].add(columns, np.array([0.5, 0.0]))["cost:x"])
    assert parts[1].add(columns, np.array([3.0, 4.0]))["cost:x"] == 0.75
    assert parts[0].empty() == ["x"] and math.isnan(parts[0].means()["cost:x"])
    whole = EpochScores()
    whole.become_sum_of(parts)
    assert whole.means()["cost:x"] == pytest.approx(3.5 / 4) and whole.empty() == []


def test_what_a_learned_rate_is_told():
    pairs = [torch.tensor([3.0, 2.0]), torch.tensor([1.0, 0.0]), torch.tensor([2.0, 4.0])]
    assert mean_losses(pairs).tolist() == [1.5, 0.5] and mean_losses(pairs[1:2]).tolist() == [0.0]
