"""`default_float_dtype`: the type of parameters and data of models written in torch or with `returnn.frontend`."""

import h5py
import numpy as np
import pytest
import torch

from returnn_lite import frontend as rf
from returnn_lite.errors import ConfigError
from returnn_lite.frontend import get_run_ctx
from tests.engine import helpers, rf_models, torch_models
from tests.engine.helpers import run
from tests.engine.test_torch_updates import VALUES, Two, by_hand, options

TYPES = ["float64", "bfloat16", "float16"]


def seen_by(seen):
    """A `train_step` that notes the types it finds."""

    def train_step(*, model, extern_data, **_):
        x = extern_data["data"].raw_tensor
        made = (torch.zeros(()), rf.zeros(()).raw_tensor)
        seen.append({str(y.dtype) for y in (x, model.w, *made)})
        get_run_ctx().mark_as_loss(model(x), "l", use_normalized_loss=True)

    return train_step


def state(folder, epoch):
    return torch.load(folder / f"model.{epoch:03d}.pt", weights_only=True)["model"]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("of_data", ["float32", "float64"])
def test_steps_find_and_make_this_type(tmp_path, kind, of_data):
    seen, made = [], []

    def get_model(**_):
        made.append({torch.zeros(()).dtype, rf.zeros(()).raw_tensor.dtype})
        return Two()

    hooks = {"load_model_post_hooks": [lambda *, model, **_: made.append({torch.zeros(()).dtype, model.w.dtype})]}
    data = [{"data": np.full((2, 1), value, of_data)} for value in VALUES]
    extern = {"data": {"dim": 1, "dtype": of_data}}
    changes = {
        "train": {"class": "StaticDataset", "data": data},
        "extern_data": extern,
        "get_model": get_model,
        **hooks,
    }
    run(options(tmp_path, seen_by(seen), default_float_dtype=kind, num_epochs=1, **changes))
    assert seen == [{f"torch.{kind}"}] * 5
    assert made == [{torch.float32}, {getattr(torch, kind)}]
    assert torch.get_default_dtype() == torch.float32 and rf.get_default_float_dtype() == "float32"
    assert state(tmp_path, 1)["w"].dtype == getattr(torch, kind)


def test_numbers_in_float64(tmp_path):
    """Closer than float32 could be, also after a restart."""
    wanted = by_hand(lambda params: torch.optim.SGD(params, lr=0.1), lambda *_: (True, True), dtype=torch.float64)
    for epochs in (1, 3):
        run(options(tmp_path, seen_by([]), default_float_dtype="float64", num_epochs=epochs))
    found = state(tmp_path, 3)
    assert [found["w"].item(), found["part.weight"].item()] == pytest.approx(wanted, rel=1e-14)


@pytest.mark.parametrize("models", [torch_models, rf_models], ids=["torch", "frontend"])
@pytest.mark.parametrize("kind", TYPES[:2])
def test_models_train_in_it(tmp_path, models, kind):
    """Running statistics too; a run in float32 goes on from its files."""
    more = {} if models is torch_models else {
        "extern_data": rf_models.EXTERN, "get_model": rf_models.get_model, "train_step": rf_models.train_step,
    }  # fmt: skip
    run(torch_models.options(tmp_path, default_float_dtype=kind, num_epochs=2, **more))
    floats = [value for value in state(tmp_path, 2).values() if value.is_floating_point()]
    assert floats and {value.dtype for value in floats} == {getattr(torch, kind)}
    run(torch_models.options(tmp_path, num_epochs=3, **more))
    assert {value.dtype for value in state(tmp_path, 3).values() if value.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize(
    ("kind", "written", "tolerance"), [("float64", "float64", 1e-12), ("bfloat16", "float32", 0.02)]
)
def test_forward_with_files_of_float32(tmp_path, kind, written, tolerance):
    run(torch_models.options(tmp_path, num_epochs=1))
    data, dtype = helpers.dataset(1, 2), getattr(torch, kind)
    changes = {"task": "forward", "eval": data, "output_file": str(tmp_path / "out"), "num_epochs": 1}
    changes["model_outputs"] = {"log_probs": {"dim": 4, "shape": (None, 4)}}
    run(torch_models.options(tmp_path, default_float_dtype=kind, **changes))
    net, params = torch_models.Net(), state(tmp_path, 1)
    net.load_state_dict(params)
    wanted = net.eval().to(dtype)(torch.from_numpy(data["data"][0]["data"])[None].to(dtype))[0]
    with h5py.File(tmp_path / "out") as file:
        assert file["inputs"].dtype == written
        assert np.allclose(file["inputs"][:], wanted.detach().double().numpy(), atol=tolerance)


@pytest.mark.parametrize("value", ["float23", 64, "int32", ["float64"]])
def test_other_values_are_refused(tmp_path, value):
    with pytest.raises(
        ConfigError, match="default_float_dtype: must be one of bfloat16, float16, float32, float64, but"
    ):
        run(options(tmp_path, seen_by([]), default_float_dtype=value))


def test_nets_of_layers_are_float32(tmp_path):
    with pytest.raises(ConfigError, match="default_float_dtype: must be float32 for nets of layers, but is 'float64'"):
        run(helpers.options(tmp_path, default_float_dtype="float64"))
