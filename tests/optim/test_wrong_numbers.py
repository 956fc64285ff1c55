"""Options about updates and learning rates that are no finite number of their range: one line names the option."""

import math

import pytest

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError
from returnn_lite.schedule.options import Options
from tests.optim.small_net import Run

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("option, value", [
    ("learning_rate", NAN), ("learning_rate", INF), ("learning_rate", -0.1), ("learning_rate", "abc"),
    ("learning_rates", [0.1, NAN]), ("learning_rates", {3: -1.0}), ("learning_rates", {1: INF}),
    ("learning_rates", {1: "x"}), ("min_learning_rate", NAN), ("min_learning_rate", -1), ("learning_rate_decay", NAN),
    ("learning_rate_decay", -0.5), ("learning_rate_growth", INF), ("pretrain_learning_rate", -1.0),
    ("newbob_relative_error_threshold", NAN),
])  # fmt: skip
def test_learning_rates(option: str, value):
    with pytest.raises(ConfigError) as caught:
        Options.from_config(Config({option: value}))
    assert caught.value.path.startswith(option) and "must" in caught.value.message


@pytest.mark.parametrize("value", [NAN, INF, -1.0, "x"])
@pytest.mark.parametrize("option", [
    "gradient_clip", "gradient_clip_norm", "gradient_clip_avg_norm", "gradient_clip_global_norm", "gradient_noise",
    "grad_norm_to_clip_to_zero",
])  # fmt: skip
def test_gradients(option: str, value):
    refused({option: value}, option)


