"""`custom_param_importer`: parameters from the model file of a net of another size."""

import pytest
import torch

from returnn_lite.engine.checkpoints.checkpoint import read_model
from returnn_lite.errors import ConfigError
from tests.engine.helpers import options, run


def lstm_net(size: int, **changes) -> dict:
    return {
        "l": {"class": "rec", "unit": "nativelstm2", "n_out": size, "from": "data", **changes},
        "output": {"class": "softmax", "loss": "ce", "from": "l", "target": "classes", **changes},
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A model with 3 units."""
    folder = tmp_path_factory.mktemp("source")
    run(options(folder, network=lstm_net(3), num_epochs=1))
    return str(folder / "model.001")


def imported(folder, source, size: int, mode) -> tuple[dict, dict]:
    """(parameters of a net with `size` units that imports the source, those of the source)."""
    net = lstm_net(size, custom_param_importer=mode)
    changes = {"num_epochs": 1, "learning_rate": 0.0, "import_model_train_epoch1": source}
    run(options(folder, network=net, **changes))
    return read_model(str(folder / "model.001")), read_model(source)


def test_subset_goes_by_gates(tmp_path, source):
    got, want = imported(tmp_path, source, 5, "subset")
    for gate in range(4):
        new, old = slice(5 * gate, 5 * gate + 3), slice(3 * gate, 3 * gate + 3)
        assert torch.equal(got["l/rec/W"][:, new], want["l/rec/W"][:, old])
        assert torch.equal(got["l/rec/W_re"][:3, new], want["l/rec/W_re"][:, old])
    assert torch.equal(got["output/W"][:3], want["output/W"])
    assert got["global_step"] > want["global_step"]


def test_if_possible(tmp_path, source):
    got, want = imported(tmp_path, source, 5, "ifpossible")
    assert torch.equal(got["output/b"], want["output/b"]) and got["l/rec/W"].shape == (4, 20)


def test_reset(tmp_path, source):
    got, want = imported(tmp_path, source, 3, "reset")
    assert not any(torch.equal(got[name], want[name]) for name in ("l/rec/W", "l/rec/W_re", "output/W"))


@pytest.mark.parametrize("mode", ["subsets", len])
def test_wrong_mode(tmp_path, source, mode):
    with pytest.raises(ConfigError, match="`?custom_param_importer.*must be one of .reset."):
        imported(tmp_path, source, 3, mode)
