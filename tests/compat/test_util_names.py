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
    with pytest.raises(ModuleNotFoundError, match="import what is in it from returnn.frontend$"):
        names("from returnn.frontend.array_ import gather")
    with pytest.raises(ModuleNotFoundError, match='did you mean "returnn.frontend.encoder.conformer"'):
        names("from returnn.frontend.encoder.confromer import ConformerEncoder")
    with pytest.raises(ModuleNotFoundError, match="model files are the engine's"):
        names("import returnn.frontend.checkpoint")
    assert names("try:\n    import returnn.nothing\nexcept ImportError:\n    old = True")["old"]
    found = names("import TFEngine, returnn.tf.engine, returnn.TFEngine as third\nfrom TFEngine import Engine")
    assert found["TFEngine"] is found["returnn"].tf.engine is found["third"]
    with pytest.raises(NotImplementedError, match="returnn.tf.engine.Engine: not supported"):
        found["Engine"]()


PUBLISHED = {
    "TFUtil": """where_bc Data DimensionTag tile_transposed nd_indices OpCodeCompiler get_shared_vocab get_shape dropout
        get_rnnt_linear_aligned_output dense_image_warp create_random_warp_flow_2d get_initializer check_input_dim dot
        flatten_with_seq_len_mask get_shape_dim to_int32_64 matrix_triangular safe_log safe_exp filter_ended_scores""",
    "Util": "cleanup_env_var_path generic_import_module PY3 py2_utf8_str_to_unicode NumbersDict",
    "GeneratingDataset": "Vocabulary", "LmDataset": "Lexicon", "Pretrain": "WrapEpochValue", "TFCompat": "v1 v2",
    "TFNetworkLayer": "SelectSearchSourcesLayer auto_register_layer_classes _ConcatInputLayer register_layer_class",
    "TFNetwork": "CannotHandleUndefinedSourcesException TFNetwork ExternData LayerNotFound", "TFHorovod": "get_ctx",
    "returnn.extern.HawkAaronWarpTransducer": "rnnt_loss", "Log": "log", "returnn.config": "Config get_global_config",
}  # fmt: skip
OLD = """
    BundleFile CachedDataset CachedDataset2 Config Dataset Debug EngineBase EngineBatch Fsa HDFDataset
    HyperParamTuning LearningRateControl Log MetaDataset NativeOp NormalizationData NumpyDumpDataset
    RawWavDataset SprintDataset TFUpdater SprintInterface SprintErrorSignals StereoDataset TaskSystem
    TFDataPipeline TFDistributed TFEngine TFKenLM TFNativeOp TFNetworkRecLayer TFNetworkSegModLayer
    TFNetworkSigProcLayer TFSprint
"""


@pytest.mark.parametrize("module", [*PUBLISHED, *OLD.split()])
def test_what_published_configs_import_can_be_imported(module):
    wanted = ", ".join(PUBLISHED.get(module, "").split())
    names(f"import {module}, returnn.{module}\n" if "." not in module else f"import {module}\n")
    if wanted:
        names(f"from {module} import {wanted}")


def test_downloaded_packages_are_refused():
    with pytest.raises(ModuleNotFoundError, match="'returnn_import': it would be downloaded, which is not supported"):
        names("import returnn_import.github_com")


def test_gradients():
    found = names("""
import torch
from returnn.torch.util.scaled_gradient import scaled_gradient
x = torch.ones(2, requires_grad=True)
(scaled_gradient(x, 0.5) * 3).sum().backward()
""")
    assert found["x"].grad.tolist() == [1.5, 1.5]
