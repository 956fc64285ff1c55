"""The environments in the forms of gymnasium and stable-baselines3. Both packages may be missing."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import returnn_lite.catalog  # noqa: F401 - processes that are not forked know the classes, too
from returnn_lite.agent.environment import Environment
from returnn_lite.errors import ConfigError
from returnn_lite.processes import become_helper
from returnn_lite.trials.lockstep import LockStep

MISSING = 'needs the extra "learned-lr": pip install "returnn-lite[learned-lr]" ({} is missing)'

START_METHOD = "fork" if hasattr(os, "fork") else "spawn"  # a fork starts in no time, but Windows has none

Array = np.ndarray[Any, Any]


def require_packages(task: str) -> None:
    """ConfigError that names the extra if a package is missing."""
    try:
        import gymnasium  # noqa: F401
        import stable_baselines3  # noqa: F401
        from greenlet import greenlet  # noqa: F401
    except ImportError as error:
        raise ConfigError("task", f"{task} {MISSING.format(error.name)}") from None


def spaces_of(environment: Environment) -> tuple[Any, Any]:
    """The spaces of observations and actions."""
    from gymnasium.spaces import Box

    shape = (environment.observation_size,)
    return Box(-1e4, 1e4, shape, np.float32), Box(-1.0, 1.0, (environment.action_size,), np.float32)


def agent_class() -> Any:
    """PPO, trained in several calls of `learn`: `remaining` is the part of all the training that is left then."""
    from stable_baselines3 import PPO

    class Agent(PPO):
        remaining = 1.0

        def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
            self._current_progress_remaining = self.remaining

    return Agent


def gym_env(environment: Environment) -> Any:
    """The environment as a gymnasium.Env."""
    import gymnasium

    class LearningRateEnv(gymnasium.Env):
        """An epoch of training a step; the action is a number in [-1, 1] for each thing it sets."""

        observation_space, action_space = spaces_of(environment)

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Array, dict[str, Any]]:
            super().reset(seed=seed)
            return environment.begin() if seed is None else environment.reset(seed), {}

        def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
            seen, gained, over, info = environment.step(np.asarray(action).reshape(-1).tolist())
            return seen, gained, over, False, info

        def state_dict(self) -> dict[str, Any]:
            return environment.state_dict()

        def load_state_dict(self, state: Any) -> np.ndarray:
            return environment.load_state_dict(state)

    return LearningRateEnv()


def lockstep_envs(environments: Sequence[Environment], lockstep: LockStep) -> Any:
    """All environments as one VecEnv whose trainings run side by side."""
    from stable_baselines3.common.vec_env import VecEnv

    class LockStepEnvs(VecEnv):
        """Steps of all environments at once; one that is over begins anew in the same step."""

        def __init__(self) -> None:
            super().__init__(len(environments), *spaces_of(environments[0]))
            self.actions: np.ndarray = np.zeros((len(environments), environments[0].action_size))

        def reset(self) -> np.ndarray:
            return np.stack(lockstep.run([environment.begin for environment in environments]))

        def step_async(self, actions: np.ndarray) -> None:
            self.actions = actions

        def step_wait(self) -> Any:
            jobs = [functools.partial(step, env, a.tolist()) for env, a in zip(environments, self.actions, strict=True)]
            seen, gained, over, infos = zip(*lockstep.run(jobs), strict=True)
            return np.stack(seen), np.array(gained, np.float32), np.array(over), list(infos)

        def close(self) -> None:
            """Nothing is open."""

        def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
            return [getattr(environments[i], attr_name, None) for i in self._get_indices(indices)]

        def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
            for i in self._get_indices(indices):
                setattr(environments[i], attr_name, value)

        def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
            return [getattr(environments[i], method_name)(*args, **kwargs) for i in self._get_indices(indices)]

        def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
            return [False for _ in self._get_indices(indices)]

    return LockStepEnvs()


def step(environment: Environment, action: Sequence[float]) -> tuple[np.ndarray, float, bool, dict[str, Any]]:
    """A step, and the first observation of the next episode where it was the last one."""
    seen, gained, over, info = environment.step(action)
    if over:
        info["terminal_observation"] = seen
        seen = environment.begin()
    return seen, gained, over, info


def separate_envs(makers: Sequence[Callable[[], Any]], *, processes: bool) -> Any:
    """Environments one after the other, or in processes of their own."""
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

    if not processes:
        return DummyVecEnv(list(makers))
    with warnings.catch_warnings():  # of Python 3.12 on: no other thread holds a lock here
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        return SubprocVecEnv([functools.partial(_helper, make) for make in makers], start_method=START_METHOD)


def _helper(make: Callable[[], Any]) -> Any:
    """Makes the environment in its process."""
    become_helper(of_main_thread=True)
    return make()
