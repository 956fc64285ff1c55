"""What the engine says of a model that `get_model` returns."""

from returnn_lite import frontend as rf
from tests.engine import rf_models, torch_models
from tests.engine.helpers import run


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
