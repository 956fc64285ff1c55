"""The names of the modules that configs import, old and new ones, and what gives the names in them."""

from __future__ import annotations

ROOM = "returnn_lite.compat.modules."
# module name -> what gives the names in it; imported when a config imports the module, since most bring torch
MODULES: dict[str, str] = {
    "better_exchook": "util:exchook",
    "returnn": "util:package",
    "returnn.config": "client:config_names",
    "returnn.datasets.util": "",
    "returnn.datasets.util.vocabulary": "vocabularies:names",
    "returnn.extern": "",
    "returnn.extern.HawkAaronWarpTransducer": "tensors:transducer_names",
    "returnn.forward_iface": "frontend:callback_names",
    "returnn.import_": "parts:downloads",
    "returnn.log": "client:log_names",
    "returnn.pretrain": "util:pretrain",
    "returnn.tensor": "frontend:tensor_names",
    "returnn.tensor.dim": "frontend:dim_names",
    "returnn.tensor.marked_dim": "frontend:marked_dim_names",
    "returnn.tensor.tensor": "frontend:tensor_names",
    "returnn.tensor.tensor_dict": "frontend:tensor_names",
    "returnn.tensor.utils": "frontend:util_names",
    "returnn.tf": "",
    "returnn.tf.compat": "tensors:tf_compat",
    "returnn.tf.horovod": "parts:horovod",
    "returnn.tf.layers": "",
    "returnn.tf.layers.basic": "parts:layers",
    "returnn.tf.layers.rec": "parts:layers",
    "returnn.tf.network": "parts:network",
    "returnn.tf.util": "",
    "returnn.tf.util.basic": "tensors:helpers",
    "returnn.tf.util.data": "tensors:data_names",
    "returnn.torch": "",
    "returnn.torch.context": "frontend:context_names",
    "returnn.torch.data": "",
    "returnn.torch.frontend": "",
    "returnn.torch.optim": "",
    "returnn.torch.optim.lion": "frontend:lion_names",
    "returnn.torch.util": "",
    "returnn.torch.util.scaled_gradient": "frontend:gradient_names",
    "returnn.torch.frontend.bridge": "frontend:bridge_names",
    "returnn.torch.data.tensor_utils": "frontend:torch_data_names",
    "returnn.util": "util:top",
    "returnn.util.basic": "util:names",
    "returnn.util.better_exchook": "util:exchook",
    "returnn.util.math": "math:names",
}
# any class of a dataset may be asked of any of these
_DATASETS = """
    audio basic bundle_file cached cached2 distrib_files generating hdf huggingface lm map meta multi_proc
    normalization_data numpy_dump postprocessing raw_wav sprint stereo text_dict variable
""".split()
MODULES |= dict.fromkeys(["returnn.datasets", *(f"returnn.datasets.{name}" for name in _DATASETS)], "datasets:names")
# what some config imports, though it uses nothing of them that could be had here: each name is refused at its use
_EMPTY = """
    engine engine.base engine.batch learning_rate_control native_op sprint sprint.error_signals sprint.interface
    tf.data_pipeline tf.distributed tf.engine tf.layers.segmental_model tf.layers.signal_processing tf.native_op
    tf.sprint tf.updater tf.util.ken_lm torch.engine torch.updater util.debug util.file_cache util.fsa
    util.hyper_param_tuning util.task_system
""".split()
MODULES |= dict.fromkeys([f"returnn.{name}" for name in _EMPTY], "")
# old flat name -> the name of the same module today; each is also importable from the package
_FLAT = {
    "BundleFile": "returnn.datasets.bundle_file",
    "CachedDataset": "returnn.datasets.cached",
    "CachedDataset2": "returnn.datasets.cached2",
    "Config": "returnn.config",
    "Dataset": "returnn.datasets.basic",
    "Debug": "returnn.util.debug",
    "EngineBase": "returnn.engine.base",
    "EngineBatch": "returnn.engine.batch",
    "Fsa": "returnn.util.fsa",
    "GeneratingDataset": "returnn.datasets.generating",
    "HDFDataset": "returnn.datasets.hdf",
    "HyperParamTuning": "returnn.util.hyper_param_tuning",
    "LearningRateControl": "returnn.learning_rate_control",
    "LmDataset": "returnn.datasets.lm",
    "Log": "returnn.log",
    "MetaDataset": "returnn.datasets.meta",
    "NativeOp": "returnn.native_op",
    "NormalizationData": "returnn.datasets.normalization_data",
    "NumpyDumpDataset": "returnn.datasets.numpy_dump",
    "Pretrain": "returnn.pretrain",
    "RawWavDataset": "returnn.datasets.raw_wav",
    "SprintDataset": "returnn.datasets.sprint",
    "SprintErrorSignals": "returnn.sprint.error_signals",
    "SprintInterface": "returnn.sprint.interface",
    "StereoDataset": "returnn.datasets.stereo",
    "TFCompat": "returnn.tf.compat",
    "TFDataPipeline": "returnn.tf.data_pipeline",
    "TFDistributed": "returnn.tf.distributed",
    "TFEngine": "returnn.tf.engine",
    "TFHorovod": "returnn.tf.horovod",
    "TFKenLM": "returnn.tf.util.ken_lm",
    "TFNativeOp": "returnn.tf.native_op",
    "TFNetwork": "returnn.tf.network",
    "TFNetworkLayer": "returnn.tf.layers.basic",
    "TFNetworkRecLayer": "returnn.tf.layers.rec",
    "TFNetworkSegModLayer": "returnn.tf.layers.segmental_model",
    "TFNetworkSigProcLayer": "returnn.tf.layers.signal_processing",
    "TFSprint": "returnn.tf.sprint",
    "TFUpdater": "returnn.tf.updater",
    "TFUtil": "returnn.tf.util.basic",
    "TaskSystem": "returnn.util.task_system",
    "Util": "returnn.util.basic",
}
OLD_NAMES = {
    **_FLAT,
    **{f"returnn.{old}": new for old, new in _FLAT.items()},
    "extern": "returnn.extern",
    "extern.HawkAaronWarpTransducer": "returnn.extern.HawkAaronWarpTransducer",
}
TF = "tensorflow"
# packages whose modules are modules of ours, under the same names below
OURS = {"returnn.frontend": "returnn_lite.frontend"}
