"""The module names that configs import exist while a config is executed, and only then."""

import sys

import pytest

from returnn_lite.compat.config_imports import config_imports
from returnn_lite.tensor import Dim, batch_dim


def names(text):
    """The globals after executing config text."""
    found = {}
    exec(text, found)
    return found


def test_dims_of_all_years():
    with config_imports():
        found = names("""
from returnn.tensor import Dim, batch_dim
from returnn.tf.util.data import DimensionTag, SpatialDim, FeatureDim, single_step_dim
time = DimensionTag(kind=DimensionTag.Types.Spatial, description="time")
heads = Dim(5, name="heads")
old = Dim(kind=Dim.Types.Feature, description="old", dimension=3)
out = SpatialDim("out")
feature = FeatureDim("feature", 7)
longer = 2 * time + 1
""")
    assert found["batch_dim"] is batch_dim
    assert found["time"].dynamic and found["time"].description == "time"
    assert found["heads"].dimension == 5 and found["old"].kind == "feature" and found["feature"].size == 7
    made = ("time", "heads", "old", "out", "feature", "longer", "single_step_dim")
    assert all(isinstance(found[name], Dim) for name in made)
    assert found["out"] != found["time"] and found["longer"].dynamic


def test_old_and_new_names_are_one_module():
    with config_imports():
        found = names("import TFUtil, returnn.tf.util.basic as new, returnn.TFUtil as old\nfrom TFUtil import where_bc")
    assert found["TFUtil"] is found["new"] is found["old"]


def test_the_names_are_gone_afterwards():
    with config_imports():
        names("import returnn.tensor, TFUtil")
    assert not [m for m in sys.modules if m in ("returnn", "TFUtil") or m.startswith("returnn.")]
    with pytest.raises(ModuleNotFoundError):
        names("import TFUtil")


def test_unknown_names_are_told():
    with config_imports(), pytest.raises(NotImplementedError, match='returnn.tensor.Dimm: .*did you mean "Dim"'):
        names("from returnn.tensor import Dimm\nclass Mine(Dimm): pass\nMine()")
    with config_imports(), pytest.raises(AttributeError, match='"reduce_sum"'):
        names("import tensorflow as tf\nf = lambda: tf.reduce_summ\nf()")


def test_an_installed_module_wins(tmp_path, monkeypatch):
    (tmp_path / "TFUtil.py").write_text("mine = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with config_imports():
        assert names("import TFUtil")["TFUtil"].mine == 1
    sys.modules.pop("TFUtil", None)
