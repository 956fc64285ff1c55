"""`choice`: the label decision of a decoder – the target in training, beam search in search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import torch

from returnn_lite.config.option_types import NaturalInt, PositiveInt
from returnn_lite.config_value import ConfigOptions
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.context import Surroundings
from returnn_lite.layers.core.linking import Linker
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer, split_options
from returnn_lite.layers.core.stateful import LoopStart, State
from returnn_lite.ops import beam as beams
from returnn_lite.rec.choice_scores import log_scores, noise
from returnn_lite.rec.custom_scores import ChoiceView, custom_scores
from returnn_lite.tensor import Beam, Dim, Spec, Tensor, batch_dim, latest_beam, to_beam

_INPUT_TYPES = ("prob", "log_prob", "logits", "regression")


@dataclass
class SearchStep:
    """What a choice is told of the present tick.

    `beam`: the hypotheses so far (None: one per sequence); `ended` bool (B * K,): which of them have ended, None if
    none can have; `over` bool (B * K,): whose target has ended, where its length is known; `width`: the beam size at
    the end of a tick, None if the loop does not search.
    """

    tick: int = 0
    beam: Beam | None = None
    ended: torch.Tensor | None = None
    over: torch.Tensor | None = None
    width: int | None = None

    @property
    def count(self) -> int:
        """Hypotheses per sequence."""
        return self.beam.size if self.beam is not None else 1

    def target(self, x: Tensor) -> torch.Tensor:
        """Labels int32 (B * K,) of the target at this tick; 0 behind its end."""
        labels = to_beam(x, self.beam).data
        return labels if self.over is None else labels.masked_fill(self.over, 0)

    def ended_per_beam(self) -> torch.Tensor | None:
        """`ended` as (B, K)."""
        return None if self.ended is None else self.ended.reshape(-1, self.count)


Layers = str | Sequence[str] | Mapping[str, str] | None  # names of layers, by key


@layer("choice")
class Choice(Layer):
    """A search decision in a loop: the `beam_size` best continuations by the scores of the source (B, V).

    Shape: (B, V) -> (B * beam,) labels. Outside of search it is the target, and its source is not computed.
    `input_type`: what the source holds ("prob", "log_prob", "logits"; "regression": the source itself is fed back,
    nothing is searched). `length_normalization` keeps the scores of ended hypotheses comparable; see `ops/beam.py` for
    the rules. Several sources are decided together, each cut to `source_beam_sizes`; the parts "out_0", "out_1" … are
    their labels. `cheating` keeps the target as the last hypothesis ("exclusive": it does not occur twice).
    `custom_score_combine(layer, scores_in [B, K, V], scores_base [B, K, 1], t, end_flags [B, K], batch_dim,
    scores_beam_in, base_beam_in)` gives the scores of all continuations [B, K, V]; it may ask
    `layer.explicit_search_sources`.
    """

    full_precision = True
    sources: ClassVar[str] = "many"
    makes_beam: ClassVar[bool] = True
    searches: ClassVar[bool] = True
    stays_in_loop: ClassVar[str] = "makes a search choice"
    checks_n_out = False

    def __init__(
        self,
        *,
        beam_size: PositiveInt,
        input_type: str = "prob",
        prob_scale: float = 1.0,
        base_beam_score_scale: float = 1.0,
        random_sample_scale: float = 0.0,
        length_normalization: bool = True,
        length_normalization_exponent: float = 1.0,
        keep_beams: bool = False,
        search: bool | None = None,
        add_to_beam_scores: bool | None = None,
        custom_score_combine: Callable[..., Any] | None = None,
        source_beam_sizes: Sequence[NaturalInt] | PositiveInt | None = None,
        explicit_search_source: Layers = None,
        explicit_search_sources: Layers = None,
        cheating: Any = False,
        scheduled_sampling: Any = False,
    ) -> None:
        super().__init__()
        if input_type not in _INPUT_TYPES:
            text = did_you_mean(str(input_type), _INPUT_TYPES)
            names = ", ".join(_INPUT_TYPES)
            raise self.error(f"`input_type` must be one of {names}, but is {input_type!r} instead{text}")
        if not isinstance(beam_size, int) or beam_size < 1:
            raise self.error(f"`beam_size` must be an int above 0, but is {beam_size!r} instead")
        if input_type == "regression" and beam_size != 1:
            raise self.error(f'`beam_size` must be 1 with `input_type` "regression", but is {beam_size} instead')
        if cheating not in (False, None, True, "exclusive"):
            raise self.error(f'`cheating` must be False, True or "exclusive", but is {cheating!r} instead')
        self.beam_size = beam_size
        self.input_type = input_type
        self.prob_scale = prob_scale
        self.base_scale = base_beam_score_scale
        self.noise_scale = random_sample_scale
        self.length_normalization = length_normalization
        self.exponent = length_normalization_exponent
        self.keep_beams = keep_beams
        self.combine = custom_score_combine
        self.source_beam_sizes = source_beam_sizes
        self.explicit = _named(explicit_search_source, explicit_search_sources)
        self.cheating = cheating
        self.scheduled_sampling = scheduled_sampling
        self._source_specs: tuple[Spec | None, ...] = ()

    # --- construction -------------------------------------------------------------------------------------------------

    @classmethod
    def prepare(cls, description: ConfigOptions, net: Surroundings) -> ConfigOptions:
        """Outside of search the choice is the target (its source is dropped), or sampled; see `target_choice.py`."""
        path = net.layer_path(description["#name"])
        split_options(cls, {k: v for k, v in description.items() if k != "#name"}, path)
        if "target" not in description:
            raise ConfigError(path, "`choice` needs the option 'target'")
        if net.context.search:
            if description.get("search") is not False:
                return description
            kind = "choice.target" if description.get("add_to_beam_scores") is False else "choice.given"
        else:
            kind = "choice.sampled" if description.get("scheduled_sampling") else "choice.target"
        if kind == "choice.target":
            description["from"] = [_target_reference(t, net, path) for t in _several(description["target"])]
        return {**description, "class": kind}

    async def link(self, net: Linker, node: Node) -> None:
        """Refers to the target if the search cheats, and to the layers for `custom_score_combine`."""
        if self.cheating:
            if len(node.sources) > 1:
                raise self.error("`cheating` works with one source only")
            node.refs["target"] = await net.ask_target(self.options.target)
        for key, name in self.explicit.items():
            node.refs[f"explicit/{key}"] = await net.ask(name)

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """Labels (B,), with the classes of the target; with regression the source."""
        self._source_specs = sources
        return sources[0] if self.input_type == "regression" else self._labels(0)

    def _labels(self, index: int) -> Spec | None:
        """Labels (B,) of the decision on one source."""
        x = self._source_specs[index] if index < len(self._source_specs) else None
        dim = self._classes(index, x)
        return _labels_of(dim) if dim is not None else None

    def part_spec(self, part: str) -> Spec | None:
        """Labels of one of several sources: "out_0", "out_1" …"""
        return self._labels(int(part[len("out_") :])) if part.startswith("out_") else None

    def _classes(self, index: int, x: Spec | None) -> Dim | None:
        target = self.options.target
        if isinstance(target, (list, tuple)):
            target = target[index] if index < len(target) else None
        keys = self.context.data_keys
        key = target.removeprefix("layer:").removeprefix("data:") if isinstance(target, str) else None
        known = keys.specs.get(key) if keys is not None and key is not None else None
        if known is not None and known.sparse_dim is not None:
            return known.sparse_dim
        return self.dim(f"sparse-dim{index}", x.dim) if x is not None else None

    def initial_output(self, make: LoopStart, spec: Spec, state: State | None = None) -> Tensor:
        """Label 0 where the config says nothing else."""
        return make.zeros(spec)

    def decided_beam(self) -> int | None:
        """The option `beam_size`, where the choice makes hypotheses."""
        return self.beam_size if self.makes_beam else None

    @property
    def settles(self) -> bool:
        """Whether the hypotheses of a sequence keep their order once all have ended: nothing but the length counts."""
        plain = self.combine is None and not self.noise_scale and not self.cheating and self.input_type != "regression"
        return plain and len(self._source_specs) == 1 and self.base_scale == 1.0 and self.prob_scale > 0.0

    # --- one search step ----------------------------------------------------------------------------------------------

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """Outside of loops: one decision."""
        return self.choose(list(sources), refs, SearchStep(beam=latest_beam(list(sources))))

    def choose(self, sources: list[Tensor], refs: Mapping[str, Tensor], step: SearchStep) -> Tensor:
        """The best continuations of the hypotheses so far."""
        sources = [to_beam(x, step.beam) for x in sources]
        if self.input_type == "regression":
            return self._fed_back(sources[0], step)
        log_probs = [log_scores(x, self.input_type, step.count, self.path) for x in sources]
        if len(log_probs) == 1:
            picked, gold = self._picked(sources, log_probs[0], refs, step)
            return self._chosen(sources[0], [picked.labels], picked, gold, step)
        several = beams.combinations(log_probs, self._sizes(len(log_probs)))
        picked, gold = self._picked(sources, several.scores, refs, step)
        return self._chosen(sources[0], several.split(picked), picked, gold, step)

    def _sizes(self, count: int) -> list[int]:
        given = self.source_beam_sizes
        if given is None:
            return [self.beam_size] * count
        sizes = [given] * count if isinstance(given, int) else list(given)
        if len(sizes) != count:
            raise self.error(f"`source_beam_sizes` must have {count} entries, one per source, but is {sizes!r} instead")
        return sizes

    def _picked(
        self, sources: list[Tensor], log_probs: torch.Tensor, refs: Mapping[str, Tensor], step: SearchStep
    ) -> tuple[beams.Picked, torch.Tensor | None]:
        """The best continuations of scores (B, K, V), and which of them is the reference's [B] (None: not followed)."""
        base = step.beam.scores if step.beam is not None else log_probs.new_zeros(log_probs.shape[:2])
        ended = step.ended_per_beam()
        exponent = self.exponent if self.length_normalization else None
        log_probs, base = beams.let_end(log_probs, base, ended, step.tick, exponent, goes_on=self.context.keeps_batch)
        scores = self._combined(sources, log_probs, base, ended, refs, step)
        followed = step.beam.gold if step.beam is not None else None
        if self.keep_beams and self.beam_size % scores.shape[1]:
            text = f"`beam_size` must be a multiple of the incoming beam size {scores.shape[1]} with `keep_beams`"
            raise self.error(f"{text}, but is {self.beam_size} instead")
        if not self.cheating:
            picked = beams.pick(scores, self.beam_size, keep_beams=self.keep_beams)
            return picked, _first_of(picked.source, followed) if followed is not None else None
        if followed is None:
            followed = torch.zeros(scores.shape[0], dtype=torch.int64, device=scores.device)
        label = step.target(refs["target"]).unflatten(0, (-1, step.count))[:, 0]
        gold = beams.gold_of(scores, label, followed)
        if self.cheating == "exclusive":
            scores = beams.without_gold(scores, gold)
        picked = beams.put_gold(beams.pick(scores, self.beam_size, keep_beams=self.keep_beams), gold)
        return picked, torch.full_like(followed, self.beam_size - 1)

    def _combined(
        self,
        sources: list[Tensor],
        log_probs: torch.Tensor,
        base: torch.Tensor,
        ended: torch.Tensor | None,
        refs: Mapping[str, Tensor],
        step: SearchStep,
    ) -> torch.Tensor:
        if self.combine is None:
            drawn = noise(log_probs, self.noise_scale, self.context.generator)
            return beams.combine(log_probs, base, prob_scale=self.prob_scale, base_scale=self.base_scale, noise=drawn)
        named = {k: (self.explicit[k], to_beam(refs[f"explicit/{k}"], step.beam)) for k in self.explicit}
        view = ChoiceView(self, sources, named, beam_size=self.beam_size, cheating=self.cheating)
        return custom_scores(self.combine, view, log_probs, base, ended, step.tick)

    def _chosen(
        self, x: Tensor, labels: list[torch.Tensor], picked: beams.Picked, gold: torch.Tensor | None, step: SearchStep
    ) -> Tensor:
        rows, size = torch.arange(picked.source.shape[0], device=picked.source.device), self.beam_size
        alone = size == step.count == 1
        if not alone:
            rows = (picked.source + (rows * step.count).unsqueeze(-1)).flatten()
        new = Beam(size, picked.scores, rows, step.beam, gold=gold, in_place=alone)
        lengths = {d: n.tile(size) if x.beam is None else n.following(rows, size) for d, n in x.lengths.items()}
        made = []
        for i, chosen in enumerate(labels):
            spec = self._labels(i)
            if spec is None:
                raise self.error("the classes of the target are not known")
            made.append(Tensor(chosen.flatten(), spec, lengths, new))
        if len(made) > 1:
            made[0].parts = {f"out_{i}": y.copy() for i, y in enumerate(made)}
        return made[0]

    def _fed_back(self, x: Tensor, step: SearchStep) -> Tensor:
        """Regression: the source itself; scores and hypotheses stay."""
        batch = x.shape[x.spec.batch or 0]
        scores = step.beam.scores if step.beam is not None else x.data.new_zeros((batch, 1), dtype=torch.float32)
        rows = torch.arange(batch, device=x.device)
        return Tensor(x.data, x.spec, x.lengths, Beam(step.count, scores, rows, step.beam))


@lru_cache(maxsize=256)
def _labels_of(dim: Dim) -> Spec:
    return Spec((batch_dim,), "int32", sparse_dim=dim, time=None, feature=None)


def _several(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _target_reference(target: Any, net: Surroundings, path: str) -> str:
    """The name under which a layer reads this target: a layer of the net, or a data key."""
    if target is None:
        raise ConfigError(path, "without search `choice` needs a target (forward without references is not possible)")
    name = str(target)
    if name.startswith("layer:"):
        return name[len("layer:") :]
    return name if net.has_layer(name) or name.startswith(("data:", "base:")) else f"data:{name}"


def _first_of(source: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The first (best) entry of every row that extends hypothesis `wanted`.  Shape: (B, K), (B,) -> (B,)"""
    return (source == wanted.unsqueeze(1)).to(torch.int32).argmax(1)


def _named(one: Any, several: Any) -> dict[str, str]:
    """`explicit_search_source(s)`: a layer name, a list or a dict of them, by key."""
    value = several if several is not None else one
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return dict(value)
    return {str(i): name for i, name in enumerate([value] if isinstance(value, str) else value)}
