"""`lr_scheduler`: when it steps, who is in charge, what is refused, going on."""

import pytest

from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.optim.lr_scheduler import LRScheduler
from tests.optim.small_net import Run

HALF = {"class": "ExponentialLR", "gamma": 0.5}


def run(scheduler, **config) -> Run:
    return Run(**{"optimizer": "torch.SGD", "learning_rate": 0.8, "num_epochs": 4, "lr_scheduler": scheduler, **config})


@pytest.mark.parametrize("scheduler, rates", [
    (HALF, [0.8, 0.8, 0.4, 0.4, 0.2, 0.2]),
    ({**HALF, "interval": "step"}, [0.8, 0.4, 0.2, 0.1, 0.05, 0.025]),
    ({**HALF, "every": 2}, [0.8, 0.8, 0.8, 0.8, 0.4, 0.4]),
    ({**HALF, "start_epoch": 2}, [0.3, 0.3, 0.8, 0.8, 0.4, 0.4]),
    ([HALF, {"class": "StepLR", "step_size": 2, "gamma": 0.1}], [0.8, 0.8, 0.4, 0.4, 0.02, 0.02]),
    ({"class": "torch.optim.lr_scheduler.LambdaLR", "lr_lambda": "lambda e: math.sqrt(4**e)"},
     [0.8, 0.8, 1.6, 1.6, 3.2, 3.2]),
    ({**HALF, "mode_with_control": "multiply"}, [0.3, 0.3, 0.15, 0.15, 0.075, 0.075]),
])  # fmt: skip
def test_rates(scheduler, rates: list[float]):
    assert run(scheduler).epochs(3, learning_rate=0.3).rates == pytest.approx(rates)


def test_dynamic_learning_rate_acts_upon_it():
    made = run({**HALF, "interval": "step"}, dynamic_learning_rate={"interval": 2, "decay": 0.1}).epochs(2)
    assert made.rates == pytest.approx([0.8, 0.04, 0.2, 0.01])


def test_groups_have_their_own():
    rules = [{"layer": "h", "lr_multiplier": 0.5}]
    two = {"class": "LambdaLR", "lr_lambda": [lambda e: 0.5**e, lambda e: 0.1**e]}
    for scheduler, expected in ((two, [0.2, 0.08]), ({**two, "mode_with_control": "multiply"}, [0.2, 0.08])):
        made = run(scheduler, optimizer={"class": "torch.SGD", "param_groups": rules})
        made.epochs(2, learning_rate=0.8)
        assert list(made.updater.rates.of_step(0, 0.8).values()) == pytest.approx(expected)


def test_momentum_is_cycled():
    cycle = {"class": "CyclicLR", "base_lr": 0.1, "max_lr": 0.2, "step_size_up": 2, "base_momentum": 0.5}
    made = run(cycle, optimizer={"class": "adam"})
    momenta = []
    for epoch in (1, 2):
        made.epoch(epoch)
        momenta.append(next(iter(made.updater.optimizers.values())).options()["beta1"])
    assert momenta == pytest.approx([0.7, 0.7]) and made.rates == pytest.approx([0.1, 0.15, 0.2, 0.15])
    turned_on = run(cycle, optimizer={"class": "rmsprop"}).epochs(1)
    assert next(iter(turned_on.updater.optimizers.values())).options()["momentum"] == pytest.approx(0.7)


def test_total_steps():
    cycle = {"class": "OneCycleLR", "max_lr": 0.2, "cycle_momentum": False}
    assert run({**cycle, "total_steps": "auto"}).updater.scheduler.proxy.end == 8
    assert run({**cycle, "interval": "epoch"}).updater.scheduler.proxy.end == 4
    short = run({**cycle, "total_steps": 3}).epochs(3)
    assert len(set(short.rates[2:])) == 1 and short.updater.scheduler.surplus == 4


def test_plateau():
    made = run({"class": "ReduceLROnPlateau", "patience": 0, "factor": 0.5})
    made.epoch(1), made.epoch(2, score=1.0), made.epoch(3, score=2.0), made.epoch(4), made.epoch(5, score=0.5)
    assert made.rates == pytest.approx([0.8] * 4 + [0.4] * 6)


