"""`lr_scheduler` and schedules count updates, also with gradients of several batches, and after a restart."""

import pytest
import torch

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.optim import Updater

CYCLE = {"class": "OneCycleLR", "max_lr": 1.0, "total_steps": "auto", "cycle_momentum": False}


def one_cycle(total: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros((), requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=total, cycle_momentum=False)
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(total - 1):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


class Run:
    """A run of epochs of `batches` steps; `rates`: those of its updates."""

    def __init__(self, scheduler, batches, *, log=None, **config) -> None:
        self.param = torch.nn.Parameter(torch.zeros(()))
        self.batches, self.step, self.rates = batches, 0, []
        options = {"optimizer": "torch.SGD", "lr_scheduler": scheduler, "num_epochs": 2, **config}
        self.updater = Updater(
            {"w": self.param}, Config(options), param_options={}, initial_learning_rate=1.0, log=log or Log.silent(),
            steps_per_epoch=lambda: batches,
        )  # fmt: skip

    def epoch(self, epoch: int) -> "Run":
        self.updater.start_epoch(epoch)
        for step in range(self.batches):
            before = self.param.item()
            complete = (step + 1) / self.batches
            options = {"learning_rate": 1.0, "epoch_step": step, "complete": complete}
            self.updater.step(self.param * 1.0, global_step=self.step, **options)
            self.step += 1
            if self.param.item() != before:
                self.rates.append(self.updater.effective_learning_rate)
        return self


TORCH = {"backend": "torch", "optimizer": {"class": "sgd"}}


@pytest.mark.parametrize("config, batches, updates", [
    ({}, 5, 10),
    ({"accum_grad_multiple_step": 2}, 5, 5),  # the rest of an epoch counts in the next one
    ({"accum_grad_multiple_step": 3}, 4, 2),
    ({"accum_grad_multiple_step": lambda **_: 3}, 5, 2),  # counted anew in each epoch
    (TORCH, 5, 10),
    ({**TORCH, "accum_grad_multiple_step": 2}, 5, 4),  # the rest of an epoch is dropped
    ({**TORCH, "accum_grad_multiple_step": 4}, 8, 4),
    ({**TORCH, "accum_grad_multiple_step": lambda *, epoch, **_: 3 - epoch}, 6, 9),
])  # fmt: skip
def test_auto_is_the_number_of_updates(config: dict, batches: int, updates: int):
    run = Run(CYCLE, batches, **config).epoch(1).epoch(2)
    assert run.updater.scheduler.total == updates
    assert run.rates == pytest.approx(one_cycle(updates))


def test_auto_begins_at_the_first_epoch_of_the_scheduler():
    run = Run({**CYCLE, "start_epoch": 2}, 4, num_epochs=3)
    assert run.updater.scheduler.total == 8
    assert Run({**CYCLE, "every": 2}, 4).updater.scheduler.total == 4
    assert Run({**CYCLE, "interval": "epoch"}, 4, num_epochs=3).updater.scheduler.total == 3


@pytest.mark.parametrize("scheduler, rates", [
    ({"class": "LinearLR", "start_factor": 1.0, "end_factor": 0.5, "total_iters": "auto", "interval": "step"},
     [1, 0.9, 0.8, 0.7, 0.6]),
    ({"class": "PolynomialLR", "total_iters": "auto", "interval": "step"}, [1, 0.8, 0.6, 0.4, 0.2]),
    ([{"class": "PolynomialLR", "total_iters": "auto", "interval": "step"}, {"class": "ConstantLR", "factor": 0.5}],
     [0.5, 0.4, 0.3, 0.2, 0.1]),
])  # fmt: skip
def test_other_schedulers_of_a_whole_run(scheduler, rates: list[float]):
    run = Run(scheduler, 5, accum_grad_multiple_step=2).epoch(1).epoch(2)
    assert run.rates == pytest.approx(rates)


@pytest.mark.parametrize("scheduler, config, message", [
    (CYCLE, {**TORCH, "accum_grad_multiple_step": 9}, '"auto" must count one update at least'),
    ({"class": "SequentialLR", "milestones": [2], "schedulers": [{"class": "ConstantLR"}, CYCLE]}, {},
     '"auto" is for the outermost scheduler'),
])  # fmt: skip
def test_errors(scheduler: dict, config: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        Run(scheduler, 4, **config)


class Warnings:
    verbosity = 2

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, level: int, text: str) -> None:
        self.lines.append(text)

    def close(self) -> None:
        pass


def resumed(last: int, *, before: int = 4, epochs: int = 2) -> tuple[Run, list[str]]:
    """A run planned for `before` epochs is stopped after `epochs` and goes on with `last` in all."""
    first = Run(CYCLE, 3, num_epochs=before)
    for epoch in range(1, epochs + 1):
        first.epoch(epoch)
    target = Warnings()
    second = Run(CYCLE, 3, num_epochs=last, log=Log([target]))
    second.updater.load_state_dict(first.updater.state_dict())
    second.step = first.step
    for epoch in range(epochs + 1, last + 1):
        second.epoch(epoch)
    return second, target.lines


def test_a_restart_goes_on_at_the_same_place():
    run, warnings = resumed(4)
    assert run.rates == pytest.approx(one_cycle(12)[6:]) and warnings == []


def test_a_restart_with_more_epochs_goes_on_in_the_longer_schedule():
    run, warnings = resumed(6)
    assert run.rates == pytest.approx(one_cycle(18)[6:])
    assert warnings == ['Warning: lr_scheduler has changed ("auto" is 18 now, and was 12 before);'
                        " the new one starts after 6 intervals."]  # fmt: skip


def test_a_restart_with_fewer_epochs():
    run, warnings = resumed(3)
    assert run.rates == pytest.approx(one_cycle(9)[6:]) and len(warnings) == 1


def test_a_restart_behind_the_end_keeps_the_last_value():
    first = Run(CYCLE, 3, num_epochs=4)
    for epoch in range(1, 5):
        first.epoch(epoch)
    second = Run(CYCLE, 3, num_epochs=2)
    second.updater.load_state_dict(first.updater.state_dict())
    assert second.epoch(5).rates == pytest.approx([one_cycle(6)[-1]] * 3)


def test_one_cycle_inside_of_others_ends():
    chained = [{**CYCLE, "total_steps": 4, "interval": "step"}, {"class": "StepLR", "step_size": 100}]
    assert Run(chained, 4).epoch(1).epoch(2).rates == pytest.approx(one_cycle(4) + one_cycle(4)[-1:] * 4)


@pytest.mark.parametrize("config", [{}, TORCH])
def test_the_preview_is_what_is_used(config: dict):
    """Also for schedules inside of the optimizer, and where the rest of an epoch is carried over or dropped."""
    schedule = {"@schedules": "compounding.v1", "start": 1.0, "stop": 0.01, "compound": 0.5}
    variants = [
        {"lr_scheduler": {"class": "StepLR", "step_size": 1, "gamma": 0.5, "interval": "step"}},
        {"lr_scheduler": None, "optimizer": {"class": "torch.SGD", "schedules": {"lr": schedule}}},
        {"lr_scheduler": None, "optimizer": {"class": "thinc.SGD", "learn_rate": schedule}},
    ]
    for variant in variants:
        options = {**config, "accum_grad_multiple_step": 3, **variant}
        run, drawn = Run(options.pop("lr_scheduler"), 4, **options), []
        planned = Run(variant["lr_scheduler"], 4, **options)
        for epoch in (1, 2):
            planned.updater.start_epoch(epoch)
            for step in range(4):
                values = planned.updater.preview(4 * (epoch - 1) + step, 1.0, (step + 1) / 4)
                drawn.append(values["learning_rate"])
        used = []
        for epoch in (1, 2):
            run.updater.start_epoch(epoch)
            for step in range(4):
                number = 4 * (epoch - 1) + step
                run.updater.step(run.param * 1.0, global_step=number, learning_rate=1.0, epoch_step=step)
                used.append(run.updater.effective_learning_rate)
        assert drawn == pytest.approx(used)
        assert used == pytest.approx([1, 1, 1, 0.5, 0.5, 0.5, 0.25 if not config else 0.5, 0.25])
