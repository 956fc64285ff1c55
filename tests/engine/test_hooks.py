"""Functions of a config around epochs and after loading; norms of gradients; batches of torch models."""

import re

import numpy as np
import pytest
import torch

from returnn_lite.errors import ConfigError
from tests.engine import helpers, small_models, torch_models
from tests.engine.helpers import dataset, run


@pytest.mark.parametrize("models", [helpers, torch_models], ids=["layers", "torch"])
def test_hooks_are_called_around_epochs(tmp_path, models):
    calls, loaded = [], []

    def note(which):
        return lambda *, epoch, step, model, dataset_name, **_: calls.append(
            (which, epoch, step, dataset_name, model.training)
        )

    hooks = {"epoch_start": note("start"), "epoch_end": note("end")}
    hooks["load_model_post_hooks"] = [lambda *, model, **_: loaded.append(type(model).__name__)]
    run(models.options(tmp_path, num_epochs=1, **hooks))
    steps = calls[1][2]
    assert calls == [
        ("start", 1, 0, "train", True),
        ("end", 1, steps, "train", True),
        ("start", 1, steps, "dev", False),
        ("end", 1, steps, "dev", False),
    ]
    assert steps > 0 and loaded == ["Network" if models is helpers else "Net"]


def test_hooks_after_loading_change_the_model(tmp_path):
    def shift(*, model, **_):
        model.out.bias += 100.0

    run(torch_models.options(tmp_path, num_epochs=1))
    before = torch.load(tmp_path / "model.001.pt")["model"]["out.bias"]
    run(torch_models.options(tmp_path, num_epochs=2, load_model_post_hooks=[shift]))
    after = torch.load(tmp_path / "model.002.pt")["model"]["out.bias"]
    assert float((after - before - 100.0).abs().max()) < 1.0  # what an epoch changes


def test_hooks_after_loading_run_in_mixed_precision(tmp_path):
    seen = []
    hook = lambda **_: seen.append(torch.is_autocast_enabled("cpu"))  # noqa: E731
    for value in (None, "bfloat16"):
        run(torch_models.options(tmp_path / str(value), num_epochs=1, load_model_post_hooks=[hook], torch_amp=value))
    assert seen == [False, True]


def test_hooks_must_take_further_arguments(tmp_path):
    with pytest.raises(ConfigError, match="epoch_end: must be a function that takes epoch, step, model"):
        run(helpers.options(tmp_path, epoch_end=lambda *, epoch, step, model, dataset_name: 0))


@pytest.mark.parametrize("models", [helpers, torch_models], ids=["layers", "torch"])
@pytest.mark.parametrize(("power", "name"), [(True, "p2"), (1, "p1"), (float("inf"), "pinf")])
def test_norms_of_gradients(tmp_path, models, power, name):
    lines = run(models.options(tmp_path, num_epochs=1, log_grad_norm=power, accum_grad_multiple_step=2, max_seqs=5))
    marks = [re.search(rf"grad_norm:{name} ([\d.e+-]+),", line) for line in lines if re.search(r", step \d+, ", line)]
    shown = [float(mark[1]) for mark in marks if mark]
    steps = [line for line in lines if re.match(r"(train epoch 1|ep 1 train), step", line)]
    assert 0 < len(shown) == len(steps) // 2  # an update of two steps has one
    recorded = re.search(rf"'train_(?:loss_)?grad_norm(?::{name})?': ([\d.]+)", (tmp_path / "rates").read_text())
    assert float(recorded[1]) == pytest.approx(np.mean(shown), rel=2e-3)


def test_the_norm_is_that_of_the_raw_sum(tmp_path):
    """Each of two steps has the gradient (1, 1, 1) / 3."""

    class Three(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(3))

    changes = {"log_grad_norm": True, "gradient_clip": 0.1, "accum_grad_multiple_step": 2, "num_epochs": 1}
    lines = run(small_models.options(tmp_path, lambda **_: Three(), **changes))
    assert sum(f"grad_norm:p2 {2 / 3**0.5:.3f}," in line for line in lines) == 2


