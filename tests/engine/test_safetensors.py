"""Model files in the form of safetensors, by the description of the format."""

import json

import numpy as np
import pytest
import torch

from returnn_lite.engine.checkpoints.safetensors_file import read_safetensors
from returnn_lite.errors import ConfigError
from tests.engine.helpers import run
from tests.engine.torch_models import Net, options

NAMES = {"float32": "F32", "int64": "I64", "float16": "F16", "bool": "BOOL"}


def written(path, arrays, cut=0):
    """Writes a file; `cut`: bytes that are missing at its end."""
    table, data = {"__metadata__": {"format": "pt"}}, b""
    for name, array in arrays.items():
        end = len(data) + array.nbytes
        table[name] = {"dtype": NAMES[str(array.dtype)], "shape": array.shape, "data_offsets": [len(data), end]}
        data += array.tobytes()
    head = json.dumps(table).encode()
    whole = len(head).to_bytes(8, "little") + head + data
    path.write_bytes(whole[: len(whole) - cut])
    return str(path)


def test_all_kinds(tmp_path):
    arrays = {
        "w": np.arange(6, dtype="float32").reshape(2, 3), "count": np.array(7, "int64"), "half": np.ones(3, "float16"),
        "empty": np.zeros((0, 2), "float32"), "mask": np.array([True, False]),
    }  # fmt: skip
    found = read_safetensors(written(tmp_path / "a.safetensors", arrays))
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].numpy().dtype == array.dtype and np.array_equal(found[name].numpy(), array)


def test_a_training_starts_from_one(tmp_path):
    state = {name: value.numpy() for name, value in Net().state_dict().items()}
    file = written(tmp_path / "start.safetensors", state)
    run(options(tmp_path, num_epochs=1, learning_rate=0.0, import_model_train_epoch1=file))
    found = torch.load(tmp_path / "model.001.pt", weights_only=True)["model"]["out.weight"]
    assert np.array_equal(found.numpy(), state["out.weight"])


@pytest.mark.parametrize(("cut", "words"), [(1, "it is cut off"), (40, "cannot be read"), (10**6, "cannot be read")])
def test_damaged(tmp_path, cut, words):
    file = written(tmp_path / "a.safetensors", {"w": np.ones(4, "float32")}, cut)
    with pytest.raises(ConfigError, match=words):
        read_safetensors(file)
