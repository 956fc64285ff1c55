"""The run context; data and outputs of a step; configs that find the frontend by its public names."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from returnn_lite import frontend as rf
from returnn_lite.behavior_version import BehaviorVersion, select_backend_torch
from returnn_lite.compat.config_imports import config_imports
from returnn_lite.config import Config
from returnn_lite.errors import ConfigError
from returnn_lite.frontend.core_values import Sequences, loss_value, marked_output
from returnn_lite.frontend.extern import ExternTensors
from returnn_lite.network.extern import ExternData
from tests.engine.helpers import ROOT
from tests.frontend.helpers import random, sized, values

B, F = rf.Dim(3, name="B"), rf.Dim(4, name="F")
T = sized([5, 2, 4], B)


def test_losses():
    x = random([B, T])
    valid = values(x)[values(T.get_mask())]
    ctx = rf.get_run_ctx()
    x.mark_as_loss("a", scale=0.5)
    ctx.mark_as_loss(x, "b", use_normalized_loss=True)
    ctx.mark_as_loss(x, "c", use_normalized_loss=True, custom_inv_norm_factor=T.get_size_tensor())
    x.mark_as_loss("error", as_error=True)
    (x * 0.0).mark_as_loss("off", scale=0.0)
    total = float(values(ctx.total_loss()))
    assert total == pytest.approx(valid.sum() / 2 + 2 * valid.mean(), rel=1e-5)
    found = loss_value(ctx.losses["c"])
    assert float(found.inv_norm) == 11 and float(found.objective) == pytest.approx(valid.mean(), rel=1e-5)
    with pytest.raises(ConfigError, match="loss 'a' is marked twice"):
        x.mark_as_loss("a")
    with pytest.raises(ConfigError, match="must be called in `forward_step`"):
        x.mark_as_default_output()


def test_outputs():
    batch = rf.Dim(None, name="batch", kind=rf.Dim.Types.Batch)
    batch.dyn_size_ext = rf.convert_to_tensor(3, dims=[], dtype="int32")
    beam = rf.Dim(2, name="beam")
    time = sized([[2, 1], [3, 3], [0, 1]], [batch, beam])
    labels = rf.cast(random([beam, time, batch]) * 10, "int32")
    rf.init_forward_step_run_ctx(epoch=4)
    ctx = rf.get_run_ctx()
    labels.mark_as_output("labels", shape=[batch, beam, time])
    rf.cast(random([batch]), "bfloat16").mark_as_output("score")
    assert (ctx.stage, ctx.epoch, ctx.outputs["labels"].dims) == ("forward_step", 4, (batch, beam, time))
    rows = Sequences({key: marked_output(value).marked for key, value in ctx.outputs.items()})
    second = rows[1]
    assert second["labels"].raw_tensor.shape == (2, 3) and isinstance(second["labels"].raw_tensor, np.ndarray)
    assert second["labels"].dims[1].dyn_size_ext.raw_tensor.tolist() == [3, 3] and second["score"].dtype == "float32"
    assert rows[2]["labels"].raw_tensor.shape == (2, 1) and rows[0]["score"].raw_tensor.shape == ()
    with pytest.raises(ConfigError, match="the order of its axes"):
        random([batch, beam, F]).mark_as_output("other")


def test_expected_outputs():
    late, expected = rf.Dim(None, name="late"), rf.TensorDict()
    expected.update(
        {"x": {"dims": [B, late], "dtype": "float32"}, "y": {"dims": [B], "dtype": "int32"}}, auto_convert=True
    )
    rf.init_forward_step_run_ctx(expected_outputs=expected)
    ctx = rf.get_run_ctx()
    random([T, B]).mark_as_output("x")
    assert ctx.outputs["x"].dims == (B, T) and late.dyn_size.tolist() == [5, 2, 4]
    for call, text in (
        (lambda: random([B]).mark_as_output("z"), "not declared in `model_outputs`"),
        (lambda: random([B]).mark_as_output("y"), "must be Tensor"), (ctx.check_outputs_complete, "the outputs 'y'"),
        (lambda: random([F]).mark_as_output("y"), "must have the axes"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=text):
            call()


def test_train_flags():
    ctx = rf.get_run_ctx()
    with ctx.train_flag_ctx(False):
        with ctx.train_flag_ctx(True, func=[rf.dropout]):
            assert not ctx.train_flag and ctx.is_train_flag_enabled(func=rf.dropout)
            assert not ctx.is_train_flag_enabled(func=rf.weight_noise)
    assert ctx.train_flag and ctx.is_train_flag_enabled(func=rf.dropout)


def test_data_of_a_batch():
    time, late = rf.Dim(None, name="time"), rf.Dim(9, name="labels")
    options = {
        "data": {"dims": [rf.batch_dim, time, F], "dtype": "float32", "feature_dim": F},
        "classes": {
            "dims": [rf.batch_dim, time],
            "sparse_dim": late,
            "dtype": "int32",
            "available_for_inference": False,
        },
        "raw": {"shape": (None, 1)},
    }
    extern, tensors = ExternData(Config({"extern_data": options})), ExternTensors(options)
    for lengths in ([3, 2], [1, 4]):
        n = max(lengths)
        arrays = {
            "data": torch.ones(2, n, 4),
            "classes": torch.ones(2, n, dtype=torch.int64),
            "raw": torch.ones(2, 7, 1),
        }
        sizes = {"data": torch.tensor(lengths), "classes": torch.tensor(lengths), "raw": torch.tensor([7, 5])}
        found = tensors.fill({key: extern.feed(key, arrays[key], sizes) for key in arrays}, ["a", "b"])
        assert found["data"].dims[1] is time and time.dyn_size.tolist() == lengths and found["classes"].dtype == "int64"
        assert int(rf.batch_dim.get_dim_value()) == 2 and found["raw"].get_time_dim_tag().dyn_size.tolist() == [7, 5]
        assert found["seq_tag"].raw_tensor.tolist() == ["a", "b"] and found["data"].feature_dim is F
        assert (time + 1).padded_size() == n + 1 and not found["classes"].available_for_inference
    rf.batch_dim.reset_eager()


def test_versions():
    BehaviorVersion._reset()
    select_backend_torch()
    assert BehaviorVersion.get() == 16 and not BehaviorVersion.is_set()
    with pytest.raises(ConfigError, match="must be at least 16 here, but is 14"):
        BehaviorVersion.set(14)
    BehaviorVersion.set(21)
    assert (
        BehaviorVersion.get() == 21
        and rf.use_mask_default(default=True, default_false_for_behavior_version_up_to=22) is False
    )


def test_public_names():
    with config_imports():
        found: dict = {}
        exec(
            """
import returnn.frontend as rf
from returnn.frontend.build_from_dict import _get_cls
from returnn.frontend.random import random_uniform
from returnn.frontend.tensor_array import TensorArray
from returnn.tensor.marked_dim import ImplicitSparseDim
from returnn.util.basic import BehaviorVersion
from returnn.config import Config, get_global_config, global_config_ctx
with global_config_ctx(Config({"x": 1})):
    x = get_global_config().int("x", 0)
""",
            found,
        )
        assert found["rf"] is rf and callable(rf.random) and callable(rf.build_from_dict) and found["x"] == 1
        assert found["TensorArray"] is rf.TensorArray and found["BehaviorVersion"] is BehaviorVersion
    assert "returnn.frontend" not in sys.modules and rf.__spec__.name == "returnn_lite.frontend"


def test_scripts_find_it_in_compat_root():
    code = "import sys; sys.path.insert(0, 'compat_root'); import returnn.frontend as rf; print(rf.Dim(3))"
    code += "; from returnn.log import log; from returnn.datasets.hdf import SimpleHDFWriter"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "Dim{'static3'(3)}\n"