def test_beginning_an_epoch_again_changes_nothing():
    made = run(HALF).epochs(2)
    made.updater.start_epoch(2)
    assert made.updater.rates.of_step(0, 1.0) == pytest.approx(dict.fromkeys(made.updater.optimizers, 0.4))


def test_a_changed_scheduler_goes_on_at_the_same_place():
    state = run({**HALF, "interval": "step"}).epochs(2).updater.state_dict()
    lines: list[str] = []
    other = run({"class": "StepLR", "step_size": 4, "gamma": 0.1, "interval": "step"})
    other.updater.scheduler.log = type("", (), {"v2": staticmethod(lines.append)})
    other.updater.load_state_dict(state)
    assert other.updater.scheduler.values()[0]["lr"] == pytest.approx(0.08)
    assert lines == ["Warning: lr_scheduler has changed; the new one starts after 4 intervals."]


@pytest.mark.parametrize("scheduler, config, path, message", [
    (HALF, {"learning_rate_control": "newbob"}, "learning_rate_control", "so does lr_scheduler"),
    (HALF, {"learning_rates": [0.1]}, "learning_rates", "so does lr_scheduler"),
    (HALF, {"optimizer": {"class": "adam", "schedules": {"lr": [1]}}}, "lr_scheduler", "so does the optimizer adam"),
    ({"class": "ExponentialLRR"}, {}, 'lr_scheduler["class"]', 'did you mean "ExponentialLR"?'),
    ({"class": "no.such.Thing"}, {}, 'lr_scheduler["class"]', "cannot import"),
    ({"class": 3}, {}, 'lr_scheduler["class"]', "must be the name of a scheduler"),
    ({"gamma": 3}, {}, "lr_scheduler", 'must have "class"'),
    (3, {}, "lr_scheduler", "must be a dict or a list of dicts"),
    ({**HALF, "gama": 1}, {}, 'lr_scheduler["gama"]', 'did you mean "gamma"?'),
    ({"class": "ExponentialLR"}, {}, "lr_scheduler", 'needs the option "gamma"'),
    ({**HALF, "interval": "stp"}, {}, 'lr_scheduler["interval"]', 'did you mean "step"?'),
    ({**HALF, "every": 0}, {}, 'lr_scheduler["every"]', "whole number from 1 on"),
    ({"class": "OneCycleLR", "max_lr": 1.0}, {}, 'lr_scheduler["total_steps"]', 'or "auto"'),
    ({"class": "OneCycleLR", "max_lr": 1.0, "total_steps": 9}, {"optimizer": "gradientdescent"}, "lr_scheduler",
     '"cycle_momentum": False'),
    ({"class": "ReduceLROnPlateau", "factor": 2.0}, {}, "lr_scheduler", "Factor should be < 1.0"),
    ({"class": "ReduceLROnPlateau", "interval": "step"}, {}, 'lr_scheduler["interval"]', 'must have "epoch"'),
    ({"class": "SequentialLR", "schedulers": [HALF, {"class": "ReduceLROnPlateau"}], "milestones": [2]}, {},
     'lr_scheduler["schedulers"]', "cannot hold ReduceLROnPlateau"),
    ({"class": "SequentialLR", "schedulers": [], "milestones": []}, {}, 'lr_scheduler["schedulers"]', "at least one"),
    ({"class": "ChainedScheduler", "schedulers": [{**HALF, "gama": 1}]}, {},
     'lr_scheduler["schedulers"][0]["gama"]', "gamma"),
    ({"class": "LambdaLR", "lr_lambda": "lambda e"}, {}, 'lr_scheduler["lr_lambda"]', "cannot evaluate"),
    ({"class": "LambdaLR", "lr_lambda": "3"}, {}, 'lr_scheduler["lr_lambda"]', "must be a function"),
])  # fmt: skip
def test_errors(scheduler, config: dict, path: str, message: str):
    with pytest.raises(ConfigError) as caught:
        run(scheduler, **config)
    assert caught.value.path == path and message in caught.value.message


def test_auto_needs_data():
    with pytest.raises(ConfigError, match="whose batches can be counted"):
        LRScheduler({"class": "OneCycleLR", "max_lr": 1.0, "total_steps": "auto"}, [{"lr": 1.0}], Log.silent())
