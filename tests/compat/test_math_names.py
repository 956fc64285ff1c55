"""`returnn.util.math`, and modules below `returnn.frontend`."""

import sys

import pytest

from returnn_lite.compat.config_imports import config_imports
from returnn_lite.compat.modules.math import PiecewiseLinear, StepFunction
from returnn_lite.errors import ConfigError


def test_functions_by_points():
    linear = PiecewiseLinear({0: 1.0, 2: 3.0, 4: 0.0}, kw_name="epoch_continuous", ignore_other_kwargs=True)
    assert [linear(epoch_continuous=x, epoch=1) for x in (-1, 0.5, 3, 9)] == [1.0, 1.5, 1.5, 0.0]
    assert PiecewiseLinear({1: 2.0})(5) == 2.0
    step = StepFunction({0: 1.0, 2: 3.0})
    assert [step(x) for x in (-1, 0.9, 1.1, 7)] == [1.0, 1.0, 3.0, 3.0]
    with pytest.raises(ConfigError, match="epoch_continuous"):
        PiecewiseLinear({1: 2.0}, kw_name="epoch_continuous")(epoch_continuous=1, epoch=1)
    with pytest.raises(ConfigError, match="one point"):
        StepFunction({})


def test_modules_below_the_frontend_are_loaded_once():
    with config_imports():
        from returnn.frontend.encoder.conformer import ConformerEncoder
        from returnn.util.math import PiecewiseLinear as Linear

        assert Linear is PiecewiseLinear
        assert sys.modules["returnn.frontend.encoder"] is sys.modules["returnn_lite.frontend.encoder"]
        from returnn_lite.frontend.encoder import conformer

        assert conformer.ConformerEncoder is ConformerEncoder
