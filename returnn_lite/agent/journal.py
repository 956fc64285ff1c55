"""What the training of an agent tells: a line in a file for every episode, and its progress."""

from __future__ import annotations

import json
import os
import statistics
import sys
from typing import Any

from returnn_lite.engine.loggers.scalar_log import ScalarLog
from returnn_lite.engine.report import hms
from returnn_lite.files import write_atomically
from returnn_lite.log import Log


class Journal:
    """Counts into `used`, and writes the lines of finished episodes to `path`; their numbers go to `scalars`, too.

    Lines of episodes after those that the agent's file knows of (of a run that was killed) are dropped.
    """

    def __init__(self, path: str, used: dict[str, Any], scalars: ScalarLog, log: Log) -> None:
        self.path, self.used, self.scalars, self.log = path, used, scalars, log
        self.lines: list[str] = []
        self.recent: list[dict[str, Any]] = []  # episodes of this rollout
        known = used["episodes"]
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                kept = file.readlines()[:known]
            write_atomically(path, lambda file: file.write("".join(kept).encode()))
        scalars.start(known + 1, used["epochs"])

    def callback(self) -> Any:
        """For `learn`: is called after each step of all environments."""

        def see(local: dict[str, Any], _: dict[str, Any]) -> bool:
            self.used["epochs"] += len(local["infos"])
            for info in local["infos"]:
                self.used["updates"] += info["updates"]
                if "training" in info:
                    self.add(info["training"])
            return True

        return see

    def add(self, training: dict[str, Any]) -> None:
        """A finished episode."""
        self.used["episodes"] += 1
        self.used["divergences"] += training["diverged"]
        self.recent.append(training)
        self.scalars.noted(self.used["episodes"], episode_values(training))
        self.lines.append(json.dumps({"episode": self.used["episodes"], "epochs": self.used["epochs"], **training}))

    def flush(self) -> None:
        """Writes the lines so far, so that the file has them before the agent's file counts them."""
        os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in self.lines)
        self.lines = []

    def record(self, logger: Any) -> None:
        """Hands what this rollout gave to PPO's own log."""
        logger.record("rollout/epochs", self.used["epochs"])
        if self.recent:
            logger.record("rollout/final_score", statistics.fmean(training["scores"][-1] for training in self.recent))
            logger.record("rollout/reward", statistics.fmean(training["reward"] for training in self.recent))
            logger.record("rollout/diverged", sum(training["diverged"] for training in self.recent))

    def progress(self, budget: int, *, over: bool) -> None:
        """The state after a rollout: one line that is written over on a terminal, else a line of the log."""
        finals = [training["scores"][-1] for training in self.recent]
        loss = f", final loss {statistics.fmean(finals):.4g}" if finals else ""
        used = self.used
        text = f"agent: {used['epochs']} of {budget} epochs, {used['episodes']} episodes{loss}"
        text += f", {used['divergences']} diverged, {hms(used['seconds'])}"
        self.recent = []
        if sys.stderr.isatty():
            sys.stderr.write("\r" + text + ("\n" if over else ""))
            sys.stderr.flush()
        else:
            self.log.v2(text)

    def close(self) -> None:
        """Writes what is left."""
        if self.lines:
            self.flush()
        self.scalars.close()


def episode_values(training: dict[str, Any]) -> dict[str, float]:
    """The scalars of a finished episode, which is what is counted."""
    return {
        "episode/reward": training["reward"],
        "episode/final_score": training["scores"][-1],
        "episode/learning_rate": statistics.geometric_mean(training["learning_rates"]),
        "episode/undone": float(len(training["undone"])),
        "episode/diverged": float(training["diverged"]),
    }