def refused(config: dict, path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Run(**config).epochs(3)
    assert caught.value.path == path and "must" in caught.value.message and "\n" not in caught.value.message


@pytest.mark.parametrize("options, key", [
    ({"class": "adam", "epsilon": NAN}, "epsilon"), ({"class": "adam", "epsilon": -1.0}, "epsilon"),
    ({"class": "adam", "beta1": NAN}, "beta1"), ({"class": "adam", "beta2": 2.0}, "beta2"),
    ({"class": "adam", "betas": "x"}, "betas"), ({"class": "adam", "betas": (0.9,)}, "betas"),
    ({"class": "adam", "betas": (0.9, NAN)}, "beta2"), ({"class": "rmsprop", "decay": INF}, "decay"),
    ({"class": "momentum", "momentum": NAN}, "momentum"), ({"class": "adamw", "weight_decay": "x"}, "weight_decay"),
    ({"class": "adam", "learning_rate_multiplier": NAN}, "learning_rate_multiplier"),
    ({"class": "torch.AdamW", "weight_decay": "x"}, "weight_decay"), ({"class": "torch.AdamW", "eps": INF}, "eps"),
    ({"class": "torch.AdamW", "betas": ("a", "b")}, "betas"), ({"class": "torch.AdamW", "betas": 0.9}, "betas"),
    ({"class": "torch.AdamW", "betas": (0.9, NAN)}, "betas"), ({"class": "torch.SGD", "momentum": NAN}, "momentum"),
    ({"class": "torch.SGD", "nesterov": "x", "momentum": 0.9}, "nesterov"),
    ({"class": "thinc.Adam", "L2": NAN}, "L2"), ({"class": "thinc.Adam", "grad_clip": -1.0}, "grad_clip"),
    ({"class": "thinc.Adam", "beta1": [0.9, NAN]}, "beta1"),
    ({"class": "adam", "lookahead_k": 3, "lookahead_alpha": NAN}, "lookahead_alpha"),
])  # fmt: skip
def test_optimizers(options: dict, key: str):
    refused({"optimizer": options}, f'optimizer["{key}"]')


@pytest.mark.parametrize("key, value", [
    ("lr", NAN), ("lr", -1.0), ("lr_multiplier", INF), ("lr_absolute", INF), ("grad_clip_norm", NAN),
    ("freeze_until_epoch", NAN), ("freeze_until_epoch", 1.5),
])  # fmt: skip
def test_groups(key: str, value):
    refused(
        {"optimizer": {"class": "adam", "param_groups": [{"layer": "h", key: value}]}},
        f'optimizer["param_groups"][0]["{key}"]',
    )


@pytest.mark.parametrize("options, key", [
    ({"class": "StepLR", "step_size": "x"}, "step_size"), ({"class": "StepLR", "step_size": 0}, "step_size"),
    ({"class": "StepLR", "step_size": 2.5}, "step_size"), ({"class": "StepLR", "step_size": 2, "gamma": "x"}, "gamma"),
    ({"class": "ExponentialLR", "gamma": NAN}, "gamma"), ({"class": "CosineAnnealingLR", "T_max": 0}, "T_max"),
    ({"class": "CosineAnnealingLR", "T_max": "x"}, "T_max"),
    ({"class": "MultiStepLR", "milestones": "x"}, "milestones"),
    ({"class": "MultiStepLR", "milestones": ["x"]}, "milestones"),
    ({"class": "LinearLR", "total_iters": -1}, "total_iters"),
    ({"class": "CyclicLR", "base_lr": 0.1, "max_lr": 0.2, "step_size_up": 0}, "step_size_up"),
    ({"class": "ReduceLROnPlateau", "patience": "x"}, "patience"),
    ({"class": "OneCycleLR", "max_lr": NAN, "total_steps": 9, "cycle_momentum": False}, "max_lr"),
    ({"class": "OneCycleLR", "max_lr": 0.1, "total_steps": -3}, "total_steps"),
])  # fmt: skip
def test_schedulers(options: dict, key: str):
    refused({"optimizer": "torch.SGD", "lr_scheduler": options}, f'lr_scheduler["{key}"]')


@pytest.mark.parametrize("config, path", [
    ({"lr_scheduler": {"class": "LambdaLR", "lr_lambda": lambda e: NAN}}, "lr_scheduler"),
    ({"dynamic_learning_rate": {"interval": 0, "decay": 0.5}}, 'dynamic_learning_rate["interval"]'),
    ({"dynamic_learning_rate": {"interval": 2, "decay": "x"}}, 'dynamic_learning_rate["decay"]'),
    ({"weight_averaging": {"kind": "ema", "decay": "x"}}, 'weight_averaging["decay"]'),
    ({"weight_averaging": {"kind": "ema", "every": 0}}, 'weight_averaging["every"]'),
    ({"weight_averaging": {"kind": "ema", "start_epoch": "x"}}, 'weight_averaging["start_epoch"]'),
    ({"optimizer_epsilon": NAN, "optimizer": "adam"}, "optimizer_epsilon"),
    ({"momentum": NAN}, "momentum"), ({"rmsprop": "x"}, "rmsprop"), ({"extra_updates": 3}, "extra_updates"),
    ({"optimizer": {"class": "adam", "schedules": {"lr": [0.1, "x"]}}}, 'optimizer["schedules"]["lr"]'),
    ({"optimizer": {"class": "adam", "schedules": {"beta1": lambda step: NAN}}}, 'optimizer["schedules"]["beta1"]'),
    ({"num_allowed_consec_invalid_gradient_steps": -1}, "num_allowed_consec_invalid_gradient_steps"),
])  # fmt: skip
def test_others(config: dict, path: str):
    refused({"optimizer": None, **config}, path)


@pytest.mark.parametrize("found", [NAN, INF, -1.0, "x", None])
def test_functions_of_the_step(found):
    with pytest.raises(ConfigError, match="the function must return a finite number"):
        Run(dynamic_learning_rate=lambda **_: found).epochs(1)


def test_a_negative_power_and_multiplier_are_fine():
    Run(optimizer={"class": "ftrl", "learning_rate_power": -0.5}).epochs(1)
    Run(optimizer={"class": "adam", "learning_rate_multiplier": -1.0}).epochs(1)
