"""Model files that are damaged, cut off, or something else: one line that names the file."""

import pickle

import numpy as np
import pytest
import torch

from returnn_lite.engine.checkpoints.checkpoint import load_resume_state, read_model
from returnn_lite.engine.checkpoints.torch_file import damaged_records, read_torch_file, write_torch_file
from returnn_lite.errors import ConfigError
from tests.engine.helpers import options, run

MODEL = {"model": {"a": torch.arange(300.0), "b": torch.ones(7), "c": torch.ones(3, dtype=torch.int64)}, "step": 4}


@pytest.fixture
def path(tmp_path):
    with open(tmp_path / "m.pt", "wb") as file:
        write_torch_file(MODEL, file)
    return tmp_path / "m.pt"


def flipped(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_a_flipped_bit_in_an_array(path, name):
    start = path.read_bytes().index(MODEL["model"][name].numpy().tobytes())
    flipped(path, 8 * start + 13)
    with pytest.raises(ConfigError, match=f'm.pt\' is damaged: the checksum of "{name}" does not fit'):
        read_model(str(path))


def test_any_flipped_bit_is_noticed_or_harmless(path):
    data = path.read_bytes()
    for bit in range(0, 8 * len(data), 97):
        flipped(path, bit)
        try:
            found = read_model(str(path))
        except ConfigError as exc:
            assert str(path) in str(exc) and "\n" not in str(exc)
        else:
            assert all(torch.equal(found[name], value) for name, value in MODEL["model"].items())
        path.write_bytes(data)


def test_files_without_checksums_are_read(path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(MODEL, path)
        assert damaged_records(str(path)) == [] and read_model(str(path))["b"].sum() == 7
        with open(path, "wb") as file:
            write_torch_file(MODEL, file)  # always with them
        assert not torch.serialization.get_crc32_options()
    finally:
        torch.serialization.set_crc32_options(True)
    start = path.read_bytes().index(MODEL["model"]["a"].numpy().tobytes())
    flipped(path, 8 * start)
    assert damaged_records(str(path)) == ["archive/data/0"]


def test_the_old_form_of_torch_is_read(path):
    torch.save(MODEL, path, _use_new_zipfile_serialization=False)
    assert torch.equal(read_model(str(path))["a"], MODEL["model"]["a"])


class Own:
    pass


@pytest.mark.parametrize("content, text", [
    (b"", "cannot be read as a checkpoint: it is empty"),
    (b"hello world" * 9, "cannot be read as a checkpoint: it is cut off, or not written by torch.save"),
    ("half", "cannot be read as a checkpoint: it is cut off, or not written by torch.save"),
    (pickle.dumps({"a": Own()}, 2), "must be a checkpoint of named tensors, but holds objects of .*Own"),
    ({"model": {"a": 1}}, "must hold named tensors, but is of another kind: model"),
    ([1, 2], "must hold named tensors, but is of another kind: list"),
    ({"x": Own()}, "must be a checkpoint of named tensors, but holds objects of .*Own"),
])  # fmt: skip
def test_other_files(path, content, text):
    if content == "half":
        content = path.read_bytes()[: path.stat().st_size // 2]
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ConfigError, match=text) as error:
        read_model(str(path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["half", "flipped", b"", b"no zip at all", "one array", "objects"])
def test_arrays(tmp_path, content):
    path = tmp_path / "m.npz"
    np.savez(path, a=np.arange(100.0), b=np.ones(3))
    if content == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif content == "flipped":
        flipped(path, 8 * path.read_bytes().index(np.arange(100.0).tobytes()) + 100)
    elif content == "one array":
        with open(path, "wb") as file:
            np.save(file, np.ones(3))
    elif content == "objects":
        np.savez(path, a=np.array([Own()], dtype=object))
    else:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="npz.*(of another kind|holds a single array)") as error:
        read_model(str(path))
    assert "\n" not in str(error.value)


def test_a_state_that_does_not_fit(tmp_path):
    run(options(tmp_path, num_epochs=1))
    path = tmp_path / "model.001.opt.pt"
    good = torch.load(path, weights_only=True)
    (key,) = good["optimizer"]["optimizers"]
    bad = {"class": good["optimizer"]["optimizers"][key]["class"]}
    torch.save({**good, "optimizer": {"optimizers": {key: bad}}}, path)
    with pytest.raises(ConfigError, match="model.001.opt.pt' has a state that does not fit the optimizer .KeyError"):
        run(options(tmp_path, num_epochs=2))
    torch.save({**good, "step": 77}, path)
    with pytest.raises(ConfigError, match="model.001.opt.pt' is of step 77, but the model is of step"):
        run(options(tmp_path, num_epochs=2))


@pytest.mark.parametrize("content, text", [
    ("half", "model.001.opt.pt' cannot be read as a checkpoint: it is cut off"),
    ("flipped", "model.001.opt.pt' is damaged: the checksum of "),
    ({"epoch": 1}, "must be the optimizer state .* that a training saves, but has epoch instead"),
    ([1], "must be the optimizer state .* that a training saves, but has list instead"),
    ({"optimizer": {"state": {}}, "learning_rates": "", "step": 1, "param_names": []}, "must be the optimizer state"),
])  # fmt: skip
def test_optimizer_state(tmp_path, content, text):
    run(options(tmp_path, num_epochs=1))
    path = tmp_path / "model.001.opt.pt"
    if content == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif content == "flipped":
        flipped(path, 8 * path.read_bytes().index(_slot(path)) + 5)
    else:
        torch.save(content, path)
    with pytest.raises(ConfigError, match=text):
        load_resume_state(str(tmp_path / "model.001"))
    with pytest.raises(ConfigError, match=text):
        run(options(tmp_path, num_epochs=2))
    path.unlink()
    assert "start training at epoch 2" in run(options(tmp_path, num_epochs=2, start_epoch=2))


def _slot(path):
    """The bytes of some array of the state."""
    found = []

    def look(value):
        if isinstance(value, torch.Tensor) and value.numel() > 4:
            found.append(value.numpy().tobytes())
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            look(item)

    look(read_torch_file(str(path)))
    return found[0]
