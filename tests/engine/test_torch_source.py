"""What the engine says of a model that `get_model` returns."""

import numpy as np
import pytest

from returnn_lite import frontend as rf
from returnn_lite.errors import ConfigError
from tests.engine import rf_models, torch_models
from tests.engine.helpers import dataset, run


class Listed(rf_models.Net):
    """A net with modules where nobody looks for them, one of them an attribute, too."""

    def __init__(self):
        super().__init__()
        hidden = rf.Dim(3, name="hidden")
        self.kept = rf.Linear(hidden, hidden)
        self.again = [self.kept]
        self.more = {"a": rf.Linear(hidden, hidden)}
        self.layers.scales = (rf.Parameter([hidden]), 3)


def warnings_of(tmp_path, **changes):
    made = {"extern_data": rf_models.EXTERN, "train_step": rf_models.train_step, "num_epochs": 1, **changes}
    return [line for line in run(torch_models.options(tmp_path, **made)) if line.startswith("warning: get_model")]


def test_modules_in_lists_are_reported(tmp_path):
    places = [line.split()[3] for line in warnings_of(tmp_path, get_model=lambda **_: Listed())]
    assert places == ["more", "layers.scales"]
    assert not warnings_of(tmp_path / "plain", get_model=rf_models.get_model)


def test_an_axis_of_sequences_of_ones_own(tmp_path):
    batch, time, more = rf.Dim(None, name="seqs"), rf.Dim(None, name="time"), rf.Dim(rf.convert_to_tensor(2), name="n")
    found = {}

    def forward_step(*, model, extern_data, **_):
        log_probs = model(extern_data["data"])
        log_probs.mark_as_output("log_probs", shape=[time, batch, rf_models.class_dim])
        sums = rf.reduce_sum(rf.exp(log_probs), axis=[rf_models.class_dim, time])
        rf.expand_dim(sums, more).mark_as_output("sums", shape=[more, batch])

    class Callback:
        def init(self, *, model):
            pass

        def process_seq(self, *, seq_tag, outputs):
            found[seq_tag] = {key: value.raw_tensor for key, value in outputs.items()}

        def finish(self):
            pass

    extern = {
        "data": {"dims": [batch, time, rf_models.feature_dim], "dtype": "float32"},
        "classes": {"dims": [batch, time], "sparse_dim": rf_models.class_dim, "dtype": "int32"},
    }
    changes = {
        "task": "forward",
        "extern_data": extern,
        "get_model": rf_models.get_model,
        "forward_data": dataset(3, 1),
    }
    changes |= {"forward_step": forward_step, "forward_callback": Callback, "allow_random_model_init": True}
    run(torch_models.options(tmp_path, **changes))
    assert sorted(found) == ["seq-0", "seq-1", "seq-2"]
    for outputs in found.values():
        length = len(outputs["log_probs"])
        assert outputs["log_probs"].shape == (length, 4) and outputs["sums"].shape == (2,)
        np.testing.assert_allclose(outputs["sums"], length, rtol=1e-5)


class Old:
    """A callback that takes other arguments."""

    init = finish = lambda self, **_: None

    def process_seq(self, tag, outputs):
        pass


DIMS = {"dims": [rf.batch_dim, rf.Dim(None, name="time"), rf.Dim(4, name="classes")], "dtype": "float32"}
WRONG_FORWARD = {
    "an output is missing": (
        {"model_outputs": {"log_probs": DIMS, "other": DIMS}},
        "forward_step: must mark the outputs 'other' that `model_outputs` declares",
    ),
    "other arguments": (
        {"forward_callback": Old},
        "forward_callback.process_seq: must be a function that takes seq_tag, outputs, but: ",
    ),
}


@pytest.mark.parametrize("changes, pattern", WRONG_FORWARD.values(), ids=WRONG_FORWARD)
def test_wrong_forward(tmp_path, changes, pattern):
    made = {"task": "forward", "forward_data": dataset(3, 1), "allow_random_model_init": True, **changes}
    with pytest.raises(ConfigError, match=pattern):
        run(torch_models.options(tmp_path, **made))
