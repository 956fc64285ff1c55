"""Numbers of a recording as expressions of shapes: what several recordings of batches of other sizes have in common."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations, permutations, product
from operator import add, mul, sub
from typing import TypeAlias

Samples: TypeAlias = tuple[float, ...]  # a number in each of the recordings
Known: TypeAlias = Sequence[tuple[Samples, str]]  # numbers that have an expression


def expression(wanted: Samples, near: Known, known: Known) -> str | None:
    """An expression for a number, of those `near` (shapes of the arguments) before those `known` otherwise.

    A constant, a size, a n + b, n // k, -(-n // k) + b, products of two sizes, and for floats the ratio of two of
    these to a power. None if nothing fits all samples.
    """
    if all(x == wanted[0] for x in wanted):
        return constant(wanted[0])
    if any(isinstance(x, float) for x in wanted):
        return _float(wanted, [*near, *known])
    for source in (near, known):
        for samples, text in source:
            if samples == wanted:
                return text
    bases = [(s, t) for s, t in _distinct([*near, *known]) if len(set(s)) > 1]
    return next(_ints(wanted, bases), None)


def constant(value: float) -> str:
    """A number as Python writes it."""
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return repr(value)


def _distinct(known: Known) -> list[tuple[Samples, str]]:
    found: dict[Samples, str] = {}
    for samples, text in known:
        found.setdefault(samples, text)
    return list(found.items())


def _ints(wanted: Samples, bases: Known) -> Iterator[str]:
    """All forms, the simple ones first."""
    for samples, text in bases:
        yield from _affine(wanted, samples, text)
    yield from _products(wanted, bases)
    yield from _quotients(wanted, bases)
    yield from _rests(wanted, bases)
    for samples, text in bases:
        if all(s and w % s == 0 for w, s in zip(wanted, samples, strict=True)):
            rest = tuple(w // s for w, s in zip(wanted, samples, strict=True))
            for others, other in bases:
                yield from (f"{text} * ({found})" for found in _affine(rest, others, other))
    yield from _sums(wanted, bases)


def _products(wanted: Samples, bases: Known) -> Iterator[str]:
    """Multiples of the product of two sizes."""
    for (a, left), (b, right) in combinations(bases, 2):
        areas = list(map(mul, a, b))
        if all(p and w % p == 0 for w, p in zip(wanted, areas, strict=True)):
            factors = {int(w // p) for w, p in zip(wanted, areas, strict=True)}
            if len(factors) == 1:
                factor = factors.pop()
                yield f"{left} * {right}" if factor == 1 else f"{left} * {right} * {factor}"


def _quotients(wanted: Samples, bases: Known) -> Iterator[str]:
    """A size divided, rounded down or up."""
    for samples, text in bases:
        for k in range(2, 33):
            yield from _affine(wanted, tuple(x // k for x in samples), f"{text} // {k}")
            yield from _affine(wanted, tuple(-(-x // k) for x in samples), f"-(-{text} // {k})")


def _sums(wanted: Samples, bases: Known) -> Iterator[str]:
    """Sums and differences of two sizes, and something more."""
    for (a, left), (b, right) in permutations(bases, 2):
        for sign, total in (("+", map(add, a, b)), ("-", map(sub, a, b))):
            rest = {w - t for w, t in zip(wanted, total, strict=True)}
            if len(rest) == 1:
                yield _plus(f"{left} {sign} {right}", int(rest.pop()))


def _rests(wanted: Samples, bases: Known) -> Iterator[str]:
    """What a size lacks to a multiple of k, as paddings do, or has beyond one: r + b, and half of it."""
    for sign, more, (samples, text), k in product((-1, 1), range(9), bases, range(2, 9)):
        total = tuple(sign * x % k + more for x in samples)
        form = _plus(f"{'-' if sign < 0 else ''}{text} % {k}", more)
        if total == wanted:
            yield form
        if tuple(t // 2 for t in total) == wanted:
            yield f"({form}) // 2"


def _affine(wanted: Samples, samples: Samples, text: str) -> Iterator[str]:
    """a n + b with whole a, b."""
    at = next((i for i, s in enumerate(samples) if s != samples[0]), None)
    if at is None:
        return
    factor, left = divmod(wanted[at] - wanted[0], samples[at] - samples[0])
    more = wanted[0] - factor * samples[0]
    if left or not factor or any(w != factor * s + more for w, s in zip(wanted, samples, strict=True)):
        return
    if factor == -1:
        yield f"{int(more)} - {text}"
        return
    inner = f"({text})" if "+" in text or ("-" in text and not text.startswith("-(")) else text
    yield _plus(text if factor == 1 else f"{int(factor)} * {inner}", int(more))


def _plus(text: str, more: int) -> str:
    return text if not more else f"{text} + {more}" if more > 0 else f"{text} - {-more}"


def _float(wanted: Samples, known: Known) -> str | None:
    """(n + a) / (n + b) to a power, with n + b of at least 1, 1 / (n + a), n + a as floats."""
    for samples, text in _distinct(known):
        if len(set(samples)) < 2:
            continue
        for a in range(-3, 4):
            tops = [s + a for s in samples]
            for b in range(-3, 4):
                lows = [s + b for s in samples]
                found = _power(wanted, tops, lows, f"({_plus(text, a)}) / ({_plus(text, b)})") if a != b else None
                if not found and min(lows) == 0:  # of the first turn of a loop
                    lows = [max(low, 1) for low in lows]
                    found = _power(wanted, tops, lows, f"({_plus(text, a)}) / max({_plus(text, b)}, 1)")
                if found:
                    return found
            for powered, form in ((1.0, "{}"), (-1.0, "1 / ({})"), (0.5, "({}) ** 0.5"), (-0.5, "({}) ** -0.5")):
                if all(t > 0 and math.isclose(t**powered, w, rel_tol=1e-12) for t, w in zip(tops, wanted, strict=True)):
                    return form.format(_plus(text, a))
    return None


def _power(wanted: Samples, tops: Sequence[float], lows: Sequence[float], text: str) -> str | None:
    if any(low <= 0 or top <= 0 or w <= 0 for w, top, low in zip(wanted, tops, lows, strict=True)):
        return None
    at = next((i for i, (top, low) in enumerate(zip(tops, lows, strict=True)) if top != low), None)
    if at is None:
        return None
    exponent = math.log(wanted[at]) / math.log(tops[at] / lows[at])
    rounded = float(f"{exponent:.6g}")
    fits = rounded > 0 and all(
        math.isclose((t / low) ** rounded, w, rel_tol=1e-9) for t, low, w in zip(tops, lows, wanted, strict=True)
    )
    if not fits:
        return None
    return text if rounded == 1.0 else f"({text}) ** {rounded:g}"
