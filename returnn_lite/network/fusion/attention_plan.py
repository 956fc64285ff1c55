"""How two products with a softmax in between are one attention: which axes are queries, keys, heads, features."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass

import torch

ONE = "#"  # the letter of an axis of size 1 that only the energies have


@dataclass(frozen=True)
class AttentionPlan:
    """Permutations of queries, keys, values and weights, and of the result; an axis of common letters stands in front.

    `common`, `queried`, `features`: the numbers of common axes, of query axes, of axes that the first product sums;
    `missing`: the positions of common axes that the values lack. `swapped`: the second operand has the queries.
    """

    swapped: bool
    one: bool
    common: int
    queried: int
    features: int
    query_order: tuple[int, ...]
    key_order: tuple[int, ...]
    value_order: tuple[int, ...]
    weight_order: tuple[int, ...]
    result_order: tuple[int, ...]
    missing: tuple[int, ...]

    def sizes(self, queries: Sequence[int], keys: Sequence[int]) -> list[int]:
        """The sizes of the weights, from those of the operands."""
        given = [*queries, 1] if self.one else list(queries)
        count = self.common + self.queried
        found = {at: given[of] for at, of in zip(self.weight_order[:count], self.query_order[:count], strict=True)}
        return [*(found[i] for i in range(count)), keys[self.key_order[self.common]]]

    def queries(self, x: torch.Tensor) -> torch.Tensor:
        """(…) -> (B, H, Q, D)"""
        x = self._in_heads((x.unsqueeze(-1) if self.one else x).permute(self.query_order))
        return (x.flatten(2, 1 + self.queried) if self.queried else x.unsqueeze(2)).flatten(3)

    def keys(self, x: torch.Tensor) -> torch.Tensor:
        """(…) -> (B, H, K, D)"""
        return self._in_heads(x.permute(self.key_order)).flatten(3)

    def values(self, x: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
        """(…) -> (B, H, K, V); `sizes`: those of the weights."""
        x = x.permute(self.value_order)
        for at in self.missing:
            x = x.unsqueeze(at)
        if self.missing:
            x = x.expand((*(sizes[i] for i in self.weight_order[: self.common]), *x.shape[self.common :]))
        x = self._in_heads(x)
        return x.unsqueeze(3) if x.dim() == 3 else x.flatten(3)

    def _in_heads(self, x: torch.Tensor) -> torch.Tensor:
        """The common axes in front as two: (B, H)."""
        if self.common > 1:
            return x.flatten(0, self.common - 2)
        return x.unsqueeze(1) if self.common else x.unsqueeze(0).unsqueeze(0)

    def weights(self, x: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
        """What broadcasts to the weights as (B, H, Q, K), each 1 or whole; `sizes`: those of the weights."""
        heads = self.common - 1 if self.common > 1 else self.common
        ends = (0, heads, self.common, self.common + self.queried, len(sizes))
        x, sizes = x.permute(self.weight_order), [sizes[i] for i in self.weight_order]
        shape = list(x.shape)
        for first, last in zip(ends, ends[1:], strict=False):
            if any(n != 1 for n in shape[first:last]):
                shape[first:last] = sizes[first:last]
        return x.expand(shape).reshape([math.prod(shape[i:j]) for i, j in zip(ends, ends[1:], strict=False)])

    def result(self, x: torch.Tensor, sizes: Sequence[int], features: Sequence[int]) -> torch.Tensor:
        """(B, H, Q, V) -> the axes of the second product; `features`: the sizes of the values' own axes."""
        kept = [sizes[i] for i in self.weight_order[:-1]]
        return x.reshape((*kept, *features)).permute(self.result_order)

    def features_of(self, values: Sequence[int]) -> list[int]:
        """The sizes of the values' own axes, from those of the values."""
        return [values[i] for i in self.value_order[self.common - len(self.missing) + 1 :]]


def attention_plan(
    first: str, second: str, softmax_axis: int, batch: int | None, *, added: bool, weights_first: bool
) -> AttentionPlan | None:
    """The plan for einsum equations: `first` gives energies (with `added` also an axis of size 1 at the end), whose
    `softmax_axis` goes to the end of the weights, which are an operand of `second`. None if that is no attention.

    `batch`: the position of the batch axis in the energies; it becomes the first common one.
    """
    (a, b), energies = first.split("->")[0].split(","), first.split("->")[1] + (ONE if added else "")
    key = energies[softmax_axis]
    weights = energies.replace(key, "") + key
    operands, result = second.split("->")
    own, values = operands.split(",")[:: 1 if weights_first else -1]
    values, result = _renamed(own, weights, values, result)
    swapped = key in a
    queries, keys = (b, a) if swapped else (a, b)
    queries += ONE if added else ""
    summed = [c for c in queries if c in keys and c not in energies]
    common = [c for c in weights[:-1] if c in queries and c in keys]
    if batch is not None and energies[batch] in common:
        common.sort(key=lambda c: c != energies[batch])
    queried = [c for c in weights[:-1] if c not in common]
    features = [c for c in values if c not in weights]
    fits = (
        key not in queries
        and key in keys
        and key in values
        and key not in result
        and summed
        and set(keys) == {*common, *summed, key}
        and set(queries) == {*common, *summed, *queried}
        and not set(values) & set(queried)
        and sorted(result) == sorted([*common, *queried, *features])
    )
    if not fits:
        return None
    of_values = [c for c in common if c in values]
    made = [*common, *queried, *features]
    return AttentionPlan(
        swapped, added, len(common), len(queried), len(summed),
        tuple(queries.index(c) for c in (*common, *queried, *summed)),
        tuple(keys.index(c) for c in (*common, key, *summed)),
        tuple(values.index(c) for c in (*of_values, key, *features)),
        tuple(weights.index(c) for c in (*common, *queried, key)),
        tuple(made.index(c) for c in result),
        tuple(i for i, c in enumerate(common) if c not in values),
    )  # fmt: skip


def _renamed(own: str, weights: str, *texts: str) -> list[str]:
    """The texts of a second equation, in which the weights are `own`, by the letters that the first gives the weights;
    all others get new letters."""
    free = iter(c for c in string.ascii_letters if c not in weights)
    known = dict(zip(own, weights, strict=True))
    for c in "".join(texts):
        if c not in known:
            known[c] = next(free)
    return ["".join(known[c] for c in text) for text in texts]
