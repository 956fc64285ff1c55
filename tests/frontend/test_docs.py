"""docs/frontend.md: its example is a config that trains, its tables are current."""

import re
from pathlib import Path

import numpy as np

from returnn_lite.compat.config_imports import config_imports
from returnn_lite.tools import frontend_names
from returnn_lite.tools.renewed_page import renewed
from tests.engine import torch_models
from tests.engine.helpers import run

PAGE = Path(__file__).resolve().parents[2] / "docs" / "frontend.md"


def sequences(num_seqs, seed):
    rnd = np.random.RandomState(seed)
    lengths = rnd.randint(3, 7, num_seqs)
    classes = [rnd.randint(0, 10, n).astype("int32") for n in lengths]
    data = [np.eye(40, dtype="float32")[c] for c in classes]
    pairs = [{"data": d, "classes": c} for d, c in zip(data, classes, strict=True)]
    return {"class": "StaticDataset", "data": pairs, "output_dim": {"data": (40, 2), "classes": (10, 1)}}


def test_the_example_trains(tmp_path):
    code = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)[0]  # those after it are parts of configs
    with config_imports():
        found: dict = {}
        exec(compile(code, str(PAGE), "exec"), found)  # noqa: S102
    options = {key: found[key] for key in ("extern_data", "get_model", "train_step")}
    options |= {"train": sequences(6, 1), "dev": sequences(3, 2)}
    lines = run(torch_models.options(tmp_path, num_epochs=1, **options))
    assert any(line.startswith("Finished training at epoch 1") for line in lines)


def test_the_tables_are_current():
    page = PAGE.read_text()
    made = renewed(page, frontend_names.MARK, frontend_names.tables())
    assert made == page, "docs/frontend.md is old: run `make docs`"


def test_the_tables_have_all_names():
    tables = frontend_names.tables()
    for name in ("rf.gather", "rf.audio.specaugment", "ConformerEncoder", "copy_masked", "mark_as_loss"):
        assert f"| `{name}` | " in tables
    assert "| `rf.get_extern_data` | the data is the argument" in tables.partition("Refused")[2]
    assert "rf.rf" not in tables and "rf.annotations" not in tables and "| |\n|---|---|\n\n" not in tables
