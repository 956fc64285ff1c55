"""Torch models of a few numbers, and configs that train them: what happens to each number is easy to follow."""

import numpy as np
import torch

from returnn_lite.frontend import get_run_ctx


def ones(count):
    """So many sequences of two frames, all 1."""
    return {"class": "StaticDataset", "data": [{"data": np.ones((2, 1), "float32")} for _ in range(count)]}


def mean_loss(*, model, extern_data, **_):
    """The mean of all parameters."""
    x = extern_data["data"].raw_tensor.mean()
    loss = sum(param.mean() for param in model.parameters()) * x
    get_run_ctx().mark_as_loss(loss, "l", use_normalized_loss=True)


def options(folder, get_model, train_step=mean_loss, *, steps=4, **changes):
    """A training of such a model, one sequence a step."""
    made = {
        "backend": "torch",
        "device": "cpu",
        "train": ones(steps),
        "dev": ones(2),
        "extern_data": {"data": {"dim": 1}},
        "batch_size": 100,
        "max_seqs": 1,
        "model": str(folder / "model"),
        "learning_rate_file": str(folder / "rates"),
        "learning_rate": 0.1,
        "optimizer": {"class": "sgd"},
        "num_epochs": 3,
        "get_model": get_model,
        "train_step": train_step,
    }
    return {key: value for key, value in {**made, **changes}.items() if value is not None}


def state(folder, epoch):
    """The parameters of an epoch's checkpoint."""
    return torch.load(folder / f"model.{epoch:03d}.pt", weights_only=True)["model"]
