"""What all families have in common: a reset, states of others, changes of options, lookahead."""

import io

import pytest
import torch

from returnn_lite.optim import RULES
from returnn_lite.optim.thinc_optimizers import CLASSES
from returnn_lite.optim.torch_optimizers import TORCH
from tests.optim.small_net import NAMES, Run

NEEDED = {"momentum": {"momentum": 0.9}, "adamw": {"weight_decay": 0.01}}
OTHERS = [
    *(f"torch.{name}" for name in TORCH if name not in ("SparseAdam", "Muon")),
    *(f"thinc.{name}" for name in CLASSES),
]
EVERY = [*sorted({rule.name for rule in RULES.values()}), *OTHERS]


@pytest.mark.parametrize("name", EVERY)
def test_reset_is_a_new_start(name: str):
    config = {"optimizer": {"class": name, **NEEDED.get(name, {})}}
    run, new = Run(**config).epochs(2), Run(**config)
    run.updater.reset()
    for key, param in new.params.items():
        param.data.copy_(run.params[key].data)
    new.step_number = run.step_number
    assert run.epoch(3).equals(new.epoch(3))


@pytest.mark.parametrize("name", EVERY)
def test_state_goes_through_a_file(name: str):
    config = {"optimizer": {"class": name, **NEEDED.get(name, {}), "lookahead_k": 3}}
    run, resumed = Run(**config).epochs(2), Run(**config)
    file = io.BytesIO()
    torch.save(run.updater.state_dict(), file)
    file.seek(0)
    for key, param in resumed.params.items():
        param.data.copy_(run.params[key].data)
    resumed.updater.load_state_dict(torch.load(file, weights_only=True))
    resumed.step_number = run.step_number
    assert run.epoch(3).equals(resumed.epoch(3))


def test_lookahead():
    fast, run = (
        Run(optimizer={"class": "gradientdescent"}),
        Run(optimizer={"class": "gradientdescent", "lookahead_k": 2}),
    )
    start = {name: param.detach().clone() for name, param in run.params.items()}
    fast.epoch(1), run.epoch(1)
    for name in NAMES:
        assert torch.allclose(run.params[name], 0.5 * start[name] + 0.5 * fast.params[name])


def test_schedules_go_on_after_a_reset():
    run = Run(optimizer={"class": "adam", "schedules": {"lr": [0.4, 0.3, 0.2, 0.1]}}, reset_updater_vars_mod_step=2)
    assert run.epochs(2).rates == [0.4, 0.3, 0.2, 0.1]


def test_iterators_are_for_all_groups_and_networks():
    own = {"class": "adam", "schedules": {"beta1": iter([0.5, 0.6, 0.7])}, "param_groups": [{"layer": "h", "lr": 1}]}
    first = Run(optimizer=own).epoch(1)
    second = Run(optimizer=first.config.typed["optimizer"])
    second.updater.take_over(first.updater)
    for run in (first, second):
        assert [made.options()["beta1"] for made in run.updater.optimizers.values()] == [0.7, 0.7]


def test_an_option_with_a_schedule_keeps_to_it():
    run = Run(optimizer={"class": "torch.Adam", "schedules": {"beta1": [0.5, 0.6]}}).epochs(1)
    (optimizer,) = run.updater.optimizers.values()
    assert optimizer.options()["beta1"] == 0.6 and optimizer.scheduled() == {"beta1": 0.6}
    optimizer.set_option("beta1", 0.1)
    optimizer.set_option("eps", 0.1)
    assert optimizer.options()["beta1"] == 0.6 and optimizer.options()["eps"] == 0.1
    with pytest.raises(KeyError):
        optimizer.set_option("beta9", 0.1)
