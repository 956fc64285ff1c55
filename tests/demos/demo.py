"""Modules and datasets of the demos, which are scripts and not a package."""

import importlib.util
import sys
from pathlib import Path

from returnn_lite.config import load_config
from returnn_lite.engine.data import require_dataset
from returnn_lite.log import Log

DEMOS = Path(__file__).resolve().parents[2] / "demos"


def module(demo):
    """The demo's make_data.py."""
    name = f"demos_{demo}_make_data"
    spec = importlib.util.spec_from_file_location(name, DEMOS / demo / "make_data.py")
    sys.modules[name] = found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def sequences(config, data_dir, name):
    """{tag: {key: array}} of all sequences of a dataset, as the demo's config reads them."""
    config = load_config([str(DEMOS / config)], [("data_dir", str(data_dir)), ("task", "eval")])
    dataset = require_dataset(config, name, Log())
    total = dataset.get_total_num_seqs()
    dataset.init_seq_order(1, seq_order=range(total))
    dataset.load_seqs(0, total)
    keys = dataset.get_data_keys()
    return {dataset.get_tag(i): {key: dataset.get_data(i, key) for key in keys} for i in range(total)}
