"""The name space `tf`: all functions under the names TensorFlow has, or had, for them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch

from returnn_lite.compat.tf import control, creation, maths, nn, ordering, shapes
from returnn_lite.compat.tf.values import DTYPES, Context, Dimension, TensorShape, TextTensor, wrap_all
from returnn_lite.errors import UnknownName, did_you_mean, user_line

_GRAPH_ONLY = {
    "Session", "InteractiveSession", "placeholder", "Graph", "get_default_graph", "get_variable", "Variable", "layers",
    "contrib", "train", "keras", "py_func", "numpy_function", "gradients", "map_fn", "scan", "foldl", "ctc_loss",
    "global_variables_initializer", "get_collection", "load_op_library",
}  # fmt: skip

_NN_AND_MATH = ("tanh", "sigmoid", "log_sigmoid", "softplus", "l2_normalize", "zero_fraction")
_NN_IN_MATH = ("top_k", "softmax", "log_softmax")


class Namespace:
    """A module's stand-in: attributes from a table, and a clear error for any other."""

    def __init__(self, name: str, members: Mapping[str, Any]) -> None:
        self.__name__ = name
        self.__dict__.update(members)

    def __getattr__(self, name: str) -> Any:
        reason = "it belongs to TensorFlow's graphs" if name in _GRAPH_ONLY else ""
        hint = f"; {reason}" if reason else did_you_mean(name, self.__dict__)
        raise UnknownName(user_line(), f"module '{self.__name__}' (PyTorch stand-in) has no attribute '{name}'{hint}")

    def __repr__(self) -> str:
        return f"<PyTorch stand-in for module {self.__name__}>"


class NothingDone(Namespace):
    """A module whose every function does nothing (`tf.summary`)."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return control.no_op


def without_name(function: Callable[..., Any]) -> Callable[..., Any]:
    """TensorFlow's functions all take `name`, which means nothing here."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        kwargs.pop("name", None)
        return function(*args, **kwargs)

    return call


def at_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `without_name`; and its torch calls work on plain tensors, its result alone is wrapped: that is much faster.

    Not for functions that call those of a config.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        kwargs.pop("name", None)
        texts = any(map(_holds_texts, (*args, *kwargs.values())))
        with torch._C.DisableTorchFunctionSubclass():  # the documented way to run subclasses as plain tensors
            return wrap_all(function(*args, **kwargs), texts)

    return call


def _holds_texts(value: Any) -> bool:
    parts = value if isinstance(value, (list, tuple)) else (value,)
    return any(isinstance(part, TextTensor) for part in parts)


def _dressed(functions: Mapping[str, Any]) -> dict[str, Any]:
    return {name: at_once(function) for name, function in functions.items()}


def tf_namespace(context: Context) -> Namespace:
    """`tf`, as TensorFlow 1 and 2 at once."""
    elementwise = _dressed(maths.all_functions())
    made = _dressed(creation.all_functions(context))
    layers = _dressed({**nn.all_functions(), "dropout": creation.Creation(context).dropout})
    flow = {name: without_name(function) for name, function in control.all_functions().items()}
    moved = _dressed({**shapes.all_functions(), **ordering.all_functions()})
    more = {name: moved[name] for name in moved if "segment" in name or name == "count_nonzero"}
    more |= {name: layers[name] for name in _NN_IN_MATH}
    tf = Namespace(
        "tensorflow",
        {
            "embedding_lookup": layers["embedding_lookup"],
            **elementwise,
            **made,
            **flow,
            **moved,
            **DTYPES,
            "Tensor": torch.Tensor,
            "TensorShape": TensorShape,
            "Dimension": Dimension,
            "DType": torch.dtype,
            "newaxis": None,
            "__version__": "1.15.0",
            "math": Namespace("tensorflow.math", {**elementwise, **more}),
            "nn": Namespace("tensorflow.nn", {**{name: elementwise[name] for name in _NN_AND_MATH}, **layers}),
            "random": Namespace(
                "tensorflow.random",
                {
                    "uniform": made["random_uniform"],
                    "normal": made["random_normal"],
                    "truncated_normal": made["truncated_normal"],
                    "shuffle": made["random_shuffle"],
                    "set_seed": control.no_op,
                },
            ),
            "linalg": Namespace(
                "tensorflow.linalg",
                {
                    **{name: elementwise[name] for name in ("matmul", "einsum", "tensordot", "l2_normalize")},
                    "band_part": moved["matrix_band_part"],
                    "diag": moved["matrix_diag"],
                    "diag_part": moved["matrix_diag_part"],
                    "norm": moved["norm"],
                    "eye": made["eye"],
                },
            ),
            "debugging": Namespace(
                "tensorflow.debugging",
                {"Assert": flow["Assert"], "is_finite": elementwise["is_finite"], "check_numerics": check_numerics},
            ),
            "summary": NothingDone("tensorflow.summary", {}),
            "logging": NothingDone("tensorflow.logging", {}),
        },
    )
    vars(tf)["compat"] = Namespace("tensorflow.compat", {"v1": tf, "v2": tf})
    vars(tf)["dtypes"] = Namespace("tensorflow.dtypes", {**DTYPES, "cast": elementwise["cast"], "DType": torch.dtype})
    return tf


def check_numerics(tensor: Any, message: str) -> Any:
    """The tensor; ValueError with the message if it has inf or nan."""
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{message}: the tensor has inf or nan")
    return tensor
