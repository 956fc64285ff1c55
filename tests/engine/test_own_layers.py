"""The example of docs/own_layers.md, as it stands there."""

import re
from pathlib import Path

import torch

from returnn_lite.layers.core import registry
from tests.engine.helpers import rnn

PAGE = Path(__file__).resolve().parents[2] / "docs" / "own_layers.md"


def test_the_example_trains(tmp_path):
    example = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "own.config").write_text(example[1])
    done = rnn("own.config", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    model = torch.load(tmp_path / "out" / "model.002.pt", weights_only=True)["model"]
    assert model["r/shift"].shape == (8,) and not torch.all(model["r/shift"] == 0.1)


def test_a_wrong_option_of_an_own_layer(tmp_path):
    text = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1].replace('"start": 0.1', '"strt": 0.1')
    (tmp_path / "own.config").write_text(text)
    done = rnn("own.config", folder=tmp_path)
    assert done.returncode == 1
    first = done.stderr.splitlines()[0]
    assert first.startswith(
        "network[\"r\"]: layer class 'shifted_relu' has no option 'strt'; did you mean \"start\"?"
    ), first


def test_public_names():
    import returnn_lite

    assert returnn_lite.layer is registry.layer
