"""Models written in torch for tests, and configs that train them."""

from pathlib import Path

import torch

from returnn_lite.frontend import get_run_ctx
from tests.engine import helpers


class Net(torch.nn.Module):
    """A framewise net with dropout and running statistics: (B, T, 4) -> log probabilities (B, T, 4)."""

    def __init__(self):
        super().__init__()
        self.hidden = torch.nn.Linear(4, 5)
        self.norm = torch.nn.BatchNorm1d(5)
        self.dropout = torch.nn.Dropout(0.2)
        self.out = torch.nn.Linear(5, 4)

    def forward(self, x):
        x = self.norm(self.hidden(x).transpose(1, 2)).transpose(1, 2)
        return self.out(self.dropout(x.tanh())).log_softmax(-1)


def get_model(*, epoch, step, **kwargs):
    return Net()


def train_step(*, model, extern_data, **kwargs):
    data, classes = extern_data["data"], extern_data["classes"]
    log_probs = model(data.raw_tensor)
    targets = classes.raw_tensor.long()
    ce = torch.nn.functional.nll_loss(log_probs.transpose(1, 2), targets, reduction="none")
    ctx = get_run_ctx()
    ctx.mark_as_loss(ce, "ce", dims=classes.dims)
    ctx.mark_as_loss(log_probs.argmax(-1) != targets, "fer", dims=classes.dims, as_error=True)


def forward_step(*, model, extern_data, run_ctx):
    data = extern_data["data"]
    run_ctx.mark_as_output(model(data.raw_tensor), "log_probs", dims=[*data.dims[:2], 4])


def options(folder: Path, **changes) -> dict:
    """A whole training run of such a model."""
    made = {
        "backend": "torch", "use_tensorflow": None, "network": None, "optimizer": {"class": "adamw"},
        "get_model": get_model, "train_step": train_step, "forward_step": forward_step,
    }  # fmt: skip
    return helpers.options(folder, **{**made, **changes})
