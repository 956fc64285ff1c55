"""docs/configs.md: its config works, and its file behind a published config changes that one as the page says."""

import re
from pathlib import Path

import numpy as np
import pytest

from returnn_lite.cli import main
from returnn_lite.config import load_config
from returnn_lite.hdf.writer import HDFWriter

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "configs.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def write_hdf(folder: Path, features: int, classes: int) -> None:
    """train.hdf, dev.hdf, test.hdf."""
    import h5py

    random = np.random.RandomState(1)
    folder.mkdir()
    for name in ("train", "dev", "test"):
        with HDFWriter(str(folder / f"{name}.hdf"), dim=features, ndim=2) as file:
            for i in range(4):
                frames = random.normal(size=(40 + i, features)).astype("float32")
                file.insert(frames, f"{name}-{i}", {"classes": random.randint(0, classes, len(frames)).astype("int32")})
        with h5py.File(folder / f"{name}.hdf", "a") as file:
            file["targets"].require_group("size").attrs["classes"] = (classes, 1)


def test_the_config_of_the_page_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "train.config").write_text(BLOCKS[0])
    write_hdf(tmp_path / "data", 40, 10)
    monkeypatch.chdir(tmp_path)
    assert main(["train.config", "--check"]) == 0
    assert main(["train.config", "++num_epochs", "1", "++device", "cpu"]) == 0
    assert (tmp_path / "out" / "model.001.pt").exists()


def test_a_file_behind_a_published_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mine.config").write_text(BLOCKS[1])
    published = str(ROOT / "configs" / "ctc_blstm.config")
    config = load_config([published, str(tmp_path / "mine.config")], [("data_dir", "nowhere")])
    assert config.typed_value("train") == {
        "class": "HDFDataset", "files": ["my_data/train.hdf"], "seq_ordering": "laplace:.100"
    }  # fmt: skip
    assert config.typed_value("network")["output"]["n_out"] == 31 and config.typed_value("num_layers") == 5
    assert config.typed_value("extern_data")["classes"]["dim"] == 30
    assert config.value("model", "") == "my_out/model" and config.int("max_seqs", 0) == 64
    write_hdf(tmp_path / "my_data", 80, 30)
    monkeypatch.chdir(tmp_path)
    sizes = ["++lstm_dim", "8"]
    vocab = tmp_path / "vocab"
    vocab.mkdir()
    (vocab / "chars.txt").write_text("".join(f"{chr(ord('A') + i)}\n" for i in range(30)))
    assert main([published, "mine.config", "--check", "++data_dir", str(vocab), *sizes]) == 0
