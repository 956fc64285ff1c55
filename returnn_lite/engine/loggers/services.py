"""Scalars for Weights & Biases and MLflow, which are packages of their own."""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import time
from typing import Any

from returnn_lite.config_value import ConfigDict
from returnn_lite.engine.loggers.sink import Values, require_known_options

LONGEST = 250  # characters of a name in MLflow
PATIENCE = {"init_timeout": 20.0, "finish_timeout": 60.0}  # seconds that W&B may hold up a run


def run_id(model: str) -> str:
    """A name for the run that is the same when it goes on: by the place of its checkpoints."""
    return hashlib.sha256(os.path.abspath(model).encode()).hexdigest()[:16]


class WandB:
    """A run of Weights & Biases; offline with the environment variable WANDB_MODE=offline.

    Steps are a scalar of their own: the service refuses to count back its own ones, where a run that was killed goes
    on. ConfigError for options that `wandb.init` does not have.
    """

    name = "wandb"
    run: Any = None  # Any: of an optional package

    def __init__(self, model: str, options: ConfigDict) -> None:
        require_known_options(self.name, options, _init_options())
        self.options = {"id": run_id(model), "resume": "allow", "name": os.path.basename(model), **options}

    def begin(self, epoch: int, global_step: int) -> None:
        """Begins the run, or goes on with it."""
        import wandb

        if self.run is None:
            have, own = wandb.Settings(), self.options.get("settings") or {}
            patience = {name: seconds for name, seconds in PATIENCE.items() if hasattr(have, name)}
            settings = {**patience, **own} if isinstance(own, dict) else own
            self.run = wandb.init(**{**self.options, "settings": settings})
            for counter, names in {"global_step": ["train/*"], "epoch": ["epoch/*", "epoch_*"]}.items():
                self.run.define_metric(counter)
                for name in names:
                    self.run.define_metric(name, step_metric=counter)

    def step(self, global_step: int, values: Values) -> None:
        """Scalars of a step."""
        self.run.log({"global_step": global_step, **values})

    def epoch(self, epoch: int, values: Values) -> None:
        """Scalars of an epoch."""
        self.run.log({"epoch": epoch, **values})

    def close(self) -> None:
        """Ends the run."""
        self.run.finish()


def _init_options() -> list[str] | None:
    """What `wandb.init` takes; None if the package is missing, or broken, which `begin` tells."""
    try:
        import wandb

        return list(inspect.signature(wandb.init).parameters)
    except Exception:
        return None


class MLflow:
    """A run of MLflow, where MLFLOW_TRACKING_URI or the option `tracking_uri` says; by default in the folder mlruns."""

    name, known = "mlflow", ("experiment", "tracking_uri")
    client: Any  # Any: of an optional package

    def __init__(self, model: str, options: ConfigDict) -> None:
        require_known_options(self.name, options, self.known, texts=self.known)
        self.options, self.tag = dict(options), run_id(model)
        self.title = os.path.basename(model)

    def begin(self, epoch: int, global_step: int) -> None:
        """Begins the run, or goes on with the one of the same checkpoints."""
        import mlflow

        place = str(self.options.get("tracking_uri", ""))
        place = place or (mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else "mlruns")
        if "://" not in place or place.startswith("file:"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3 asks whether folders are meant
        self.client = mlflow.MlflowClient(place)
        name = str(self.options.get("experiment", "returnn_lite"))
        found = self.client.get_experiment_by_name(name)
        experiment = self.client.create_experiment(name) if found is None else found.experiment_id
        runs = self.client.search_runs([experiment], f"tags.returnn_lite = '{self.tag}'")
        tags = {"returnn_lite": self.tag}
        run = runs[0] if runs else self.client.create_run(experiment, tags=tags, run_name=self.title)
        self.id = run.info.run_id
        self.client.update_run(self.id, status="RUNNING")
        histories = [self.client.get_metric_history(self.id, name) for name in run.data.metrics]
        self.written = {(one.key, one.step, one.value) for history in histories for one in history}

    def step(self, global_step: int, values: Values) -> None:
        """Scalars of a step. What a run that goes on finds with the same value is not written again."""
        from mlflow.entities import Metric

        named = {_plain(name): float(value) for name, value in values.items()}
        new = [(name, value) for name, value in named.items() if (name, global_step, value) not in self.written]
        now = int(time.time() * 1000)
        if new:
            self.client.log_batch(self.id, [Metric(name, value, now, global_step) for name, value in new])

    def epoch(self, epoch: int, values: Values) -> None:
        """Scalars of an epoch."""
        self.step(epoch, values)

    def close(self) -> None:
        """Ends the run."""
        self.client.set_terminated(self.id)


def _plain(name: str) -> str:
    """MLflow takes letters, digits, and few signs; a name must not be a folder of another."""
    group, slash, rest = name.partition("/")
    return (group + slash + re.sub(r"[^\w\-. ]", ".", rest))[:LONGEST]
