"""Label sequences of layers that give frames: what a CTC output says; what else can be done."""

import torch

from returnn_lite.engine.models.model import Model
from returnn_lite.errors import ConfigError
from returnn_lite.layers.activations import safe_log
from returnn_lite.ops.ctc_decode import greedy_decode
from returnn_lite.ops.masked import frame_mask
from returnn_lite.tensor import Dim, Lengths, Spec, Tensor
from returnn_lite.tensor.dim import SPATIAL
from returnn_lite.tensor.spec import vector


def is_ctc(net: Model, layer: str) -> bool:
    """Whether a layer of this name is trained by the loss `ctc`."""
    return layer in net.layers and getattr(net.layers[layer].options, "loss", None) == "ctc"


def ctc_labels(net: Model, layer: str, output: Tensor) -> Tensor:
    """The labels of a CTC output, greedily: the best class of each frame, equal neighbours merged, blanks dropped.

    Shape: (B, T, V) -> (B, N); of V - 1 classes if the blank is the last one. The part "scores" (B,) is the natural log
    of the probability of this best path.
    """
    spec = output.spec
    if spec.time is None or spec.feature is None or spec.rank != 3:
        raise ConfigError(f'network["{layer}"]', f"must give frames (B, T, V) to be decoded, but gives {spec}")
    options = getattr(net.layers[layer].options, "loss_opts", None) or {}
    size = spec.dims[spec.feature].size or 0
    blank = blank_index(net, layer, size)
    log_probs = _log_probs(output, bool(options.get("output_in_log_space"))).permute(0, spec.time, spec.feature)
    frames = output.length(spec.dims[spec.time]).values
    labels, lengths = greedy_decode(log_probs, frames, blank=blank)
    best = log_probs.amax(-1).masked_fill(~frame_mask(frames.to(labels.device), log_probs.shape[1]), 0.0).sum(1)
    scores = output.with_data(best, vector())
    dim = Dim(None, f"{layer}:labels", kind=SPATIAL)
    classes = Dim(size - 1 if blank == size - 1 else size, f"{layer}:classes")
    of_labels = Spec((spec.dims[0], dim), "int32", sparse_dim=classes, time=1, feature=None)
    known = {**output.lengths, dim: Lengths(lengths, labels.shape[1])}
    return Tensor(labels, of_labels, known, output.beam, zero_padded=True, parts={"scores": scores})


def blank_index(net: Model, layer: str, size: int) -> int:
    """The class of the blank of a CTC output of `size` classes."""
    options = getattr(net.layers[layer].options, "loss_opts", None) or {}
    return int((options.get("ctc_opts") or {}).get("blank_index", -1)) % size


def _log_probs(output: Tensor, log_space: bool) -> torch.Tensor:
    """Natural logarithms of probabilities, of what the loss takes for them."""
    axis = output.spec.feature or -1
    if log_space:
        return output.data.log_softmax(axis)
    if output.pre is not None and output.pre.activation == "softmax":
        return output.pre.data.log_softmax(axis)
    return safe_log(output.data)


def refuse_frames(layer: str, output: Tensor) -> None:
    """ConfigError for an output that is no label sequence, with what makes labels of it."""
    if not output.spec.sparse:
        decode = f'{{"class": "ctc_decode", "from": "{layer}", "target": …}}'
        raise ConfigError(
            "search_output_layer",
            f"layer {layer!r} gives numbers {output.spec}, which are not text: name a layer that decodes them, such as"
            f' "decision": {decode} ("blank_index": None without a blank), or use the task "forward"',
        )
