"""Tiny agents: a config that trains in milliseconds, and trials with scripted scores."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import torch

import returnn_lite.catalog  # noqa: F401 - fills the registries
from returnn_lite.schedule.agent_file import FORMAT
from returnn_lite.schedule.episode import EpochFacts
from tests.engine.helpers import DIMS, options, sequences

NETWORK = {
    "h": {"class": "linear", "activation": "tanh", "n_out": 5, "from": "data"},
    "output": {
        "class": "softmax", "loss": "ce", "from": "h", "target": "classes", "loss_opts": {"use_normalized_loss": True}},
}  # fmt: skip
AGENT = {"num_envs": 2, "budget": 26, "range_test_epochs": 3, "range_test_runs": 2, "save_every": 1, "seed": 3}


def even_sequences(count: int, seed: int) -> dict:
    """A dataset of sequences of four frames."""
    data = [{key: value[:4] for key, value in seq.items()} for seq in sequences(5 * count, seed)]
    data = [seq for seq in data if len(seq["classes"]) == 4][:count]
    return {"class": "StaticDataset", "data": data, "output_dim": DIMS}


def config(folder: Path, **changes) -> dict:
    """A run whose batches all have the same shape; `lr_agent` is such that two rollouts take a second."""
    made = options(
        folder,
        train={**even_sequences(12, 1), "seq_ordering": "random"},
        dev=even_sequences(4, 2),
        network=NETWORK,
        optimizer={"class": "gradientdescent"},
        learning_rate_control="constant",
        batch_size=16,
        max_seqs=None,
        num_epochs=5,
        lr_agent=AGENT,
        learning_rate_agent=str(folder / "agent.zip"),
    )
    return {**made, **changes}


class ScriptedTrial:
    """Stands where a trial of the engine would: with scores that are given; None diverges."""

    def __init__(self, first: float, scores: list, norms: dict[str, tuple[int, float]]) -> None:
        self.first, self.script = first, scores
        self.norms = {name: norm for name, (_, norm) in norms.items()}
        params = {f"{name}/W": torch.nn.Parameter(torch.zeros(size)) for name, (size, _) in norms.items()}
        self.net = type("Net", (), {"params": params})()
        self.updates, self.seed, self.epoch_number = 0, 0, 0
        self.settings: dict[str, float] = {}
        self.put: list[dict[str, float]] = []  # settings of the epochs
        self.rates: list[float] = []
        self.more: dict[str, float] = {}  # further facts of epochs
        self.back = 0  # epochs taken back

    def reset(self, seed: int, *factors, **changes) -> float:
        """Begins anew."""
        self.seed, self.epoch_number, self.rates = seed, 0, []
        return self.first

    def epoch(self, rate: float, settings: dict[str, float]) -> EpochFacts | None:
        """The next score."""
        self.rates.append(rate)
        self.put.append(settings)
        score, self.epoch_number = self.script[self.epoch_number], self.epoch_number + 1
        facts = {"grad_norms": list(self.norms.values()), "train_loss": score, "train_noise": 0.0, **self.more}
        return None if score is None else EpochFacts(rate, score, **facts)

    def snapshot(self) -> int:
        """Nothing that changes."""
        return self.epoch_number

    def roll_back(self, before: int) -> None:
        """Counts."""
        self.back += 1


def write_agent(path: Path, *, bias: float | list[float] = 0.5, info: dict | None = None, **options) -> Path:
    """An agent that always says `bias`, whatever it sees; with the options of practical mode."""
    said = np.atleast_1d(bias)
    size = {"fixed": 10, "paper": 4}.get(options.get("observation", ""), 14) + len(said) - 1
    state = {
        "log_std": -torch.ones(len(said)),
        "mlp_extractor.policy_net.0.weight": torch.zeros(3, size),
        "mlp_extractor.policy_net.0.bias": torch.zeros(3),
        "action_net.weight": torch.zeros(len(said), 3),
        "action_net.bias": torch.tensor(said, dtype=torch.float32),
    }
    known = {
        "format": FORMAT, "options": options, "layers": {"h": 25, "output": 24}, "optimizers": ["gradientdescent"],
        "num_epochs": 5, "seed": 0, "top": 1.0, **(info or {})}  # fmt: skip
    file = io.BytesIO()
    torch.save(state, file)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("lr_agent.json", json.dumps(known))
        archive.writestr("policy.pth", file.getvalue())
    return path


def episode_numbers(values: np.ndarray) -> list[float]:
    """A vector as plain numbers."""
    return [float(value) for value in values]
