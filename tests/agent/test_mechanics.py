"""Rewards, observations and actions on trainings with scripted scores: exact numbers."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from returnn_lite.agent.environment import Environment
from returnn_lite.agent.picture import failed_rates
from returnn_lite.errors import ConfigError
from returnn_lite.schedule.actions import rate_of
from returnn_lite.schedule.agent_options import AgentOptions
from returnn_lite.schedule.episode import Episode, EpochFacts
from returnn_lite.schedule.observations import OBSERVATIONS, names, observe
from tests.agent.helpers import ScriptedTrial

NORMS = {"a": (4, 2.0), "b": (16, 0.4)}
SCORES = [1.5, 1.7, 1.0, 1.0]


def environment(scores=SCORES, **options) -> Environment:
    made = AgentOptions.from_dict(options)
    env = Environment(ScriptedTrial(2.0, scores, NORMS), made, len(SCORES), 0.9, 7)
    env.reset(1)
    return env


@pytest.mark.parametrize("reward, expected", [
    ("paper", [8, 0, 6, 0]),
    ("log", [0.28768, -0.12516, 0.53063, 0]),
    ("loss", [-1.5, -1.7, -1, -1]),
])  # fmt: skip
def test_rewards(reward: str, expected: list[float]):
    env = environment(reward=reward)
    steps = [env.step(0.0) for _ in SCORES]
    assert_allclose([gained for _, gained, _, _ in steps], expected, atol=1e-5)
    assert [over for _, _, over, _ in steps] == [False, False, False, True]
    assert steps[-1][3]["training"]["scores"] == [2.0, *SCORES]
    assert steps[-1][3]["training"]["reward"] == pytest.approx(sum(expected), abs=1e-4)


def test_penalty_of_the_paper_is_in_its_range_and_reproducible():
    def gained() -> float:
        env = environment([1.5, None], mode="paper")
        env.step(0.1)
        _, reward, over, info = env.step(0.1)
        assert over and info["training"]["diverged"]
        return reward

    assert -2000 <= gained() <= -1000
    assert gained() == gained()


def test_a_diverged_training_counts_as_four_times_its_initial_score():
    env = environment([1.0, None], rolls_back=False)
    total = env.step(0.0)[1] + env.step(0.0)[1]
    assert total == pytest.approx(-math.log(4))
    assert environment([None], divergence_penalty=5.0, rolls_back=False).step(0.0)[1] == -5.0


@pytest.mark.parametrize("bad", [None, 3.1, 2.7])  # not finite, above 3 x best, above 1.3 x initial
def test_a_bad_epoch_is_taken_back(bad):
    env = environment([1.0, bad, 0.5, 0.5])
    env.step(0.0)
    seen, gained, over, _ = env.step(0.2)
    assert (gained, over, env.trial.back) == (-0.1, False, 1)
    assert_allclose(env.episode.scores, [2.0, 1.0, 1.0])
    assert_allclose(seen, [math.log(0.5), 0, 0, 0.1 - 1, 0, 0, 0, 0.2, 0, 0, 0, 0, 0, 1], atol=1e-6)
    assert env.step(0.0)[1] == pytest.approx(math.log(2))
    assert env.trial.rates[-1] == pytest.approx(0.09 * 10**-0.9)
    training = env.step(0.0)[3]["training"]
    assert training["undone"] == [2] and failed_rates(training) == pytest.approx({2: 0.09 * 10**0.1})


def test_episodes_are_varied():
    env = environment()
    starts, inits = [], []
    for _ in range(50):
        env.begin()
        starts.append(env.episode.start_rate / 0.09)
        inits.append(env.varied[1])
    assert 0.1 <= min(starts) < 0.2 and 5 < max(starts) <= 10
    assert 1 / 1.4 <= min(inits) < 0.8 and 1.2 < max(inits) <= 1.4


@pytest.mark.parametrize("action, lowest, middle", [("log", 1e-6, 1e-3), ("linear", 1e-6, 0.5000005)])
def test_ends_of_the_actions(action: str, lowest: float, middle: float):
    options = AgentOptions.from_dict({"action": action})
    episode = Episode(4, 2.0)
    rates = [rate_of(options, episode, a) for a in (-7.0, -1.0, 0.0, 1.0, 7.0)]
    assert_allclose(rates, [lowest, lowest, middle, 1.0, 1.0], rtol=1e-6)


def test_steps_of_the_learning_rate_stay_within_the_range_test():
    env = environment(highest=20.0)
    for action in (1.0, 1.0, 1.0, -0.5):
        env.step(action)
    start = 0.9 / 10
    assert_allclose(env.trial.rates, [start * 10**0.5, start * 10, start * 20, start * 20 * 10**-0.25], rtol=1e-6)


def test_observation_of_the_paper():
    env = environment(mode="paper")
    assert_allclose(env.observation(), [2.0, 4, 0, 0])
    assert_allclose(env.step(0.3)[0], [1.5, 3, 2.0, 0.4], rtol=1e-6)


def test_observation_for_any_network():
    env = environment(observation="fixed")
    assert_allclose(env.observation(), [0, 1, -2, 0, -2, -2, -2, -2, 0, 0])
    q = [0.0, -1.0]  # log10 of 2/sqrt(4) and of 0.4/sqrt(16)
    expected = [math.log10(0.75), 0.75, -0.5, 0.5, -1, 0, *q, math.log10(math.hypot(2, 0.4)), 0.3]
    assert_allclose(env.step(0.3)[0], expected, rtol=1e-6, atol=1e-7)


def test_scale_free_observation():
    env = environment(observation="scale_free", start=30.0)
    assert_allclose(env.observation(), [0, 0, 1, 1 - math.log10(30), 0, 0, 0, 0, 0, 1], rtol=1e-6)
    env.step(0.2)
    env.trial.norms["a"] = 4.0
    seen = env.step(-1.0)[0]
    norms = math.hypot(2, 0.4), math.hypot(4, 0.4)
    expected = [
        math.log(1.7 / 2), 2 * math.log(1.7 / 1.5), 0.0, 1 - math.log10(30) + 0.1 - 0.5, math.log(norms[1] / norms[0]),
        math.log(norms[1]) / 2, 0.0, 0.0, -1.0, 0.0]  # fmt: skip
    assert_allclose(seen, expected, rtol=1e-5, atol=1e-6)
    changed = Episode(4, 10.0, {"a": 4}, 0.9, 0.03, [EpochFacts(0.1, 1.0, [1e9], math.nan, math.inf)])
    assert np.abs(observe("scale_free", changed)).max() == 5.0


def test_observation_of_dynamics():
    env = environment()
    assert_allclose(env.observation(), [0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0])
    way = {"train_trend": 0.2, "alignment": 0.5, "straightness": 0.75, "displacement": 0.01, "train_noise": 0.1}
    env.trial.more = {**way, "train_loss": 3.0}
    expected = [math.log(0.75), 2 * math.log(0.75), 0.5, 0.1, 0, 0.3, 2 * math.log(2), 0.2, 0, 1.5, 2.0, -1.0, 0.2, 0]
    assert_allclose(env.step(0.2)[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", sorted(OBSERVATIONS))
def test_names_of_observations(kind: str):
    env = environment(observation=kind)
    found = names(kind, env.episode.layer_sizes)
    for _ in range(3):
        assert list(OBSERVATIONS[kind](env.episode)) == found and len(env.observation()) == len(found)
        env.step(0.1)


def test_infinite_numbers_are_at_the_limits():
    episode = Episode(4, 2.0, {"a": 4}, epochs=[EpochFacts(0.1, math.inf, [math.nan])])
    assert list(observe("paper", episode)) == [2000.0, 3.0, 1e4]


@pytest.mark.parametrize("given, path, text", [
    ({"obervation": "paper"}, 'lr_agent["obervation"]', 'unknown option; did you mean "observation"?'),
    ({"observation": "papre"}, 'lr_agent["observation"]', 'did you mean "paper"?'),
    ({"lr_range": (1.0, 0.1)}, 'lr_agent["lr_range"]', "0 < lowest < highest"),
    ({"budget": 0}, 'lr_agent["budget"]', "must be a whole number >= 1, but is 0 instead"),
    ({"range_test": False}, 'lr_agent["range_test"]', "must be True"),
    ({"divergence_penalty": "much"}, 'lr_agent["divergence_penalty"]', "must be None, a number or two numbers"),
])  # fmt: skip
def test_wrong_options(given: dict, path: str, text: str):
    with pytest.raises(ConfigError) as caught:
        AgentOptions.from_dict(given)
    assert caught.value.path == path
    assert text in caught.value.message


def test_presets_can_be_overridden():
    options = AgentOptions.from_dict({"mode": "paper", "action": "log"})
    assert (options.observation, options.action, options.optimizer) == ("paper", "log", {"class": "gradientdescent"})
    assert options.ppo_arguments() == {"learning_rate": 1e-3}
    practical = AgentOptions.from_dict({"ppo": {"gamma": 0.5}})
    assert practical.ppo_arguments() == {"gamma": 0.5, "log_std_init": -1.0, "learning_rate": 1e-3}
