"""An agent's file (`agent.zip`): the policy, and `lr_agent.json`, which says what it was trained on.

Using an agent needs nothing but torch: the policy is two lists of matrices, read without running code of the file.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from returnn_lite.errors import ConfigError
from returnn_lite.schedule.agent_options import AgentOptions

KEY = "learning_rate_agent"
FORMAT = 1
INFO, NORM, POLICY = "lr_agent.json", "obs_norm.npz", "policy.pth"


@dataclass
class AgentFile:
    """A trained agent. `info`: the content of `lr_agent.json`; `layers`: (weights, biases) of the policy's layers."""

    info: dict[str, Any]
    layers: list[tuple[np.ndarray, np.ndarray]]
    log_std: np.ndarray
    norm: Mapping[str, np.ndarray] | None

    @classmethod
    def load(cls, path: str) -> AgentFile:
        """Reads the file. ConfigError if it is not there or of another kind."""
        if not os.path.isfile(path):
            raise ConfigError(KEY, f"file {path!r} does not exist; an agent is made by ++task train_lr_agent")
        try:
            with zipfile.ZipFile(path) as archive:
                info = json.loads(archive.read(INFO))
                state = torch.load(io.BytesIO(archive.read(POLICY)), map_location="cpu", weights_only=True)
                norm = np.load(io.BytesIO(archive.read(NORM))) if NORM in archive.namelist() else None
                norm = None if norm is None else {key: norm[key] for key in norm.files}
        except (zipfile.BadZipFile, KeyError, ValueError, RuntimeError) as error:
            raise ConfigError(KEY, f"{path!r} is not an agent file: {str(error).splitlines()[0]}") from None
        if info.get("format") != FORMAT:
            raise ConfigError(KEY, f"{path!r} is of format {info.get('format')!r}, but this program reads {FORMAT}")
        return cls(info, layers_of(state), state["log_std"].numpy(), norm)

    @property
    def options(self) -> AgentOptions:
        """The options it was trained with."""
        return AgentOptions.from_dict(self.info["options"])

    def act(self, observation: np.ndarray, random: np.random.Generator | None = None) -> np.ndarray:
        """The policy's mean actions for an observation, one for each of `acts_on`, or with `random` some by chance; in
        [-1, 1]."""
        x = observation.astype(np.float64)
        if self.norm is not None:
            limit = float(self.norm["clip"])
            x = ((x - self.norm["mean"]) / np.sqrt(self.norm["var"] + 1e-8)).clip(-limit, limit)
        x = x.astype(np.float32)
        for weights, biases in self.layers[:-1]:
            x = np.tanh(weights @ x + biases)
        weights, biases = self.layers[-1]
        chosen = (weights @ x + biases).astype(np.float64)
        if random is not None:
            chosen += np.exp(self.log_std.astype(np.float64)) * random.standard_normal(len(chosen))
        limited: np.ndarray = chosen.clip(-1.0, 1.0)
        return limited


def layers_of(state: Mapping[str, torch.Tensor]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The policy's layers, the one of the action last, of PPO's "MlpPolicy" with tanh."""
    hidden = sorted(
        {key.rpartition(".")[0] for key in state if key.startswith("mlp_extractor.policy_net.")}, key=_number
    )
    return [(state[f"{name}.weight"].numpy(), state[f"{name}.bias"].numpy()) for name in (*hidden, "action_net")]


def _number(name: str) -> int:
    return int(name.rpartition(".")[2])
