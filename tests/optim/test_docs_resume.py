"""docs/optimizers.md: every line of it trains, and goes on bit for bit after a stop. It has a line for every class."""

import re
from pathlib import Path

import pytest
import torch

from returnn_lite.optim import RULES
from returnn_lite.optim.averaging import KINDS
from returnn_lite.optim.scheduler_proxy import KNOWN
from returnn_lite.optim.schedules import SCHEDULES
from returnn_lite.optim.thinc_optimizers import CLASSES
from returnn_lite.optim.torch_optimizers import TORCH
from tests.engine.helpers import dataset, options, run

PAGE = Path(__file__).resolve().parents[2] / "docs" / "optimizers.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines()]
NETWORK = {
    "emb": {"class": "linear", "activation": None, "n_out": 3, "with_bias": False, "from": "data:classes"},
    "h": {"class": "linear", "activation": "tanh", "n_out": 3, "from": "emb", "dropout": 0.2},
    "output": {"class": "softmax", "loss": "ce", "from": "h", "target": "classes"},
}
TRAIN, DEV = dataset(6, 1, seq_ordering="random"), dataset(2, 2)


def config_of(line: str) -> dict:
    """What the line defines."""
    names: dict = {}
    exec(line, names)
    return {name: value for name, value in names.items() if name != "__builtins__"}


def config(folder: Path, line: str, **changes) -> dict:
    own = config_of(line)
    has_rate = any(key in own.get("optimizer", {}) for key in ("learn_rate", "lr"))
    made = options(
        folder, network=NETWORK, train=TRAIN, dev=DEV, batch_size=20, num_workers=0, learning_rate_control=None,
        learning_rate=None if has_rate else 0.01,
    )  # fmt: skip
    return {**made, **own, **changes}


def results(folder: Path) -> tuple[dict, str]:
    """Everything that a run leaves, but for the clock."""
    files = {path.name: torch.load(path, weights_only=True) for path in sorted(folder.glob("model.006*.pt"))}
    rates = (folder / "rates").read_text()
    return files, re.sub(r"':meta:epoch_train_time_secs': \d+,\n", "", rates)


def assert_same(a, b, where: str = "") -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a.to_dense(), b.to_dense()), where
    else:
        assert a == b or where.endswith("learning_rates"), f"{where}: {a!r} {b!r}"


@pytest.mark.parametrize("line", LINES)
def test_three_and_three_epochs_are_six(line: str, tmp_path: Path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(config(whole, line, num_epochs=6))
    total = {"total_steps": 12} if "auto" in line else {}
    first = config(parts, line, num_epochs=3)
    if total:  # "auto" means the epochs of the whole run
        first["lr_scheduler"] = {**first["lr_scheduler"], **total}
    run(first)
    lines = run(config(parts, line, num_epochs=6))
    assert not [text for text in lines if "has changed" in text and not total]
    files, rates = results(whole)
    others, other_rates = results(parts)
    assert len(files) == (3 if "weight_averaging" in line else 2)
    assert_same(*({name: _plain(content) for name, content in run.items()} for run in (files, others)))
    assert rates == other_rates


def _plain(content: dict) -> dict:
    """Optimizers by their number: keys of functions hold addresses."""
    if "optimizer" not in content:
        return content
    optimizer = dict(content["optimizer"])
    optimizer["optimizers"] = {str(i): state for i, state in enumerate(optimizer["optimizers"].values())}
    if "scheduler" in optimizer:  # its options are told with the addresses of functions
        optimizer["scheduler"] = {key: value for key, value in optimizer["scheduler"].items() if key != "options"}
    return {**content, "optimizer": optimizer}


def mentioned(pattern: str) -> set[str]:
    return {found for line in LINES for found in re.findall(pattern, line)}


def test_every_class_has_a_line():
    classes = mentioned(r'"class": "([\w.]+)"')
    assert {cls.name for cls in RULES.values()} <= classes
    assert {f"torch.{name}" for name in TORCH} <= classes
    assert {f"thinc.{name}" for name in CLASSES} <= classes
    assert set(KNOWN) <= classes
    assert set(SCHEDULES) <= mentioned(r'"@schedules": "([\w.]+)"')
    assert set(KINDS) <= mentioned(r'"kind": "(\w+)"')