def batches(lines, which="train"):
    """The number of sequences of each batch."""
    return [int(m[1]) for line in lines if (m := re.search(rf"^ep 1 {which}, step \d+, .*num_seqs (\d+),", line))]


def test_sizes_as_functions(tmp_path):
    asked = []

    def max_seqs(*, epoch, epoch_continuous, seq_idx, **_):
        asked.append((epoch, round(epoch_continuous * 14), seq_idx))
        return 2 if seq_idx < 6 else 4

    changes = {"max_seqs": max_seqs, "batch_size": lambda **_: 10000, "log_batch_size": True, "num_epochs": 1}
    lines = run(torch_models.options(tmp_path, **changes))
    assert batches(lines) == [2, 2, 4, 4, 2]  # the third may grow when the seventh sequence comes
    assert asked[:3] == [(1, 1, 0), (1, 2, 1), (1, 3, 2)]


def test_sizes_as_functions_for_framewise_layer_nets(tmp_path):
    """Sequences stand end to end, 10 frames a batch."""
    frames = sum(len(seq["classes"]) for seq in helpers.sequences(14, 1))
    changes = {"batch_size": lambda *, epoch, **_: 10, "max_seqs": lambda **_: None, "num_epochs": 1}
    lines = run(helpers.options(tmp_path, **changes))
    assert sum(line.startswith("train epoch 1, step ") for line in lines) == -(-frames // 10)


@pytest.mark.parametrize(("changes", "words"), [
    ({"max_seqs": lambda **_: 0}, "max_seqs: the function must return a whole number above 0, but returned 0"),
    ({"batch_size": lambda **_: "a"}, "batch_size: must be a number of frames or a dict"),
    ({"chunking": lambda **_: 0}, "chunking: must not be a function for models by `get_model`"),
    ({"chunking": ({"data": 3, "classes": 2}, {"data": 3, "classes": 2})}, "the same number of chunks for all keys"),
])  # fmt: skip
def test_wrong_batches(tmp_path, changes, words):
    with pytest.raises(ConfigError, match=words):
        run(torch_models.options(tmp_path, **changes))


def test_sizes_of_training_and_evaluation(tmp_path):
    sizes = {"batch_size": 1, "batch_size_train": {"data": 10000}, "batch_size_dev": 10000, "max_seqs": None}
    for models in (helpers, torch_models):
        lines = run(models.options(tmp_path / models.__name__, num_epochs=1, **sizes))
        assert sum(bool(re.match(r"(train epoch 1|ep 1 train), step", line)) for line in lines) == 1
        assert sum(bool(re.match(r"(epoch 1 'dev'|ep 1 dev) eval, step", line)) for line in lines) == 1


def test_chunks_and_limits_hold_for_evaluation_too(tmp_path):
    """Sequences have 3 to 8 frames; of 4 to 6 frames there are chunks of 4, 2 frames apart, the rest of at least 3."""
    changes = {"chunking": "4:2", "min_chunk_size": 3, "min_seq_length": 4, "max_seq_length": {"data": 6}}
    lines = run(torch_models.options(tmp_path, num_epochs=1, max_seqs=1, **changes))
    lengths = [len(seq["classes"]) for seq in helpers.sequences(6, 2)]
    chunks = sum(len([start for start in range(0, n, 2) if min(4, n - start) >= 3]) for n in lengths if 4 <= n <= 6)
    assert sum(line.startswith("ep 1 dev eval, step ") for line in lines) == chunks > 2


def test_forward_leaves_nothing_out_unasked(tmp_path):
    run(torch_models.options(tmp_path, num_epochs=1))
    changes = {"task": "forward", "load_epoch": 1, "max_seq_length": 5, "eval": dataset(6, 2)}
    changes["output_file"] = str(tmp_path / "out.hdf")
    with pytest.raises(ConfigError, match="max_seq_length: must not be set for the task forward, but is 5"):
        run(torch_models.options(tmp_path, **changes))
    lines = run(torch_models.options(tmp_path, allow_skipping_seqs_in_forward=True, **changes))
    assert any(line.startswith("ep 1 eval forward, step 0, ") for line in lines)
    assert (tmp_path / "out.hdf").exists()
