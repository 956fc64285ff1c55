"""The whole update of a training step: options, per-layer options, accumulation, schedules, resuming."""

import io
import math
from collections.abc import Callable

import pytest
import torch

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError
from returnn_lite.layers.core.params import ParamOptions
from returnn_lite.log import Log
from returnn_lite.optim import RULES, Updater

INPUTS = torch.randn(12, 8, 3, generator=torch.Generator().manual_seed(1))
NAMES = {"h/W": (3, 4), "h/b": (4,), "output/W": (4, 2), "output/b": (2,)}
NEEDED = {"momentum": {"momentum": 0.9}, "adamw": {"weight_decay": 0.01}}


def parameters() -> dict[str, torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(2)
    return {name: torch.nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in NAMES.items()}


def objective(params: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    hidden = torch.tanh(x @ params["h/W"] + params["h/b"])
    return ((hidden @ params["output/W"] + params["output/b"]) ** 2).sum()


class Run:
    """A training run on the small network above."""

    def __init__(self, config: dict, layers: dict[str, ParamOptions] | None = None, **options) -> None:
        self.params = options.pop("params", None) or parameters()
        layers = layers or {}
        param_options = {name: layers.get(name.split("/")[0], ParamOptions()) for name in self.params}
        log = options.pop("log", Log.silent())
        self.updater = Updater(
            self.params, Config(config), param_options=param_options, initial_learning_rate=0.1, log=log, **options
        )

    def steps(self, first: int, last: int, learning_rate: float = 0.1) -> "Run":
        for step in range(first, last):
            value = objective(self.params, INPUTS[step])
            self.updater.step(value, global_step=step, learning_rate=learning_rate, epoch_step=step)
        return self

    def equals(self, other: "Run") -> bool:
        return all(torch.equal(param, other.params[name]) for name, param in self.params.items())

    def close_to(self, other: "Run") -> bool:
        return all(torch.allclose(param, other.params[name], atol=1e-6) for name, param in self.params.items())


def sgd_by_hand(steps: int, change: Callable[[dict[str, torch.Tensor], int], dict[str, torch.Tensor]]) -> Run:
    """Plain SGD where `change` maps the gradients of a step to those applied."""
    run = Run({})
    for step in range(steps):
        grads = torch.autograd.grad(objective(run.params, INPUTS[step]), list(run.params.values()))
        with torch.no_grad():
            for name, grad in change(dict(zip(run.params, grads, strict=True)), step).items():
                run.params[name] -= 0.1 * grad
    return run


def norm_of(grads: dict[str, torch.Tensor]) -> float:
    return math.sqrt(sum((grad**2).sum().item() for grad in grads.values()))


def test_plain():
    assert Run({}).steps(0, 3).close_to(sgd_by_hand(3, lambda grads, _: grads))


def test_nothing_trainable():
    params = {name: torch.nn.Parameter(torch.zeros(2), requires_grad=False) for name in NAMES}
    with pytest.raises(ConfigError, match="must have trainable parameters"):
        Run({}, params=params)


def test_frozen_and_unused_parameters_stay():
    run = Run({"optimizer": {"class": "adam"}})
    run.params["h/W"].requires_grad_(False)
    run = Run({"optimizer": {"class": "adam"}}, params=run.params | {"unused/W": torch.nn.Parameter(torch.ones(2))})
    run.steps(0, 3)
    assert torch.equal(run.params["h/W"], parameters()["h/W"])
    assert torch.equal(run.params["unused/W"], torch.ones(2))
    assert not torch.equal(run.params["h/b"], parameters()["h/b"])


# --- gradient processing ----------------------------------------------------------------------------------------------


def test_global_norm_is_that_of_the_raw_gradients():
    def change(grads, _):
        scale = 0.5 * min(1 / norm_of(grads), 1 / 0.5)
        return {name: grad.clamp(-0.2, 0.2) * scale for name, grad in grads.items()}

    run = Run({"gradient_clip": 0.2, "gradient_clip_global_norm": 0.5}).steps(0, 4)
    assert run.close_to(sgd_by_hand(4, change))


def test_layer_options_override_global_ones():
    def change(grads, _):
        return {name: grad if name.startswith("h/") else grad.clamp(-0.2, 0.2) for name, grad in grads.items()}

    layers = {"h": ParamOptions(updater_opts={"gradient_clip": 0})}
    assert Run({"gradient_clip": 0.2}, layers).steps(0, 4).close_to(sgd_by_hand(4, change))


def test_norm_by_tag():
    def change(grads, _):
        norm = norm_of({name: grad for name, grad in grads.items() if name.startswith("h/")})
        return {name: grad * 0.5 * min(1 / norm, 1 / 0.5) for name, grad in grads.items()}

    config = {"gradient_clip_global_norm": 0.5, "gradient_clip_global_norm_tag": "x"}
    run = Run(config, {"h": ParamOptions(updater_opts={"tags": ["x"]})})
    assert run.steps(0, 4).close_to(sgd_by_hand(4, change))
    without_tag = Run(config).steps(0, 4)  # nothing has the tag: norm 0, no clipping
    assert without_tag.close_to(Run({}).steps(0, 4))


def test_nan_filter_and_zero_by_norm():
    run = Run({"gradient_nan_inf_filter": True, "optimizer": {"class": "adam"}})
    bad = objective(run.params, INPUTS[0]) * math.nan
    run.updater.step(bad, global_step=0, learning_rate=0.1, epoch_step=0)
    assert all(param.isfinite().all() for param in run.params.values())
    run = Run({"grad_norm_to_clip_to_zero": 1e-3}).steps(0, 2)
    assert run.equals(Run({}))


def test_noise_moves_and_is_the_same_again():
    one, two = (Run({"gradient_noise": 0.3}).steps(0, 3) for _ in range(2))
    assert one.equals(two) and not one.close_to(Run({}).steps(0, 3))
    assert not one.equals(Run({"gradient_noise": 0.3, "random_seed": 7}).steps(0, 3))


def test_row_sparse_gradients_go_through_all_stages():
    config = {"gradient_clip": 0.5, "gradient_clip_norm": 1.0, "gradient_clip_avg_norm": 0.1,
              "gradient_clip_global_norm": 0.4, "gradient_nan_inf_filter": True,
              "grad_norm_to_clip_to_zero": 1e6}  # fmt: skip
    params = {"e/W": torch.nn.Parameter(torch.ones(5, 2))}
    run = Run(config, params=params)
    rows = torch.nn.functional.embedding(torch.tensor([1, 1, 3]), params["e/W"], sparse=True)
    run.updater.step((rows**2).sum(), global_step=0, learning_rate=1.0, epoch_step=0)
    values = torch.full((3, 2), 0.5)
    values = values * 1.0 / max(values.norm().item(), 1.0)
    values = values * 0.1 * min(6 / values.norm().item(), 1 / 0.1)
    values = values * 0.4 / math.sqrt(6 * 4)  # the raw gradients are all 2
    expected = torch.ones(5, 2)
    for row, value in zip((1, 1, 3), values, strict=True):
        expected[row] -= value
    assert torch.allclose(params["e/W"], expected)


def test_noise_makes_row_sparse_gradients_dense():
    params = {"e/W": torch.nn.Parameter(torch.ones(5, 2))}
    run = Run({"gradient_noise": 0.1}, params=params)
    rows = torch.nn.functional.embedding(torch.tensor([1, 1]), params["e/W"], sparse=True)
    run.updater.step(rows.sum(), global_step=0, learning_rate=1.0, epoch_step=0)
    assert (params["e/W"] != 1).all()


# --- accumulation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", sorted({rule.name for rule in RULES.values()}))
def test_two_half_batches_are_the_batch(rule: str):
    optimizer = {"class": rule, **NEEDED.get(rule, {})}
    whole, halves = (
        Run({"optimizer": optimizer, "optimizer_epsilon": 1e-4, "accum_grad_multiple_step": count}) for count in (1, 2)
    )
    for step in range(4):
        value = objective(whole.params, INPUTS[step])
        whole.updater.step(value, global_step=step, learning_rate=0.1, epoch_step=step)
        for half in range(2):
            value = objective(halves.params, INPUTS[step][4 * half : 4 * half + 4])
            halves.updater.step(value, global_step=2 * step + half, learning_rate=0.1, epoch_step=0)
    for name, param in whole.params.items():
        assert torch.allclose(param, halves.params[name], rtol=1e-3, atol=1e-4)


def test_parameters_change_every_nth_global_step_only():
    run = Run({"accum_grad_multiple_step": 3})
    changed = []
    for step in range(7):
        before = {name: param.clone() for name, param in run.params.items()}
        run.steps(step, step + 1)
        changed.append(not torch.equal(before["h/W"], run.params["h/W"]))
    assert changed == [False, False, True, False, False, True, False]


def test_the_number_of_batches_by_a_function():
    """Epochs of 5 steps with an update every 2 and every 3: the rests are dropped, the rates are those of the steps."""
    asked = []

    def every(*, epoch, epoch_continuous, global_train_step, **_):
        asked.append((epoch, epoch_continuous, global_train_step))
        return epoch + 1

    found, wanted = Run({"accum_grad_multiple_step": every}), parameters()
    for epoch, updates in ((1, [(0, 1), (2, 3)]), (2, [(5, 6, 7)])):
        found.updater.start_epoch(epoch)
        for i in range(5):
            step = 5 * (epoch - 1) + i
            options = {"learning_rate": 0.01, "epoch_step": i, "complete": (i + 1) / 5}
            found.updater.step(objective(found.params, INPUTS[step]), global_step=step, **options)
        for steps in updates:
            total = sum(objective(wanted, INPUTS[step]) for step in steps)
            grads = torch.autograd.grad(total, list(wanted.values()))
            for param, grad in zip(wanted.values(), grads, strict=True):
                param.data -= 0.01 * grad
    for name, param in found.params.items():
        assert torch.allclose(param, wanted[name], atol=1e-5)
    assert asked == [(1 + i // 5, pytest.approx((i + 1) / 5), i) for i in range(10)]


@pytest.mark.parametrize("wrong", [0, True, 1.5, None])
def test_a_function_of_batches_must_give_a_number(wrong: object):
    with pytest.raises(ConfigError, match="accum_grad_multiple_step: the function must return a whole number"):
        Run({"accum_grad_multiple_step": lambda **_: wrong}).steps(0, 1)


def test_accumulation_per_layer():
    layers = {"h": ParamOptions(updater_opts={"accum_grad_multiple_step": 2})}
    run = Run({}, layers).steps(0, 1)
    assert torch.equal(run.params["h/W"], parameters()["h/W"])
    assert not torch.equal(run.params["output/W"], parameters()["output/W"])
    assert not torch.equal(run.steps(1, 2).params["h/W"], parameters()["h/W"])


# --- optimizers per layer ---------------------------------------------------------------------------------------------


def test_own_optimizer_of_a_layer():
    opts = {"optimizer": {"class": "adam", "epsilon": 1e-8, "learning_rate_multiplier": 0.1}}
    run = Run({}, {"h": ParamOptions(updater_opts=opts)})
    assert [optimizer.rule.name for optimizer in run.updater.optimizers.values()] == ["adam", "gradientdescent"]
    run.steps(0, 1)
    moved = (run.params["h/W"] - parameters()["h/W"]).abs()
    assert torch.allclose(moved, torch.full_like(moved, 0.01), rtol=1e-3)


def test_own_options_of_the_default_class():
    layers = {"h": ParamOptions(updater_opts={"optimizer": {"momentum": 0.5}})}
    run = Run({"optimizer": {"class": "momentum", "momentum": 0.9}}, layers)
    assert [optimizer.rule.momentum for optimizer in run.updater.optimizers.values()] == [0.5, 0.9]


@pytest.mark.parametrize("config, opts, path, message", [
    ({}, {"gradient_clp": 1}, 'network["h"]["updater_opts"]["gradient_clp"]', 'did you mean "gradient_clip"?'),
    ({}, {"gradient_clip": "x"}, 'network["h"]["updater_opts"]["gradient_clip"]', "must be a number"),
    ({}, {"optimizer": {"class": "x"}}, 'network["h"]["updater_opts"]["optimizer"]["class"]', "unknown optimizer"),
    ({"gradient_clip_norm": -1.0}, {}, "gradient_clip_norm", "must not be negative"),
    ({"accum_grad_multiple_step": "x"}, {}, "accum_grad_multiple_step", "must be an int"),
    ({"accum_grad_multiple_step": lambda **_: 1}, {"accum_grad_multiple_step": 2},
     'network["h"]["updater_opts"]["accum_grad_multiple_step"]', "must not be set"),
    ({"global_norm_tag": 3}, {}, "global_norm_tag", "must be a tag"),
    ({"extra_updates": {"h/w": print}}, {}, 'extra_updates["h/w"]', 'did you mean "h/W"?'),
])  # fmt: skip
def test_errors(config: dict, opts: dict, path: str, message: str):
    with pytest.raises(ConfigError) as caught:
        Run(config, {"h": ParamOptions(updater_opts=opts)})
    assert caught.value.path == path and message in caught.value.message


def test_numbers_of_a_line_based_config():
    config = Config()
    for key, text in {
        "gradient_clip": "0.2",
        "gradient_nan_inf_filter": "true",
        "accum_grad_multiple_step": "2",
    }.items():
        config.set_text(key, text)
    made = Updater(parameters(), config, param_options={}, initial_learning_rate=0.1, log=Log.silent())
    (group,) = made.groups
    assert (group.options.gradient_clip, group.options.gradient_nan_inf_filter) == (0.2, True)
    assert group.options.accum_grad_multiple_step == 2


# --- constraints, learning rate of the step, resets -------------------------------------------------------------------


def test_decoupled_constraints():
    run = Run({"decouple_constraints": True}, {"h": ParamOptions(l2=0.05)}).steps(0, 1)
    plain, start = Run({}).steps(0, 1), parameters()
    assert torch.allclose(run.params["h/W"], plain.params["h/W"] - start["h/W"] * 0.1, atol=1e-6)
    assert torch.equal(run.params["output/W"], plain.params["output/W"])
    assert Run({}, {"h": ParamOptions(l2=0.05)}).steps(0, 1).equals(plain)


def test_dynamic_learning_rate_as_dict():
    run, rates = Run({"dynamic_learning_rate": {"interval": 3, "decay": 0.5}}), []
    for step in range(5):
        run.steps(step, step + 1, learning_rate=0.8)
        rates.append(run.updater.effective_learning_rate)
    assert rates == [0.8, 0.4, 0.2, 0.8, 0.4]
    assert run.updater.rates.dynamic(7, 1.0) == 0.5


def test_dynamic_learning_rate_as_function():
    """Step 0 of the published warmup schedule: 0 ** -0.5 is infinite, not an error."""

    def noam(network, global_train_step, learning_rate, **kwargs):
        assert network == "net" and isinstance(learning_rate, float)
        return learning_rate * min(global_train_step**-0.5, global_train_step * 4**-1.5)

    run = Run({"dynamic_learning_rate": noam}, network="net")
    found = [run.updater.rates.dynamic(step, 2.0) for step in range(10)]
    assert found == pytest.approx([0.0] + [2.0 * min(step**-0.5, step / 8) for step in range(1, 10)])
    assert all(isinstance(rate, float) for rate in found)


@pytest.mark.parametrize("value, message", [
    ({"interval": 3}, 'must be a function or a dict with "interval" and "decay"'),
    (lambda global_train_step, learning_rate: 1.0, r"must take \*\*kwargs"),
    (lambda epoch, **kwargs: 1.0, "must not take `epoch`"),
])  # fmt: skip
def test_dynamic_learning_rate_errors(value, message: str):
    with pytest.raises(ConfigError, match=message):
        Run({"dynamic_learning_rate": value})


def test_reset_within_the_epoch(capsys):
    log = Log.from_config(Config({"log_verbosity": 5}))
    adam = {"optimizer": {"class": "adam"}}
    run = Run(adam | {"reset_updater_vars_mod_step": 2}, log=log).steps(0, 3)
    assert capsys.readouterr().out == "Reset updater vars in step 0.\nReset updater vars in step 2.\n"
    other = Run(adam).steps(0, 2)
    other.updater.reset()
    assert run.equals(other.steps(2, 3)) and not run.equals(Run(adam).steps(0, 3))


def test_extra_updates():
    seen = []

    def renorm(var, grad):
        seen.append(grad.shape)
        var.div_(var.norm())

    run = Run({"extra_updates": {"h/W": renorm}}).steps(0, 1)
    assert run.params["h/W"].norm().item() == pytest.approx(1.0) and seen == [(3, 4)]


# --- resuming ---------------------------------------------------------------------------------------------------------


def saved(run: Run) -> tuple[dict, dict[str, torch.nn.Parameter]]:
    """Through a file, as a checkpoint goes."""
    file = io.BytesIO()
    torch.save({"state": run.updater.state_dict(), "params": {n: p.detach() for n, p in run.params.items()}}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    return loaded["state"], {name: torch.nn.Parameter(param) for name, param in loaded["params"].items()}


@pytest.mark.parametrize("rule", sorted({rule.name for rule in RULES.values()}))
def test_resumed_run_equals_the_whole_one(rule: str):
    """Stopped within an accumulation, with noise and a layer of its own optimizer."""
    config = {"optimizer": {"class": rule, **NEEDED.get(rule, {})}, "accum_grad_multiple_step": 3,
              "gradient_noise": 0.1, "dynamic_learning_rate": {"interval": 5, "decay": 0.9}}  # fmt: skip
    layers = {"h": ParamOptions(updater_opts={"optimizer": {"class": "nadam"}})}
    whole = Run(config, layers).steps(0, 5)
    state, params = saved(whole)
    resumed = Run(config, layers, params=params)
    resumed.updater.load_state_dict(state)
    assert resumed.steps(5, 11).equals(whole.steps(5, 11))


def test_loading_into_a_changed_network(capsys):
    state, _ = saved(Run({"optimizer": {"class": "adam"}}).steps(0, 2))
    log = Log.from_config(Config({}))
    params = parameters() | {"h/W": torch.nn.Parameter(torch.zeros(3, 5)), "new/W": torch.nn.Parameter(torch.ones(1))}
    run = Run({"optimizer": {"class": "adam", "epsilon": 1e-3}}, params=params, log=log)
    run.updater.load_state_dict(state)
    (optimizer,) = run.updater.optimizers.values()
    assert set(optimizer.slots) == {"h/b", "output/W", "output/b"} and optimizer.powers["beta1"] < 1
    assert "no fitting saved state for h/W" in capsys.readouterr().out


def test_loading_into_another_class_starts_anew(capsys):
    state, params = saved(Run({"optimizer": {"class": "adam"}}).steps(0, 2))
    log = Log.from_config(Config({}))
    run = Run({"optimizer": {"class": "nadam"}}, params=params, log=log)
    run.updater.load_state_dict(state)
    (optimizer,) = run.updater.optimizers.values()
    assert optimizer.slots == {} and optimizer.powers == {"beta1": 1.0, "beta2": 1.0}
    assert "optimizer nadam: no fitting saved state" in capsys.readouterr().out
