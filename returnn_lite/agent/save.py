"""Writing an agent's file, and going on from it."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from returnn_lite.agent.same import alike, described
from returnn_lite.errors import ConfigError
from returnn_lite.files import write_atomically
from returnn_lite.schedule.agent_file import FORMAT, INFO, KEY, NORM
from returnn_lite.schedule.agent_options import AgentOptions

RESUME, OPTIMIZER, POLICY = "resume.pt", "policy.optimizer.pth", "policy.pth"
FREE = {"budget", "budget_updates", "save_every", "keep_checkpoints", "log", "deterministic", "on_divergence", "vec"}
FREE |= {"max_lr_from_config", "allow_other_optimizer"}  # options that may differ from those before
OUTPUT = {"tensorboard_log", "verbose"}  # so may these arguments of PPO


def save_agent(path: str, model: Any, info: Mapping[str, Any], states: list[Any]) -> None:
    """Writes the package's zip with our members: what was trained on (JSON), normalisation, what resuming needs."""
    file = io.BytesIO()
    model.save(file)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(INFO, json.dumps({"format": FORMAT, **info}, indent=1, default=str))
        norm = model.get_vec_normalize_env()
        if norm is not None:
            archive.writestr(NORM, norm_bytes(norm))
        archive.writestr(RESUME, torch_bytes(resume_state(model, states)))
    write_atomically(path, lambda out: out.write(file.getvalue()))


def norm_bytes(norm: Any) -> bytes:
    """Mean, variance and count of the observations."""
    file = io.BytesIO()
    known = norm.obs_rms
    np.savez(file, mean=known.mean, var=known.var, count=known.count, clip=norm.clip_obs)
    return file.getvalue()


def torch_bytes(value: Any) -> bytes:
    """As torch.save writes it."""
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def resume_state(model: Any, states: list[Any]) -> dict[str, Any]:
    """What the next rollout depends on besides policy and optimizer: environments, counters, random numbers."""
    known: dict[str, Any] = np.random.get_state(legacy=False)
    inner = known["state"]
    generator = [known["bit_generator"], inner["key"].tolist(), inner["pos"], known["has_gauss"], known["gauss"]]
    numbers = {"numpy": generator, "python": random.getstate()}
    return {
        "environments": states,
        "torch": torch.get_rng_state(),
        "random": json.dumps(numbers),
        "steps": model.num_timesteps,
        "updates": model._n_updates,
        "starts": torch.from_numpy(np.asarray(model._last_episode_starts).copy()),
    }


def restore(path: str, model: Any) -> None:
    """Brings a new model with its environments where the file's was. ConfigError if it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            policy, optimizer, state = (
                torch.load(io.BytesIO(archive.read(name)), map_location="cpu", weights_only=True)
                for name in (POLICY, OPTIMIZER, RESUME)
            )
            norm = np.load(io.BytesIO(archive.read(NORM))) if NORM in archive.namelist() else None
    except (zipfile.BadZipFile, KeyError, RuntimeError) as error:
        raise ConfigError(KEY, f"training cannot go on from {path!r}: {str(error).splitlines()[0]}") from None
    model.set_parameters({"policy": policy, "policy.optimizer": optimizer}, exact_match=True, device="cpu")
    model.num_timesteps, model._n_updates = state["steps"], state["updates"]
    seen = [
        model.env.env_method("load_state_dict", one, indices=[index])[0]
        for index, one in enumerate(state["environments"])
    ]
    observations = np.stack(seen)
    wrapper = model.get_vec_normalize_env()
    if wrapper is not None and norm is not None:
        wrapper.obs_rms.mean, wrapper.obs_rms.var, wrapper.obs_rms.count = (
            norm["mean"],
            norm["var"],
            float(norm["count"]),
        )
        wrapper.old_obs = observations
        model._last_original_obs = observations
        observations = wrapper.normalize_obs(observations)
    model._last_obs, model._last_episode_starts = observations, state["starts"].numpy()
    numbers = json.loads(state["random"])
    kind, keys, position, gauss, cached = numbers["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), position, gauss, cached))
    version, inner, gauss_next = numbers["python"]
    random.setstate((version, tuple(inner), gauss_next))
    torch.set_rng_state(state["torch"])


def plain_options(options: AgentOptions) -> dict[str, Any]:
    """All options as JSON has them; functions by what they do."""
    made: dict[str, Any] = json.loads(json.dumps(asdict(options), default=described))
    return made


def _without_output(value: Any) -> Any:
    """Arguments of PPO without those that only say what is told of the training."""
    return {key: item for key, item in value.items() if key not in OUTPUT} if isinstance(value, dict) else value


def check_same(info: Mapping[str, Any], now: Mapping[str, Any], training: Mapping[str, Any], path: str) -> None:
    """ConfigError if an agent was trained with other options (`now`: as of `plain_options`), or on another training."""
    known = {**plain_options(AgentOptions()), **info["options"]}  # options of this version may not be in the file
    for key, value in known.items():
        before, own = (_without_output(item) for item in (value, now.get(key)))
        if key not in FREE and not alike(before, own):
            raise ConfigError(
                f'lr_agent["{key}"]', f"must be {before!r} to go on with {path!r}, but is {own!r} instead"
            )
    for key in ("layers", "optimizers", "num_epochs", "seed"):
        if json.loads(json.dumps(training[key])) != info[key]:
            raise ConfigError(KEY, f"{path!r} was trained with other {key}: {info[key]!r}, now {training[key]!r}")
