"""Models written in torch: parameters frozen and set free while training, gradients of several batches, clipping.

The right values are those of a plain torch loop.
"""

import numpy as np
import pytest
import torch

from returnn_lite.errors import ConfigError
from returnn_lite.frontend import get_run_ctx
from tests.engine.helpers import run

VALUES = [1.0, 2.0, -1.0, 3.0, 0.5]  # of the batches, one sequence each


class Two(torch.nn.Module):
    """x -> w part(x)."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(()))
        self.part = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.ones_(self.part.weight)

    def forward(self, x):
        return self.w * self.part(x)


def options(folder, step, **changes):
    data = [{"data": np.full((2, 1), value, "float32")} for value in VALUES]
    made = {
        "backend": "torch", "device": "cpu", "extern_data": {"data": {"dim": 1}}, "batch_size": 100, "max_seqs": 1,
        "train": {"class": "StaticDataset", "data": data}, "get_model": lambda **_: Two(), "train_step": step,
        "optimizer": {"class": "sgd"}, "learning_rate": 0.1, "num_epochs": 3, "model": str(folder / "model"),
    }  # fmt: skip
    return {**made, **changes}


def found(folder, epoch=3):
    state = torch.load(folder / f"model.{epoch:03d}.pt", weights_only=True)["model"]
    return [state["w"].item(), state["part.weight"].item()]


def by_hand(optimizer, free, epochs=3, every=1, limit=None, clip=None, dtype=torch.float32):
    """A plain loop; `free(epoch, step)`: whether (w, part) require gradients."""
    model = Two().to(dtype)
    made = optimizer(model.parameters())
    for epoch in range(1, epochs + 1):
        for step, value in enumerate(VALUES):
            if step % every == 0:
                made.zero_grad()
            for param, needs in zip(model.parameters(), free(epoch, step), strict=True):
                param.requires_grad_(needs)
            model(torch.full((1, 2, 1), value, dtype=dtype)).mean().backward()
            if step % every == every - 1:
                if clip is not None:
                    torch.nn.utils.clip_grad_value_(model.parameters(), clip)
                if limit is not None:
                    torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
                made.step()
    return [model.w.item(), model.part.weight.item()]


FREE = {
    "frozen from epoch 2 on": lambda epoch, step: (True, epoch < 2),
    "free from epoch 2 on": lambda epoch, step: (True, epoch >= 2),
    "in turns": lambda epoch, step: (step % 2 == 1, step % 2 == 0),
    "nothing in epoch 2": lambda epoch, step: (True, True),
}
OPTIMIZERS = {
    "sgd": ({"class": "sgd", "momentum": 0.9, "weight_decay": 0.1},
            lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=0.1)),
    "adamw": ({"class": "adamw", "weight_decay": 0.1},
              lambda params: torch.optim.AdamW(params, lr=0.1, weight_decay=0.1)),
}  # fmt: skip


def stepper(free=None, checkpoint=None):
    def train_step(*, model, extern_data, epoch, step, **_):
        x = extern_data["data"].raw_tensor
        if free is not None and model.training:
            for param, needs in zip(model.parameters(), free(epoch, step % len(VALUES)), strict=True):
                param.requires_grad_(needs)
        y = model(x) if checkpoint is None else checkpoint(model, x)
        get_run_ctx().mark_as_loss(y, "l", use_normalized_loss=True)

    return train_step


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("free", FREE.values(), ids=FREE)
def test_parameters_are_frozen_and_set_free(tmp_path, free, name):
    config, plain = OPTIMIZERS[name]
    run(options(tmp_path, stepper(free), optimizer=config))
    assert found(tmp_path) == pytest.approx(by_hand(plain, free), abs=1e-5)


def test_frozen_at_first_by_the_model(tmp_path):
    def get_model(**_):
        model = Two()
        model.part.requires_grad_(False)
        return model

    free = FREE["free from epoch 2 on"]
    run(options(tmp_path, stepper(free), get_model=get_model))
    assert found(tmp_path, 1)[1] == 1.0
    assert found(tmp_path) == pytest.approx(by_hand(lambda p: torch.optim.SGD(p, lr=0.1), free), abs=1e-5)


def test_frozen_by_options_until_an_epoch(tmp_path):
    optimizer = {"class": "sgd", "param_groups": [{"params": "part*", "freeze_until_epoch": 2}]}
    run(options(tmp_path, stepper(), optimizer=optimizer))
    wanted = by_hand(lambda p: torch.optim.SGD(p, lr=0.1), FREE["free from epoch 2 on"])
    assert found(tmp_path) == pytest.approx(wanted, abs=1e-5)


def test_checkpointing_of_activations(tmp_path):
    def reentrant(model, x):
        return torch.utils.checkpoint.checkpoint(model, x.clone().requires_grad_(), use_reentrant=True)

    run(options(tmp_path, stepper(checkpoint=reentrant)))
    wanted = by_hand(lambda p: torch.optim.SGD(p, lr=0.1), FREE["nothing in epoch 2"])
    assert found(tmp_path) == pytest.approx(wanted, abs=1e-5)


def test_averages_have_what_is_set_free_later(tmp_path):
    def get_model(**_):
        model = Two()
        model.part.requires_grad_(False)
        return model

    averaging = {"kind": "ema", "decay": 0.5}
    run(options(tmp_path, stepper(FREE["free from epoch 2 on"]), get_model=get_model, weight_averaging=averaging))
    raw, averaged = (
        torch.load(tmp_path / f"model.003.{kind}", weights_only=True)["model"] for kind in ("pt", "avg.pt")
    )
    assert raw["part.weight"] != averaged["part.weight"]


def test_everything_frozen_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="no parameter can be trained: all have requires_grad = False"):
        run(options(tmp_path, stepper(lambda epoch, step: (False, False))))


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("config", [
    {}, {"gradient_clip_global_norm": 1.5}, {"gradient_clip": 1.0, "gradient_clip_global_norm": 1.2},
])  # fmt: skip
def test_gradients_of_several_batches(tmp_path, every, config):
    """Clipped is what is applied; the rest of an epoch (5 batches) is dropped."""
    run(options(tmp_path, stepper(), accum_grad_multiple_step=every, **config))
    limit, clip = config.get("gradient_clip_global_norm"), config.get("gradient_clip")
    sgd = lambda params: torch.optim.SGD(params, lr=0.1)  # noqa: E731
    assert found(tmp_path) == pytest.approx(by_hand(sgd, lambda *_: (True, True), 3, every, limit, clip), abs=1e-5)


def test_the_norm_is_that_of_all_groups_together(tmp_path):
    groups = {"class": "sgd", "param_groups": [{"params": "part*", "lr_multiplier": 1.0, "momentum": 0.0}]}
    run(options(tmp_path, stepper(), optimizer=groups, gradient_clip_global_norm=0.5))
    wanted = by_hand(lambda p: torch.optim.SGD(p, lr=0.1), lambda *_: (True, True), limit=0.5)
    assert found(tmp_path) == pytest.approx(wanted, abs=1e-5)


def test_the_number_of_batches_by_a_function(tmp_path):
    asked = []

    def every(*, epoch, epoch_continuous, global_train_step, **_):
        asked.append((epoch, epoch_continuous, global_train_step))
        return epoch

    run(options(tmp_path, stepper(), accum_grad_multiple_step=every, num_epochs=2))
    model = Two()
    made = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in (1, 2):
        for step, value in enumerate(VALUES):
            if step % epoch == 0:
                made.zero_grad()
            model(torch.full((1, 2, 1), value)).mean().backward()
            if step % epoch == epoch - 1:
                made.step()
    assert found(tmp_path, 2) == pytest.approx([model.w.item(), model.part.weight.item()], abs=1e-5)
    assert [(epoch, step) for epoch, _, step in asked] == [(1 + i // 5, i) for i in range(10)]
    assert [part for _, part, _ in asked] == pytest.approx([(i + 1) / 5 for i in range(10)])


def test_a_function_must_give_a_number(tmp_path):
    with pytest.raises(ConfigError, match="accum_grad_multiple_step: the function must return a whole number"):
        run(options(tmp_path, stepper(), accum_grad_multiple_step=lambda **_: 0))


def test_updates_that_are_not_finite_are_left_out_with_their_batches(tmp_path):
    """The second of two updates, of 2 batches each, has a gradient that is not finite, but a finite loss."""

    def train_step(*, model, extern_data, step, **_):
        y = model(extern_data["data"].raw_tensor)
        if step == 2:
            y = y + (model.w - model.w.detach()).abs().sqrt()  # 0, with an infinite slope
        get_run_ctx().mark_as_loss(y, "l", use_normalized_loss=True)

    config = {"accum_grad_multiple_step": 2, "num_allowed_consec_invalid_gradient_steps": 1}
    lines = run(options(tmp_path, train_step, num_epochs=1, **config))
    assert sum("Invalid gradient in step " in line for line in lines) == 1
    assert found(tmp_path, 1) == pytest.approx([1 - 0.1 * 3, 1 - 0.1 * 3], abs=1e-5)


def test_an_optimizer_that_asks_for_the_loss_several_times(tmp_path):
    """Each of its questions gets the gradient of that evaluation alone."""

    def loss_of(y):
        return (y - 1.0).square().mean()

    def train_step(*, model, extern_data, **_):
        get_run_ctx().mark_as_loss(loss_of(model(extern_data["data"].raw_tensor)), "l", use_normalized_loss=True)

    run(options(tmp_path, train_step, optimizer={"class": "torch.LBFGS", "max_iter": 4}, num_epochs=1))
    model = Two()
    plain = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
    for value in VALUES:

        def closure(value=value):
            plain.zero_grad()
            loss = loss_of(model(torch.full((1, 2, 1), value)))
            loss.backward()
            return loss

        plain.step(closure)
    assert found(tmp_path, 1) == pytest.approx([model.w.item(), model.part.weight.item()], abs=1e-6)
