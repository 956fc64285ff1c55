"""The module names that configs import: resolvable while a `config_imports()` is open, and only then."""

from __future__ import annotations

import importlib
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from returnn_lite.compat.modules.commands import stand_in_commands
from returnn_lite.compat.refusals import unknown
from returnn_lite.compat.running import RUNNING

_MODULES = "returnn_lite.compat.modules."
# module name -> what gives the names in it; imported when a config imports the module, since most bring torch
MODULES: dict[str, str] = {
    "better_exchook": "util:exchook",
    "returnn": "",
    "returnn.config": "client:config_names",
    "returnn.datasets": "client:dataset_names",
    "returnn.datasets.generating": "parts:vocabularies",
    "returnn.datasets.hdf": "client:hdf_names",
    "returnn.datasets.lm": "parts:lm_dataset",
    "returnn.datasets.util": "",
    "returnn.datasets.util.vocabulary": "parts:vocabularies",
    "returnn.extern": "",
    "returnn.extern.HawkAaronWarpTransducer": "tensors:transducer_names",
    "returnn.forward_iface": "frontend:callback_names",
    "returnn.frontend": "frontend:names",
    "returnn.frontend.run_ctx": "frontend:context_names",
    "returnn.import_": "parts:downloads",
    "returnn.log": "client:log_names",
    "returnn.pretrain": "util:pretrain",
    "returnn.tensor": "frontend:tensor_names",
    "returnn.tensor.dim": "frontend:tensor_names",
    "returnn.tensor.tensor": "frontend:tensor_names",
    "returnn.tensor.tensor_dict": "frontend:tensor_names",
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
    "returnn.util": "",
    "returnn.util.basic": "util:names",
    "returnn.util.better_exchook": "util:exchook",
    # tensorboard asks for this before it tries TensorFlow, which it must not take from here
    "tensorboard.compat.notf": "",
}
# old flat name -> the name of the same module today; each is also importable from the package
_FLAT = {
    "Config": "returnn.config",
    "GeneratingDataset": "returnn.datasets.generating",
    "LmDataset": "returnn.datasets.lm",
    "Log": "returnn.log",
    "Pretrain": "returnn.pretrain",
    "TFCompat": "returnn.tf.compat",
    "TFHorovod": "returnn.tf.horovod",
    "TFNetwork": "returnn.tf.network",
    "TFNetworkLayer": "returnn.tf.layers.basic",
    "TFNetworkRecLayer": "returnn.tf.layers.rec",
    "TFUtil": "returnn.tf.util.basic",
    "Util": "returnn.util.basic",
}
OLD_NAMES = {
    **_FLAT,
    **{f"returnn.{old}": new for old, new in _FLAT.items()},
    "extern": "returnn.extern",
    "extern.HawkAaronWarpTransducer": "returnn.extern.HawkAaronWarpTransducer",
}
# old names that some config imports, though it uses nothing of them
_EMPTY = """
    BundleFile CachedDataset CachedDataset2 Dataset Debug EngineBase EngineBatch Fsa HDFDataset HyperParamTuning
    LearningRateControl MetaDataset NativeOp NormalizationData NumpyDumpDataset RawWavDataset SprintDataset
    SprintErrorSignals SprintInterface StereoDataset TaskSystem TFDataPipeline TFDistributed TFEngine TFKenLM
    TFNativeOp TFNetworkSegModLayer TFNetworkSigProcLayer TFSprint TFUpdater
""".split()
MODULES |= dict.fromkeys([*_EMPTY, *(f"returnn.{name}" for name in _EMPTY)], "")
TF = "tensorflow"


@contextmanager
def config_imports(config: Any = None) -> Iterator[None]:
    """While open, `TFUtil`, `returnn.tensor`, `tensorflow` … are importable.

    An installed package wins over a stand-in, except that code outside installed packages gets the stand-in for
    `tensorflow`: it is handed torch tensors. `config`: what `get_global_config()` gives.
    """
    finder = _Finder()
    first = _TensorFlowFinder(finder)
    sys.meta_path.insert(0, first)
    sys.meta_path.append(finder)
    RUNNING.config = config
    try:
        with stand_in_commands():
            yield
    finally:
        sys.meta_path.remove(first)
        sys.meta_path.remove(finder)
        for name in finder.made:
            sys.modules.pop(name, None)
        RUNNING.config = RUNNING.context = None


def is_known(name: str) -> bool:
    """Whether there is a stand-in for this module."""
    return name in MODULES or name in OLD_NAMES or name == TF or name.startswith((f"{TF}.", "returnn.tf.compat."))


class _Finder(MetaPathFinder, Loader):
    """Makes the modules of `MODULES`; stands last, so it is asked only for what is not installed."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec of a known name."""
        if not is_known(fullname):
            return None
        known = (*MODULES, *OLD_NAMES)
        is_package = fullname.startswith(TF) or any(name.startswith(fullname + ".") for name in known)
        return ModuleSpec(fullname, self, is_package=is_package or fullname in OLD_NAMES)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """An empty module; for an old name the module of today's name."""
        self.made.append(spec.name)
        if spec.name in OLD_NAMES:
            return importlib.import_module(OLD_NAMES[spec.name])
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Puts the names into it."""
        if not isinstance(module, _Module) or module.filled:
            return
        module.filled = True
        found = contents(module.__name__)
        module.source = None if isinstance(found, Mapping) else found
        members = found if isinstance(found, Mapping) else vars(found)
        module.__dict__.update({key: value for key, value in members.items() if not key.startswith("__")})


class _TensorFlowFinder(MetaPathFinder):
    """Stands first, for `tensorflow` alone, where installed packages do not ask."""

    def __init__(self, finder: _Finder) -> None:
        self.finder = finder

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The stand-in's spec."""
        if fullname != TF and not fullname.startswith(f"{TF}."):
            return None
        return None if _asked_by_package() else self.finder.find_spec(fullname)


def _asked_by_package() -> bool:
    """Whether the import statement stands in an installed package or the standard library."""
    folders = (*site.getsitepackages(), sysconfig.get_path("stdlib"), site.getusersitepackages())
    frame = sys._getframe(2)
    while frame is not None and (frame.f_code.co_filename.startswith("<frozen") or frame.f_globals is globals()):
        frame = frame.f_back  # type: ignore[assignment]
    return frame is not None and frame.f_code.co_filename.startswith(folders)


def contents(name: str) -> Any:
    """What is in a module: names, or an object with them as attributes."""
    if name in MODULES:
        module, _, function = MODULES[name].partition(":")
        return getattr(importlib.import_module(_MODULES + module), function)() if module else {}
    found = importlib.import_module(_MODULES + "tensors").tf()
    for part in name.split(".")[1:] if name.startswith(TF) else ():
        found = vars(found).get(part, {})
        if isinstance(found, Mapping):
            break
    return found


class _Module(ModuleType):
    """A stand-in module. A name that it lacks fails where it is used, not where it is imported."""

    filled = False
    source: Any = None  # an object that knows better what to do about unknown names

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.source is not None:
            return getattr(self.source, name)
        if is_known(f"{self.__name__}.{name}"):
            return importlib.import_module(f"{self.__name__}.{name}")
        return unknown(self.__name__, name, [n for n in self.__dict__ if not n.startswith("_")])
