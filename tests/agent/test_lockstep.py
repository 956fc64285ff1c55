"""Trainings side by side give the numbers of each by itself."""

import pytest
from numpy.testing import assert_allclose

from returnn_lite.config import Config
from returnn_lite.log import Log
from returnn_lite.trials.lockstep import LockStep
from returnn_lite.trials.shared_data import SharedData
from returnn_lite.trials.trial import Trial
from tests.agent.helpers import NETWORK, config
from tests.engine.helpers import network

RATES = [[0.5, 0.2, 0.1], [0.05, 1.0, 0.01], [2.0, 0.0, 0.3]]


def trials(folder, count: int, **changes) -> list[Trial]:
    made = Config(config(folder, **changes))
    shared = SharedData(made, Log.silent())
    return [Trial(made, shared) for _ in range(count)]


def train(trial: Trial, seed: int, rates: list[float]) -> list:
    first = trial.reset(seed)
    return [first, *((facts.score, *facts.grad_norms, facts.train_loss) for facts in map(trial.epoch, rates))]


@pytest.mark.parametrize("optimizer", [{"class": "gradientdescent"}, {"class": "adam"}, {"class": "torch.SGD"}])
def test_side_by_side_as_alone(tmp_path, optimizer):
    alone = [train(trial, i, RATES[i]) for i, trial in enumerate(trials(tmp_path, 3, optimizer=optimizer))]
    several = trials(tmp_path, 3, optimizer=optimizer)
    lockstep = LockStep(several)
    assert lockstep.check() == ""
    passes = []
    together = lockstep.together
    lockstep.together = lambda asked: passes.append(len(asked)) or together(asked)
    found = lockstep.run([lambda i=i, t=t: train(t, i, RATES[i]) for i, t in enumerate(several)])
    assert set(passes) == {3}
    for one, other in zip(alone, found, strict=True):
        assert_allclose(one[0], other[0], rtol=1e-5)
        assert_allclose(one[1:], other[1:], rtol=1e-3, atol=1e-6)


def test_one_that_diverges_leaves_the_others(tmp_path):
    several = trials(tmp_path, 2)
    lockstep = LockStep(several)
    assert lockstep.check() == ""
    lockstep.run([lambda i=i, t=t: t.reset(i) for i, t in enumerate(several)])
    first, second = lockstep.run([lambda: several[0].epoch(1e38), lambda: several[1].epoch(0.1)])
    assert first is None and second.score > 0


@pytest.mark.parametrize("changes, reason", [
    ({"network": network()}, "random"),  # dropout draws its own numbers
    ({"network": {**NETWORK, "h": {**NETWORK["h"], "L2": 0.1}}}, "the numbers are not the same"),
    ({"network": {**NETWORK, "h": {**NETWORK["h"], "batch_norm": True}}}, "values that do not come from gradients"),
    ({"optimizer": {"class": "torch.LBFGS"}}, "the optimizer needs more"),
])  # fmt: skip
def test_networks_that_cannot(tmp_path, changes, reason):
    lockstep = LockStep(trials(tmp_path, 2, **changes))
    assert reason in lockstep.check()
    scores = lockstep.run([lambda t=t: train(t, 3, [0.1]) for t in lockstep.trials])
    assert_allclose(scores[0][0], train(trials(tmp_path, 1, **changes)[0], 3, [0.1])[0], rtol=1e-6)


def test_a_trial_leaves_no_trace(tmp_path):
    trial = trials(tmp_path, 1)[0]
    assert train(trial, 5, [0.1]) == train(trial, 5, [0.1]) != train(trial, 6, [0.1])
    assert list(tmp_path.iterdir()) == []


def test_a_trial_goes_on_where_another_was(tmp_path):
    one, other = trials(tmp_path, 2, optimizer={"class": "adam"})
    train(one, 5, [0.1, 0.2])
    other.load_state_dict(one.state_dict())
    assert other.epoch(0.1).score == one.epoch(0.1).score
