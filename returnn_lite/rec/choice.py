"""`choice`: the label decision of a decoder – the target in training, beam search in search – and `decide`."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.layers.activations import safe_log
from returnn_lite.layers.base import Layer
from returnn_lite.layers.registry import layer, split_options
from returnn_lite.rec.beam import combine_scores, pick
from returnn_lite.rec.initial import Initial
from returnn_lite.tensor import Beam, Dim, Lengths, Spec, Tensor, batch_dim, to_beam

_INPUT_TYPES = ("prob", "log_prob", "logits", "regression")


@layer("choice")
class Choice(Layer):
    """A search decision in a loop: the `beam_size` best continuations by the scores of the source (B, V).

    Shape: (B, V) -> (B * beam,) labels. Outside of search it is the target, and its source is not computed. `input_type`:
    what the source holds ("prob", "log_prob", "logits"). `length_normalization` keeps the scores of ended hypotheses
    comparable; see `rec/beam.py` for the rules.
    """

    makes_beam: ClassVar[bool] = True
    stays_in_loop: ClassVar[str] = "makes a search choice"
    checks_n_out = False

    def __init__(
        self,
        *,
        beam_size: int,
        input_type: str = "prob",
        prob_scale: float = 1.0,
        base_beam_score_scale: float = 1.0,
        random_sample_scale: float = 0.0,
        length_normalization: bool = True,
        length_normalization_exponent: float = 1.0,
        keep_beams: bool = False,
        search: Any = None,
        add_to_beam_scores: Any = None,
        custom_score_combine: Any = None,
        source_beam_sizes: Any = None,
        explicit_search_source: Any = None,
        explicit_search_sources: Any = None,
        cheating: Any = False,
        scheduled_sampling: Any = False,
    ) -> None:
        super().__init__()
        if input_type not in _INPUT_TYPES:
            text = did_you_mean(str(input_type), _INPUT_TYPES)
            raise self.error(f"`input_type` must be one of {', '.join(_INPUT_TYPES)}, but is {input_type!r} instead{text}")
        if not isinstance(beam_size, int) or beam_size < 1:
            raise self.error(f"`beam_size` must be an int above 0, but is {beam_size!r} instead")
        self.beam_size = beam_size
        self.input_type = input_type
        self.prob_scale = prob_scale
        self.base_scale = base_beam_score_scale
        self.noise_scale = random_sample_scale
        self.length_normalization = length_normalization
        self.exponent = length_normalization_exponent
        self.keep_beams = keep_beams

    @classmethod
    def prepare(cls, description: dict[str, Any], linker: Any) -> dict[str, Any]:
        """Outside of search the choice is the target: its source is dropped."""
        if "target" not in description:
            raise linker_error(linker, description, "`choice` needs the option 'target'")
        for option in ("custom_score_combine", "source_beam_sizes", "cheating", "scheduled_sampling"):
            if description.get(option):
                raise linker_error(linker, description, f"the option {option!r} of `choice` is not supported yet")
        if linker.shared.context.search and description.get("search", True) is not False:
            return description
        if description.get("target") is None:
            raise linker_error(linker, description, "without search `choice` needs a target (forward needs references)")
        given = {k: v for k, v in description.items() if k != "#name"}
        split_options(cls, given, linker.layer_path(description["#name"]))  # unknown options are errors here, too
        kept = {k: v for k, v in description.items() if k in _OF_TARGET}
        return {**kept, "class": "choice.target", "from": [_target_source(linker, description["target"])]}

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """Labels (B,), with the classes of the target."""
        dim = self._classes(sources[0] if sources else None)
        return Spec((batch_dim,), "int32", sparse_dim=dim, time=None, feature=None)

    def _classes(self, x: Spec | None) -> Dim:
        network: Any = self.context.network
        target = self.options.target
        if isinstance(target, (list, tuple)):
            target = target[0]
        specs = network.extern_data.specs
        if target in specs and specs[target].sparse_dim is not None:
            return specs[target].sparse_dim  # type: ignore[no-any-return]
        return self.dim("sparse-dim", x.dim if x is not None else None)

    def initial_output(self, make: Initial, spec: Spec, state: Any = None) -> Tensor:
        """Label 0 where the config says nothing else."""
        return make.zeros(spec)

    def choose(self, sources: list[Tensor], beam: Beam | None, ended: torch.Tensor | None, tick: int) -> Tensor:
        """One search step: the best continuations of the hypotheses of `beam`."""
        x = to_beam(sources[0], beam)
        if x.spec.feature is None or x.spec.rank != 2:
            raise self.error(f"the source must be scores (B, V), but is {x.spec} instead")
        log_probs = self._log_probs(x.axis_last(x.spec.feature))
        count = beam.size if beam is not None else 1
        log_probs = log_probs.unflatten(0, (-1, count))  # (B, K, V)
        base = beam.scores if beam is not None else log_probs.new_zeros(log_probs.shape[:2])
        scores = combine_scores(
            log_probs, base, ended.unflatten(0, (-1, count)) if ended is not None else None, tick,
            prob_scale=self.prob_scale, base_scale=self.base_scale,
            length_normalization_exponent=self.exponent if self.length_normalization else None,
            noise=self._noise(log_probs),
        )  # fmt: skip
        picked = pick(scores, self.beam_size, keep_beams=self.keep_beams)
        first = torch.arange(scores.shape[0], device=scores.device).unsqueeze(-1) * count
        new = Beam(self.beam_size, picked.scores, (picked.source + first).flatten(), beam)
        lengths = to_beam(x, new).lengths
        spec = self.spec(x.spec)
        if spec is None:
            raise self.error("the classes of the target are not known")
        return Tensor(picked.labels.flatten(), spec, lengths, new)

    def _log_probs(self, x: Tensor) -> torch.Tensor:
        if self.input_type == "log_prob":
            return x.data
        if self.input_type == "logits":
            return torch.log_softmax(x.data, -1)
        if x.pre is not None and x.pre.activation == "softmax":
            return torch.log_softmax(x.pre.data, -1)
        return safe_log(x.data)

    def _noise(self, like: torch.Tensor) -> torch.Tensor | None:
        """Gumbel noise."""
        if not self.noise_scale:
            return None
        uniform = torch.rand(like.shape, generator=self.context.generator, device=like.device)
        return -torch.log(-torch.log(uniform.clamp(min=1e-20))) * self.noise_scale


_OF_TARGET = {
    *("initial_output", "is_output_layer", "loss", "loss_opts", "loss_scale", "target", "register_as_extern_data", "need_last"),
}


def _target_source(linker: Any, target: Any) -> str:
    """The reference of a target inside a loop: a layer, or the frame of a data key."""
    if isinstance(target, (list, tuple)):
        target = target[0]
    if target.startswith("layer:"):
        return str(target[len("layer:") :])
    return str(target) if target in linker.descriptions else f"data:{target}"


def linker_error(linker: Any, description: dict[str, Any], message: str) -> ConfigError:
    """A ConfigError at the layer that is being linked."""
    return ConfigError(linker.layer_path(description.get("#name", "choice")), message)


@layer("choice.target")
class TargetChoice(Layer):
    """A choice outside of search: the target itself.  Shape: (B,) -> (B,)"""

    class_name = "choice"
    checks_n_out = False

    def __init__(self) -> None:
        super().__init__()

    def initial_output(self, make: Initial, spec: Spec, state: Any = None) -> Tensor:
        """Label 0 where the config says nothing else."""
        return make.zeros(spec)

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The target."""
        return sources[0]


