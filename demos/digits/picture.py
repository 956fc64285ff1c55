"""One picture: a test line, the attention weights (or posteriors) of the model, and the learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

from returnn_lite.schedule.lr_file import Record

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402 - after the choice of the backend
from matplotlib.axes import Axes  # noqa: E402


def draw(
    filename: Path,
    *,
    line: np.ndarray,
    looks: np.ndarray,
    meaning: str,
    rows: Sequence[str],
    records: Mapping[int, Record],
) -> None:
    """Write the picture. `line` (time, height), `looks` (len(rows), frames), a frame being some columns of the line."""
    figure, (above, middle, below) = pyplot.subplots(
        3, 1, figsize=(9, 9), height_ratios=[1.3, 2, 2.2], layout="constrained"
    )
    draw_line(above, line)
    draw_looks(middle, looks, rows, num_columns=len(line))
    middle.set_title(meaning)
    draw_curves(below, records)
    figure.savefig(filename, dpi=110)
    pyplot.close(figure)


def draw_line(axes: Axes, line: np.ndarray) -> None:
    """The image of the line."""
    axes.imshow(line.T, cmap="gray_r", aspect="auto", extent=(0, len(line), line.shape[1], 0))
    axes.set(title="a line of the test set", yticks=[])


def draw_looks(axes: Axes, looks: np.ndarray, rows: Sequence[str], *, num_columns: int) -> None:
    """A matrix below the line, its frames below their columns."""
    columns_per_frame = -(-num_columns // looks.shape[1])
    extent = (0, looks.shape[1] * columns_per_frame, len(rows), 0)
    axes.imshow(looks, cmap="viridis", aspect="auto", interpolation="nearest", extent=extent)
    axes.set(xlim=(0, num_columns), xlabel="column")
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows)


def draw_curves(axes: Axes, records: Mapping[int, Record]) -> None:
    """Every error of the learning-rate file, in per cent."""
    keys = sorted({key for record in records.values() for key in record.error if "_error" in key})
    for key in keys:
        epochs = [epoch for epoch, record in sorted(records.items()) if key in record.error]
        errors = [100 * records[epoch].error[key] for epoch in epochs]
        axes.plot(epochs, errors, label=key, linestyle="--" if key.startswith("train") else "-")
    axes.set(yscale="symlog", xlabel="epoch", ylabel="error in %", title="learning curves")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
