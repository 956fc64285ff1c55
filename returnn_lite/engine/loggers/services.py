"""Scalars for Weights & Biases and MLflow, which are packages of their own."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from returnn_lite.config_value import ConfigDict
from returnn_lite.engine.loggers.sink import Values


def run_id(model: str) -> str:
    """A name for the run that is the same when it goes on: by the place of its checkpoints."""
    return hashlib.sha256(os.path.abspath(model).encode()).hexdigest()[:16]


class WandB:
    """A run of Weights & Biases; offline with the environment variable WANDB_MODE=offline."""

    name = "wandb"
    run: Any  # Any: of an optional package

    def __init__(self, model: str, options: ConfigDict) -> None:
        self.options = {"id": run_id(model), "resume": "allow", "name": os.path.basename(model), **options}

    def begin(self, epoch: int, global_step: int) -> None:
        """Begins the run, or goes on with it. Scalars of epochs have an axis of their own."""
        import wandb

        self.run = wandb.init(**self.options)
        self.run.define_metric("epoch")
        self.run.define_metric("epoch*", step_metric="epoch")
        self.last = global_step

    def step(self, global_step: int, values: Values) -> None:
        """Scalars of a step."""
        self.last = global_step
        self.run.log(dict(values), step=global_step)

    def epoch(self, epoch: int, values: Values) -> None:
        """Scalars of an epoch."""
        self.run.log({"epoch": epoch, **values}, step=self.last)

    def close(self) -> None:
        """Ends the run."""
        self.run.finish()


class MLflow:
    """A run of MLflow, where MLFLOW_TRACKING_URI or the option `tracking_uri` says; by default in the folder mlruns."""

    name = "mlflow"
    client: Any  # Any: of an optional package

    def __init__(self, model: str, options: ConfigDict) -> None:
        self.options, self.tag = dict(options), run_id(model)
        self.title = os.path.basename(model)

    def begin(self, epoch: int, global_step: int) -> None:
        """Begins the run, or goes on with the one of the same checkpoints."""
        import mlflow

        self.client = mlflow.MlflowClient(self.options.get("tracking_uri"))
        name = self.options.get("experiment", "returnn_lite")
        found = self.client.get_experiment_by_name(name)
        experiment = self.client.create_experiment(name) if found is None else found.experiment_id
        runs = self.client.search_runs([experiment], f"tags.returnn_lite = '{self.tag}'")
        tags = {"returnn_lite": self.tag}
        run = runs[0] if runs else self.client.create_run(experiment, tags=tags, run_name=self.title)
        self.id = run.info.run_id

    def step(self, global_step: int, values: Values) -> None:
        """Scalars of a step."""
        for name, value in values.items():
            self.client.log_metric(self.id, _plain(name), value, step=global_step)

    def epoch(self, epoch: int, values: Values) -> None:
        """Scalars of an epoch."""
        self.step(epoch, values)

    def close(self) -> None:
        """Ends the run."""
        self.client.set_terminated(self.id)


def _plain(name: str) -> str:
    """MLflow takes letters, digits, and some signs, but no colon."""
    return name.replace(":", ".")
