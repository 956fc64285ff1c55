"""BLEU and chrF of texts, by sacrebleu."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.errors import ConfigError

METRICS = ("bleu", "chrf")


def text_scores(metrics: Sequence[str], hyps: Sequence[str], refs: Sequence[str]) -> list[str]:
    """A line for each metric: its score, and the signature that says how it was computed (Post, 2018).

    BLEU: Papineni et al. 2002; chrF: Popović 2015. ConfigError where sacrebleu is missing.
    """
    try:
        import sacrebleu
    except ImportError:
        raise ConfigError("--metrics", 'BLEU and chrF need sacrebleu: pip install "returnn-lite[bleu]"') from None
    made = {"bleu": sacrebleu.BLEU, "chrf": sacrebleu.CHRF}
    lines = []
    for name in metrics:
        metric = made[name]()
        score = metric.corpus_score(list(hyps), [list(refs)])
        lines.append(f"{score.name} {score.score:.2f}  ({metric.get_signature()})")
    return lines
