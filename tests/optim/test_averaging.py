"""Weight averaging: the averages, when they are taken, when they stand in for the model."""

import pytest
import torch

from returnn_lite.errors import ConfigError
from returnn_lite.optim.averaging import AveragingOptions, WeightAveraging
from tests.optim.small_net import Run


def averaged(**value) -> Run:
    return Run(optimizer="torch.ASGD" if value.get("kind") == "asgd" else "sgd", weight_averaging=value, num_epochs=4)


def history(run: Run, epochs: int) -> list[torch.Tensor]:
    """The values of h/b after each update."""
    found: list[torch.Tensor] = []
    take = run.updater.averaging.after_update
    run.updater.averaging.after_update = lambda: (found.append(run.params["h/b"].detach().clone()), take())
    run.epochs(epochs)
    return found


def test_mean_of_epochs():
    run = averaged(kind="swa", start_epoch=2)
    w = history(run, 3)
    assert torch.allclose(run.updater.averaging.averages["h/b"], (w[3] + w[5]) / 2)
    assert averaged(kind="swa").updater.averaging.options.start_epoch == 3


def test_decay():
    run = averaged(kind="ema", decay=0.5, start_step=1, every=2)
    w = history(run, 2)
    assert torch.allclose(run.updater.averaging.averages["h/b"], 0.5 * w[1] + 0.5 * w[3])


def test_thinc():
    run = averaged(kind="thinc")
    w = history(run, 1)
    expected = (9 / 11 * w[0]) + 9 / 12 * (w[1] - 9 / 11 * w[0])
    assert torch.allclose(run.updater.averaging.averages["h/b"], expected)


def test_those_of_the_optimizer():
    run = Run(optimizer={"class": "thinc.SGD"}, weight_averaging={"kind": "thinc"}).epochs(2)
    (optimizer,) = run.updater.optimizers.values()
    assert torch.equal(run.updater.averaging.averages["h/b"], optimizer.averages()["h/b"])
    run = averaged(kind="asgd").epochs(2)
    (optimizer,) = run.updater.optimizers.values()
    assert torch.equal(run.updater.averaging.averages["h/b"], optimizer.averages()["h/b"])


def test_in_place():
    run = averaged(kind="ema", use_for="dev")
    with run.updater.averaged_for("dev"):
        assert run.equals(averaged(kind="ema"))
    assert run.updater.averaged_model(run.params) is None
    run.epochs(2)
    raw = {name: param.detach().clone() for name, param in run.params.items()}
    averages = run.updater.averaged_model(run.params)
    with run.updater.averaged_for("dev"):
        assert all(torch.equal(param, averages[name]) for name, param in run.params.items())
    with run.updater.averaged_for("search"):
        assert all(torch.equal(param, raw[name]) for name, param in run.params.items())
    assert all(torch.equal(param, raw[name]) for name, param in run.params.items())
    assert not torch.equal(averages["h/b"], raw["h/b"])


def test_parameters_that_are_not_trained():
    params = {"w": torch.nn.Parameter(torch.zeros(2)), "mean": torch.nn.Parameter(torch.zeros(2), requires_grad=False)}
    for buffers, expected in (("copy", 1.0), ("average", 0.5)):
        made = WeightAveraging(
            AveragingOptions.from_value({"kind": "swa", "interval": "step", "buffers": buffers}, 1), params
        )
        made.start_epoch(1)
        for value in (0.0, 1.0):
            for param in params.values():
                param.data.fill_(value)
            made.after_update()
        assert made.model(params)["w"].tolist() == [0.5, 0.5]
        assert made.model(params)["mean"].tolist() == [expected, expected]


def test_other_kind_starts_anew():
    state = averaged(kind="ema").epochs(1).updater.averaging.state_dict()
    other = averaged(kind="swa").updater.averaging
    other.load_state_dict(state)
    assert other.taken == 0 and other.updates == 2


@pytest.mark.parametrize("value, path, message", [
    ("ema", "", 'must be a dict with "kind"'),
    ({"decay": 0.9}, "", 'must be a dict with "kind"'),
    ({"kind": "emma"}, '["kind"]', 'did you mean "ema"?'),
    ({"kind": "ema", "deacy": 0.9}, '["deacy"]', 'did you mean "decay"?'),
    ({"kind": "ema", "decay": 1.9}, '["decay"]', "must be between 0 and 1"),
    ({"kind": "ema", "use_for": ["dve"]}, '["use_for"]', 'did you mean "dev"?'),
    ({"kind": "ema", "interval": "batch"}, '["interval"]', 'must be one of "step", "epoch"'),
    ({"kind": "ema", "buffers": "update"}, '["buffers"]', 'must be one of "copy", "average"'),
    ({"kind": "ema", "save_as": "model"}, '["save_as"]', 'must be one of "extra"'),
])  # fmt: skip
def test_errors(value, path: str, message: str):
    with pytest.raises(ConfigError) as caught:
        Run(weight_averaging=value)
    assert caught.value.path == f"weight_averaging{path}" and message in caught.value.message


def test_asgd_needs_its_optimizer():
    with pytest.raises(ConfigError, match="needs the optimizer torch.ASGD"):
        Run(weight_averaging={"kind": "asgd"}).epochs(1)
