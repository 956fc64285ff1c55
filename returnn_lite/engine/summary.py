"""Scalars for TensorBoard, on request (`tensorboard_opts`, `tf_log_dir`)."""

from collections.abc import Mapping
from typing import Any

from returnn_lite.config import Config
from returnn_lite.log import Log

DEFAULT_INTERVAL = 100


class ScalarLog:
    """Writes losses and learning rates; without `writer` it does nothing."""

    def __init__(self, writer: Any = None, interval: int = DEFAULT_INTERVAL) -> None:
        self.writer, self.interval = writer, interval

    @classmethod
    def from_config(cls, config: Config, log: Log) -> "ScalarLog":
        """A log into the folder `tf_log_dir`, if that or `tensorboard_opts` is set; it never fails a run."""
        options = config.typed_value("tensorboard_opts") or {}
        folder = config.bool_or_other("tf_log_dir", None)
        if not (options or folder) or folder is False or config.is_true("dry_run"):
            return cls()
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as exc:
            log.v1(f"WARNING: tensorboard_opts: no scalars, since the package tensorboard is needed: {exc}")
            return cls()
        name = folder if isinstance(folder, str) else "tensorboard"
        return cls(SummaryWriter(name), int(options.get("log_every_n_train_steps", DEFAULT_INTERVAL)))

    def step(self, global_step: int, result: Any, learning_rate: float) -> None:
        """The scores of a training step, every so many steps."""
        if self.writer is None or global_step % self.interval:
            return
        values = dict(zip(result.columns, result.scores.tolist(), strict=True))
        for (kind, name), value in values.items():
            if kind in ("cost", "error"):
                self.writer.add_scalar(f"train/{kind}:{name}", value / values["inv_norm", name], global_step)
            elif kind == "loss":
                self.writer.add_scalar("train/loss", value, global_step)
        self.writer.add_scalar("train/learning_rate", learning_rate, global_step)

    def epoch(
        self, epoch: int, global_step: int, results: Mapping[str, Mapping[str, float]], learning_rate: float
    ) -> None:
        """The scores of all datasets after an epoch."""
        if self.writer is None:
            return
        for dataset, means in results.items():
            for key, value in means.items():
                self.writer.add_scalar(f"epoch_{dataset}/{key}", value, epoch)
        self.writer.add_scalar("epoch/learning_rate", learning_rate, epoch)
        self.writer.flush()
