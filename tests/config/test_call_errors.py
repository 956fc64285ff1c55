"""Wrong arguments of calls in a config: one line with the names that there are."""

import re

import pytest
import torch

from returnn_lite import frontend as rf
from returnn_lite.config.config_code import code_errors
from returnn_lite.errors import ConfigError

LAYER = rf.Linear(rf.Dim(2, name="F"), rf.Dim(3, name="G"))
OPTIONS = {"eps": 1}


def scaled(x, factor=2, *, shift=0):
    return x * factor + shift


class Scaled:
    def __call__(self, x, *, factor):
        return x * factor


def misspelled_import():
    from returnn_lite.frontend import Lineaar  # noqa: F401


CALLS = [
    (
        lambda: rf.LayerNorm(LAYER.in_dim, epsilon=1),
        'LayerNorm() got an unexpected keyword argument .epsilon.; did you mean "eps"?',
    ),
    (lambda: scaled(1, shfit=2), 'scaled() got an unexpected keyword argument .shfit.; did you mean "shift"?'),
    (lambda: scaled(1, zzz=2), "scaled() got an unexpected keyword argument .zzz.; known: x, factor, shift"),
    (
        lambda: rf.RMSNorm(LAYER.in_dim, **{"esp": 1}),
        'RMSNorm() got an unexpected keyword argument .esp.; did you mean "eps"?',
    ),
    (
        lambda: scaled(1, 2, 3),
        "scaled() takes from 1 to 2 positional arguments but 3 were given; these must be given by name: shift",
    ),
    (
        lambda: rf.Conv1d(LAYER.in_dim, LAYER.out_dim, 3, padding="same")(1),
        r"TypeError: OverOneAxis.__call__() missing",
    ),
    (lambda: Scaled()(1), "Scaled.__call__() missing 1 required keyword-only argument: .factor."),
    (lambda: LAYER(1, 2), "Linear.__call__() takes 2 positional arguments but 3 were given"),
    (
        lambda: torch.softmax(rf.zeros([LAYER.in_dim]), 0),
        "must be Tensor, not Tensor; a torch function needs the `raw_tensor`",
    ),
    (lambda: LAYER.wieght, "'Linear' object has no attribute 'wieght'; did you mean \"weight\"?"),
    (misspelled_import, "cannot import name 'Lineaar' from 'returnn.frontend'; did you mean \"Linear\"?"),
    (lambda: sclaed(1), "name 'sclaed' is not defined; did you mean \"scaled\"?"),  # noqa: F821
    (lambda: len(3), "object of type 'int' has no len()"),
]


@pytest.mark.parametrize("call, text", CALLS, ids=[text for _, text in CALLS])
def test_one_line_with_the_names(call, text):
    with pytest.raises(ConfigError) as caught, code_errors():
        call()
    pattern = text.replace("(", r"\(").replace(")", r"\)").replace("?", r"\?")
    assert re.search(pattern, str(caught.value)) and "\n" not in str(caught.value), str(caught.value)


def test_code_without_source():
    namespace = {"scaled": scaled}
    with (
        pytest.raises(ConfigError, match="TypeError: scaled.. got an unexpected keyword argument 'shfit'"),
        code_errors(),
    ):
        exec(compile("scaled(1, shfit=2)", "no.config", "exec"), namespace)  # noqa: S102
