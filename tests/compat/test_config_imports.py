"""The module names that configs import exist while a config is executed, and only then."""

import site
import subprocess
import sys

import pytest
import torch

import returnn_lite.catalog  # noqa: F401
from returnn_lite.compat.config_imports import config_imports
from returnn_lite.config import Config
from returnn_lite.errors import ConfigError
from returnn_lite.frontend import Dim
from returnn_lite.layers.core.registry import _LAYERS
from returnn_lite.network import Network
from returnn_lite.tensor import Dim as CoreDim
from returnn_lite.tensor import batch_dim


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
    assert found["batch_dim"] == batch_dim and found["batch_dim"].core is batch_dim
    assert found["time"].dynamic and found["time"].description == "time"
    assert found["heads"].dimension == 5 and found["old"].kind == "feature" and found["feature"].size == 7
    made = ("time", "heads", "old", "out", "feature", "longer", "single_step_dim")
    assert all(isinstance(found[name], Dim) and isinstance(found[name].core, CoreDim) for name in made)
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


@pytest.mark.parametrize("first", ["package", "config"])
def test_an_installed_tensorflow_is_that_of_packages_alone(tmp_path, monkeypatch, first):
    """Whoever imports it first: packages get the real one, configs the stand-in."""
    (tmp_path / "tensorflow.py").write_text("installed = True\n")
    (tmp_path / "user_of_tf.py").write_text(
        "import tensorflow\ndef again():\n    import tensorflow as tf\n    return tf\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(tmp_path)])
    config = "import tensorflow as tf\nfrom tensorflow.compat.v1 import where\nx = tf.shape([1, 2])\n"
    with config_imports():
        steps = [lambda: names(config), lambda: names("import user_of_tf")]
        made = [step() for step in (steps if first == "config" else reversed(steps))]
        found = {**made[0], **made[1]}
        assert found["tf"].__name__ == "tensorflow" and not hasattr(found["tf"], "installed")
        assert found["user_of_tf"].tensorflow.installed and found["user_of_tf"].again().installed
        assert sys.modules["tensorflow"].installed
    for name in ("tensorflow", "user_of_tf"):
        sys.modules.pop(name)


def test_packages_do_not_find_a_tensorflow_that_is_not_installed(tmp_path, monkeypatch):
    (tmp_path / "asks_for_tf.py").write_text(
        "try:\n    import tensorflow\nexcept ImportError:\n    tensorflow = None\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(tmp_path)])
    with config_imports():
        names("import tensorflow")
        assert names("import asks_for_tf")["asks_for_tf"].tensorflow is None
    sys.modules.pop("asks_for_tf")


def test_tensorflow_is_one_module_under_its_many_names():
    with config_imports():
        found = names("""
import tensorflow as tf
import tensorflow.compat.v1 as old
from tensorflow.compat import v2
from returnn.tf.compat import v1
import tensorflow.python.ops
x = tf.reduce_sum(tf.constant([1., 2.])) + old.log(v1.ones(())) + v2.math.log(1.)
""")
    assert float(found["x"]) == 3.0
    assert "tensorflow" not in sys.modules


def test_all_names_of_published_configs():
    with config_imports():
        names("""
from Pretrain import WrapEpochValue
from TFUtil import where_bc, Data, DimensionTag, tile_transposed, nd_indices, OpCodeCompiler, get_shared_vocab
from TFUtil import get_rnnt_linear_aligned_output, dense_image_warp, create_random_warp_flow_2d, get_shape, dropout
from TFUtil import get_initializer, flatten_with_seq_len_mask, check_input_dim, get_shape_dim, dot, to_int32_64
from TFUtil import matrix_triangular
from GeneratingDataset import Vocabulary
from Util import cleanup_env_var_path, generic_import_module, PY3, py2_utf8_str_to_unicode, NumbersDict
from LmDataset import Lexicon
from TFNetworkLayer import SelectSearchSourcesLayer, auto_register_layer_classes, _ConcatInputLayer, LayerBase, Loss
from TFNetworkRecLayer import RecSeqCellOp
from TFNetwork import CannotHandleUndefinedSourcesException, TFNetwork, ExternData, LayerNotFound
from TFHorovod import get_ctx
from returnn.extern.HawkAaronWarpTransducer import rnnt_loss
from extern.HawkAaronWarpTransducer import rnnt_loss as old
from returnn.import_ import import_
from returnn.config import Config, get_global_config
from returnn.log import log
import better_exchook, TFEngine, returnn.TFUtil, tensorflow.contrib
better_exchook.install()
assert get_ctx() is None and old is rnnt_loss
""")


def test_what_cannot_be_used_can_be_imported():
    with config_imports(), pytest.raises(NotImplementedError, match="<string>:3: import_: needs to download code"):
        names("\nfrom returnn.import_ import import_\nimport_('repo', 'path')")
    with config_imports():
        found = names("""
from TFNetworkLayer import _ConcatInputLayer, register_layer_class
@register_layer_class
class Odd(_ConcatInputLayer):
    layer_class = "odd_of_a_config"
""")
        assert found["Odd"].__name__ == "Odd"
        with pytest.raises(ConfigError, match="'odd_of_a_config' is defined in the config by means of the TF graph"):
            Network(Config({"extern_data": {"data": {"dim": 2}}}), {"output": {"class": "odd_of_a_config"}})
    _LAYERS.pop("odd_of_a_config")


def test_the_running_config():
    config = Config({"answer": 42})
    with config_imports(config):
        assert names("from Config import get_global_config\nx = get_global_config().int('answer', 0)")["x"] == 42
    with config_imports(), pytest.raises(RuntimeError, match="no config"):
        names("from Config import get_global_config\nget_global_config()")


def test_commands_of_clusters():
    real = subprocess.check_output
    with config_imports():
        found = names("""
from subprocess import check_output
old = check_output(["cf", "a/file"]).strip()
new = check_output(["cf", "a/file"]).decode("utf8").strip()
host = check_output(["hostname"]).strip()
""")
        assert found["old"] == found["new"] == "a/file" and found["host"]
        with pytest.raises(FileNotFoundError):
            names("import subprocess\nsubprocess.check_output(['no-such-program'])")
    assert subprocess.check_output is real


def test_numbers_by_key():
    with config_imports():
        numbers = names("from Util import NumbersDict")["NumbersDict"]
    total = numbers({"data": 3, "classes": 1}) + numbers({"data": 2})
    assert total == {"data": 5, "classes": 1} and (numbers(2) * total)["data"] == 10 and numbers(7)["any"] == 7
    assert numbers.constant_like(1, total) == {"data": 1, "classes": 1} and total.max_value() == 5


def test_rnnt_loss_sums_over_all_paths():
    with config_imports():
        rnnt_loss = names("from returnn.extern.HawkAaronWarpTransducer import rnnt_loss")["rnnt_loss"]
    acts = torch.zeros(1, 3, 2, 4)  # every step has probability 1/4: three places for the label, 3 blanks
    loss = rnnt_loss(acts, torch.tensor([[1]]), torch.tensor([3]), torch.tensor([1]))
    assert torch.allclose(loss, -torch.log(torch.tensor([3 * 0.25**4])))


def test_equal_hypotheses_are_joined():
    with config_imports():
        module = names("from TFUtil import OpCodeCompiler")["OpCodeCompiler"](base_name="GetFilteredScore")
        op = module.load_tf_module().get_filtered_score
        with pytest.raises(NotImplementedError, match="C\\+\\+"):
            names("from TFUtil import OpCodeCompiler\nOpCodeCompiler(base_name='Other').load_tf_module()")
    scores = torch.tensor([[-1.0, -2.0, -3.0]])
    joined = op([["a", "b", "a"]], scores, None)
    assert (
        torch.allclose(joined[0, :2], torch.tensor([scores[0, ::2].logsumexp(0), -2.0])) and joined[0, 2] == -torch.inf
    )


def test_data_tell_their_axes():
    with config_imports():
        from TFUtil import Data
    dense, labels, vector = Data("a", shape=(None, 3)), Data("b", sparse=True, dim=5), Data("c", shape=())
    assert dense.batch_shape == (None, None, 3) and dense.dim == 3 and dense.time_dim_axis == 1
    assert dense.feature_dim_axis == 2 and dense.is_batch_major and dense.copy_as_time_major().batch_dim_axis == 1
    assert labels.batch_shape == (None, None) and labels.dim == 5 and not labels.have_feature_axis()
    assert vector.batch_ndim == 1 and not vector.have_time_axis()
    with pytest.raises(AttributeError, match="no attribute 'tmie_dim_axis'"):
        dense.tmie_dim_axis  # noqa: B018
