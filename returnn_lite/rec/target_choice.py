"""`choice` where it does not search: the target, samples of the scores mixed with it, the target scored in a search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from returnn_lite.config_value import ConfigOptions
from returnn_lite.layers.core.context import Surroundings
from returnn_lite.layers.core.linking import Linker
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.ops import beam as beams
from returnn_lite.rec.choice import Choice, SearchStep
from returnn_lite.rec.choice_scores import log_probs, log_scores
from returnn_lite.tensor import Beam, Spec, Tensor, batch_dim, to_beam


@layer("choice.target")
class TargetChoice(Choice):
    """A choice that does not search: the target itself, frame by frame.  Shape: (B,) -> (B,)"""

    class_name = "choice"
    makes_beam: ClassVar[bool] = False
    searches: ClassVar[bool] = False
    stays_in_loop: ClassVar[str] = ""

    @classmethod
    def prepare(cls, description: ConfigOptions, net: Surroundings) -> ConfigOptions:
        """Nothing is left to decide."""
        return description

    async def link(self, net: Linker, node: Node) -> None:
        """Its sources are the targets."""
        return

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """That of the (first) target."""
        self._source_specs = sources
        return sources[0]

    def part_spec(self, part: str) -> Spec | None:
        """One of several targets: "out_0", "out_1" …"""
        index = int(part[len("out_") :]) if part.startswith("out_") else len(self._source_specs)
        return self._source_specs[index] if index < len(self._source_specs) else None

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The target."""
        if len(sources) == 1:
            return sources[0]
        first = sources[0].copy()
        first.parts = {f"out_{i}": x for i, x in enumerate(sources)}
        return first


@layer("choice.sampled")
class SampledChoice(TargetChoice):
    """Scheduled sampling: labels drawn by the scores of the source; not differentiated.  Shape: (B, V) -> (B,)

    `gold_mixin_prob` g: with probability g the target in its place, decided per sequence and frame. With regression the
    source itself is fed back.
    """

    async def link(self, net: Linker, node: Node) -> None:
        """Reads the target only if it is mixed in."""
        if len(node.sources) != 1:
            raise self.error("`scheduled_sampling` works with one source only")
        if self.gold_probability:
            node.refs["target"] = await net.ask_target(self.options.target)

    @property
    def gold_probability(self) -> float:
        """How often the target stands in."""
        opts = self.scheduled_sampling
        return float(opts.get("gold_mixin_prob", 0.0)) if isinstance(opts, Mapping) else 0.0

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """The source without its feature axis, labels; with regression the source."""
        x = sources[0]
        self._source_specs = sources
        if x is None or self.input_type == "regression":
            return x
        loops = [d for d in x.dims if d in x.loop]
        return Spec((*loops, batch_dim), "int32", sparse_dim=self._classes(0, x), time=None, feature=None, loop=x.loop)

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """A sample, or the target."""
        x = sources[0]
        if self.input_type == "regression":
            return x
        spec = self.spec(x.spec)
        if x.spec.feature is None or spec is None:
            raise self.error(f"the source must be scores (B, V), but is {x.spec} instead")
        scores = log_probs(x.axis_last(x.spec.feature), self.input_type).detach()
        drawn = torch.multinomial(scores.flatten(0, -2).exp(), 1, generator=self.context.generator)
        labels = drawn.reshape(scores.shape[:-1]).to(torch.int32)
        if "target" in refs:
            gold = refs["target"].data.expand(labels.shape)
            uniform = torch.rand(labels.shape, generator=self.context.generator, device=labels.device)
            labels = torch.where(uniform < self.gold_probability, gold, labels)
        return x.with_data(labels, spec)


@layer("choice.given")
class GivenChoice(Choice):
    """`search` False in a search: the target, whose scores are added to those of the hypotheses.

    Shape: (B, V) -> (B * beam,)
    """

    class_name = "choice"
    searches: ClassVar[bool] = False

    @classmethod
    def prepare(cls, description: ConfigOptions, net: Surroundings) -> ConfigOptions:
        """Nothing is left to decide."""
        return description

    async def link(self, net: Linker, node: Node) -> None:
        """Refers to the target."""
        if self.length_normalization or self.combine is not None:
            text = "`length_normalization` must be False and `custom_score_combine` unset"
            raise self.error(f"with `search` False, {text}")
        if self.options.target is None:
            raise self.error("with `search` False `choice` needs a target")
        node.refs["target"] = await net.ask_target(self.options.target)

    def choose(self, sources: list[Tensor], refs: Mapping[str, Tensor], step: SearchStep) -> Tensor:
        """The target, scored. At the first tick the hypotheses are `width` copies of each sequence."""
        target = refs["target"]
        beam = step.beam
        if beam is None and step.width is None:
            return target
        source = beam if beam is not None else _copies(target, step.width or 1)
        ended, over = (_tiled(flags, beam, source) for flags in (step.ended, step.over))
        now = SearchStep(step.tick, source, ended, over)
        scores = log_scores(to_beam(sources[0], source), self.input_type, source.size, self.path)
        scores, base = beams.let_end(scores, source.scores, now.ended_per_beam(), step.tick, None)
        labels = now.target(target)
        every = beams.combine(scores, base, prob_scale=self.prob_scale, base_scale=self.base_scale)
        index = labels.to(torch.int64).clamp(0, every.shape[-1] - 1).reshape(*base.shape, 1)
        rows = torch.arange(labels.shape[0], device=labels.device)
        new = Beam(source.size, every.gather(-1, index).squeeze(-1), rows, source, gold=source.gold)
        return Tensor(labels, target.spec, to_beam(target, source).lengths, new)


def _copies(x: Tensor, size: int) -> Beam:
    """A beam of equal hypotheses with scores 0."""
    batch = x.data.shape[x.spec.batch or 0]
    rows = torch.arange(batch, device=x.data.device).repeat_interleave(size)
    return Beam(size, torch.zeros((batch, size), device=x.data.device), rows)


def _tiled(flags: torch.Tensor | None, old: Beam | None, new: Beam) -> torch.Tensor | None:
    return flags if flags is None or old is new else flags.repeat_interleave(new.size)
