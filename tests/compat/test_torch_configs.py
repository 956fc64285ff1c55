"""Configs with a model written in torch import names from elsewhere."""

import subprocess
import sys

import h5py
import pytest
import torch

from returnn_lite.compat.config_imports import config_imports
from returnn_lite.frontend import RunContext
from tests.engine.helpers import ROOT, rnn

CONFIG = f"""#!rnn.py
import sys
import torch
import returnn.frontend as rf
from returnn.tensor import Tensor, Dim, batch_dim, TensorDict
from returnn.forward_iface import ForwardCallbackIface

sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tests.engine.torch_models import options, Net

globals().update(options(Path("out"), num_epochs=2, eval=options(Path("out"))["dev"]))

time_dim = Dim(None, name="time")
feature_dim = Dim(4, name="features")
class_dim = Dim(4, name="classes")
extern_data = {{
    "data": {{"dims": [batch_dim, time_dim, feature_dim], "dtype": "float32"}},
    "classes": {{"dims": [batch_dim, time_dim], "sparse_dim": class_dim, "dtype": "int32"}},
}}
model_outputs = {{"output": {{"dims": [batch_dim, time_dim, class_dim], "dtype": "float32"}}}}


def get_model(*, epoch: int, step: int, **kwargs) -> torch.nn.Module:
    return Net()


def train_step(*, model: torch.nn.Module, extern_data: TensorDict, **kwargs):
    data: Tensor = extern_data["data"]
    assert isinstance(data, Tensor) and data.dims[1] is time_dim and data.dims[0] == batch_dim
    lengths = data.dims[1].dyn_size_ext.raw_tensor
    log_probs = model(data.raw_tensor)
    classes = extern_data["classes"].raw_tensor.long()
    loss = torch.nn.functional.nll_loss(log_probs.transpose(1, 2), classes, reduction="none")
    mask = torch.arange(classes.shape[1])[None] < lengths[:, None]
    frames = rf.convert_to_tensor(lengths.sum(), dims=[])
    rf.get_run_ctx().mark_as_loss((loss * mask).sum(), "ce", custom_inv_norm_factor=frames)


def forward_step(*, model, extern_data, **kwargs):
    rf.get_run_ctx().mark_as_default_output(model(extern_data["data"].raw_tensor))


class Callback(ForwardCallbackIface):
    def init(self, *, model):
        self.file = open("found.txt", "w")

    def process_seq(self, *, seq_tag: str, outputs: TensorDict):
        print(seq_tag, *outputs["output"].raw_tensor.argmax(-1), file=self.file)

    def finish(self):
        self.file.close()


if config.value("callback", ""):
    forward_callback = Callback
"""


def test_a_config_with_these_imports_trains_and_forwards(tmp_path):
    (tmp_path / "config").write_text(CONFIG)
    for arguments in ((), ("++task", "forward", "++output_file", "x.hdf"), ("++task", "forward", "++callback", "1")):
        done = rnn("config", *arguments, folder=tmp_path)
        assert done.returncode == 0, done.stderr
    with h5py.File(tmp_path / "x.hdf") as file:
        best = file["inputs"][:].argmax(1).tolist()
    rows = [line.split() for line in (tmp_path / "found.txt").read_text().splitlines()]
    assert len(rows) == 6 and [int(value) for row in rows for value in row[1:]] == best


def test_names_of_several_modules():
    with config_imports():
        found: dict = {}
        exec(
            """
from returnn.frontend import get_run_ctx, RunCtx
from returnn.frontend.run_ctx import get_run_ctx as second
from returnn.torch.context import get_run_ctx as third
from returnn.tensor.dim import Dim, batch_dim
from returnn.tensor.tensor_dict import TensorDict
from returnn.tensor import Tensor
import returnn.frontend as rf
template = Tensor("x", shape=(None, 5))
""",
            found,
        )
        assert found["get_run_ctx"] is found["second"] is found["third"] and found["RunCtx"] is RunContext
        lengths = torch.tensor([3, 2])
        time = found["Dim"](found["Tensor"]("lengths", [found["batch_dim"]], raw_tensor=lengths), name="time")
        assert time.dynamic and time.dyn_size is lengths and time.get_dim_value() == 3
        assert isinstance(found["template"], found["Tensor"]) and found["template"].out_type["shape"] == (None, 5)
        with pytest.raises(AttributeError, match='rf.gathr does not exist; did you mean "gather"'):
            found["rf"].gathr(4, 5)
        assert "returnn.frontend" in sys.modules and found["rf"] is sys.modules["returnn_lite.frontend"]
    assert not [name for name in sys.modules if name == "returnn" or name.startswith("returnn.")]


def test_reading_such_a_config_leaves_the_rest_alone():
    code = "import returnn_lite.compat.config_imports, sys; print('returnn_lite.frontend' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


TEXTS = """#!rnn.py
import numpy
import torch
import returnn.frontend as rf
from returnn.forward_iface import ForwardCallbackIface

backend = "torch"
behavior_version = 21
seqs = [
    {
        "data": numpy.full((n, 2), n, "float32"),
        "classes": numpy.arange(n, dtype="int32") % 3,
        "raw": numpy.array("text %i" % n),
    }
    for n in (2, 4)
]
forward_data = {"class": "StaticDataset", "data": seqs, "output_dim": {"classes": (3, 1)}}
extern_data = {
    "data": {"dim": 2},
    "classes": {"dim": 3, "sparse": True, "vocab": {"labels": ["a", "b", "</s>"], "eos_label": 2}},
    "raw": {"shape": (), "dtype": "string"},
}
if config.bool("wrong", False):
    extern_data["raw"] = {"dim": 2}
batch_size = 100
allow_random_model_init = True
log_verbosity = 1


def get_model(**_):
    return torch.nn.Linear(2, 2)


def forward_step(*, model, extern_data, **_):
    vocab = extern_data["classes"].vocab
    assert vocab is extern_data["classes"].sparse_dim.vocab and vocab.eos_label_id == 2
    assert extern_data["raw"].raw_tensor.tolist() == ["text 4", "text 2"]
    ctx = rf.get_run_ctx()
    ctx.mark_as_output(extern_data["raw"], "raw")
    ctx.mark_as_output(extern_data["classes"], "classes")
    ctx.mark_as_default_output(model(extern_data["data"].raw_tensor))


class forward_callback(ForwardCallbackIface):
    def process_seq(self, *, seq_tag, outputs):
        raw, classes, output = outputs["raw"], outputs["classes"], outputs["output"]
        text = classes.vocab.get_seq_labels(classes.raw_tensor)
        shapes = [(one.batch_ndim, one.batch_shape) for one in (raw, classes, output)]
        print(seq_tag, raw.raw_tensor, text, *shapes, output.raw_tensor.shape, sep="|")
"""


def test_texts_vocabularies_and_outputs_without_axes(tmp_path):
    (tmp_path / "config").write_text(TEXTS)
    done = rnn("config", "++task", "forward", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("seq-")] == [
        "seq-1|text 4|a b </s> a|(0, ())|(1, (None,))|(2, (4, 2))|(4, 2)",
        "seq-0|text 2|a b|(0, ())|(1, (None,))|(2, (4, 2))|(4, 2)",
    ]
    done = rnn("config", "++task", "forward", "++wrong", "True", folder=tmp_path)
    assert done.stderr.startswith(
        'extern_data["raw"]: the data are texts, so it must be {"shape": (), "dtype": "string"}'
    )
