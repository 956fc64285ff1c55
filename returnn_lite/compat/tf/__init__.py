"""Names that eval strings and config functions expect of TensorFlow, on PyTorch tensors.

`eval_names(context)` gives them all. Tensors handed to such code should be `wrap`ped (they then have `get_shape` and
TensorFlow's operators on ints), and results `unwrap`ped.
"""

from __future__ import annotations

from typing import Any

from returnn_lite.compat.tf import control, helpers
from returnn_lite.compat.tf.namespace import Namespace, at_once, tf_namespace, without_name
from returnn_lite.compat.tf.values import Context, TFTensor, unwrap, wrap
from returnn_lite.errors import UnknownName

__all__ = ["Context", "Namespace", "TFTensor", "UnknownName", "eval_names", "helper_functions", "unwrap", "wrap"]


def helper_functions(context: Context) -> dict[str, Any]:
    """The tensor helpers by name, each with an ignored keyword `name`."""
    dressed = {name: at_once(function) for name, function in helpers.all_functions(context).items()}
    return dressed | {"cond": without_name(control.cond)}


def eval_names(context: Context | None = None) -> dict[str, Any]:
    """Everything that an eval string may name: `tf`, `tf_compat`, the helpers; and `as_tf_tensor`, `as_plain_tensor`.

    The caller sets device, random generator and train flag in the context, at any time.
    """
    context = context or Context()
    tf = tf_namespace(context)
    return {
        **helper_functions(context),
        "tf": tf,
        "tf_compat": tf.compat,
        "as_tf_tensor": wrap,
        "as_plain_tensor": unwrap,
    }
