"""What configs import from `returnn.util`, `TFUtil` and `returnn` itself."""

import pytest

from returnn_lite.compat.config_imports import config_imports
from returnn_lite.version import __version__


def names(text):
    """The globals after executing config text."""
    found = {}
    with config_imports():
        exec(text, found)
    return found


def test_who_and_which_version():
    found = names("""
import returnn
from returnn.util.basic import get_login_username, get_hostname, describe_returnn_version, describe_torch_version, cf
from TFUtil import tf_version_tuple, is_gpu_available
values = [get_login_username(), get_hostname(), describe_torch_version()]
version, tf_version, gpu, file = describe_returnn_version(), tf_version_tuple(), is_gpu_available(), cf("a/b.hdf")
own = returnn.__version__, returnn.__long_version__, returnn.__root_dir__
""")
    assert all(isinstance(value, str) and value for value in found["values"])
    assert found["version"] == f"returnn_lite {__version__}" and found["own"][:2] == (__version__, found["version"])
    assert found["tf_version"] == (1, 15, 0) and isinstance(found["gpu"], bool) and found["file"] == "a/b.hdf"


def test_a_user_without_a_name(monkeypatch):
    def unknown():
        raise KeyError("uid not found: 5000")

    monkeypatch.setattr("getpass.getuser", unknown)
    assert names("from Util import get_login_username\nname = get_login_username()")["name"] == "unknown"


def test_small_functions():
    found = names("""
from returnn.util.basic import try_run, uniq, dict_joined, hms, better_repr, NumbersDict
from returnn.util.math import ceil_div, next_power_of_two, PiecewiseLinear
results = [
    try_run(int, ("7",)), try_run(int, ("x",), default=-1), uniq([1, 1, 2, 1]), dict_joined({1: 2, 3: 4}, {1: 5}),
    hms(3661), better_repr([1]), ceil_div(7, 3), [next_power_of_two(n) for n in (0, 1, 2, 3, 9)],
    PiecewiseLinear({0: 1.0, 10: 3.0})(5), (NumbersDict({"a": 3}) * 2)["a"] == 6,
]
""")
    assert found["results"] == [
        7, -1, [1, 2, 1], {1: 5, 3: 4}, "1:01:01", "[1]", 3, [1, 1, 2, 4, 16], 2.0, True,
    ]  # fmt: skip


def test_modules_and_names_that_are_not_there():
    with pytest.raises(ModuleNotFoundError, match=r'No module named .returnn.util.basics. here; did you mean "returnn'):
        names("import returnn.util.basics")
    assert names("try:\n    import returnn.nothing\nexcept ImportError:\n    old = True")["old"]
    found = names("import TFEngine, returnn.tf.engine, returnn.TFEngine as third\nfrom TFEngine import Engine")
    assert found["TFEngine"] is found["returnn"].tf.engine is found["third"]
    with pytest.raises(NotImplementedError, match="returnn.tf.engine.Engine: not supported"):
        found["Engine"]()


def test_gradients():
    found = names("""
import torch
from returnn.torch.util.scaled_gradient import scaled_gradient
x = torch.ones(2, requires_grad=True)
(scaled_gradient(x, 0.5) * 3).sum().backward()
""")
    assert found["x"].grad.tolist() == [1.5, 1.5]