@layer("decide")
class Decide(Layer):
    """The best hypothesis of each beam; without search the source itself.  Shape: (T, B * beam) -> (B, T')

    `length_normalization`: scores are divided by the lengths before. The result has a beam of its own of size 1.
    """

    checks_n_out = False

    def __init__(self, *, length_normalization: bool = False) -> None:
        super().__init__()
        self.length_normalization = length_normalization

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """The source, batch-major."""
        x = sources[0]
        if x is None or x.batch is None:
            return x
        return x.permuted((x.batch, *(i for i in range(x.rank) if i != x.batch)))

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The hypotheses with the largest scores; of equal ones the first."""
        x = sources[0].batch_major()
        beam = x.beam
        if beam is None:
            return x
        scores = beam.scores
        if self.length_normalization and x.spec.time is not None:
            scores = scores / x.length(x.spec.dims[x.spec.time]).values.unflatten(0, (-1, beam.size))
        best = first_largest(scores)  # (B,)
        rows = torch.arange(best.shape[0], device=best.device) * beam.size + best
        picked = Beam(1, beam.scores.gather(1, best.unsqueeze(1)), rows, beam.parent, decided=True)
        decided = x.gather_batch(rows, picked)
        return self._cut(decided)

    def _cut(self, x: Tensor) -> Tensor:
        """Frames behind the longest of the chosen hypotheses are dropped."""
        if x.spec.time is None or not x.spec.dims[x.spec.time].dynamic:
            return x
        dim = x.spec.dims[x.spec.time]
        lengths = Lengths.of(x.length(dim).values)
        cut = x.with_lengths({dim: lengths})
        cut.data = x.data.narrow(x.spec.time, 0, lengths.max)
        return cut


def first_largest(scores: torch.Tensor) -> torch.Tensor:
    """Index of the largest entry of the last axis; of equal ones the first.  Shape: (B, K) -> (B,)"""
    return (scores == scores.amax(-1, keepdim=True)).to(torch.int32).argmax(-1)
