"""Writes a rolled recording as Python: what several recordings of one network have in common."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from returnn_lite.to_torch.functions import NUMBERS, changes_in_place
from returnn_lite.to_torch.loop_text import elements_of, head
from returnn_lite.to_torch.loops import Carried, Element, Item, Listed, Loop, Part, Place, outs, reads
from returnn_lite.to_torch.pruning import ends_loop
from returnn_lite.to_torch.recorder import Call, Number, Value, is_plain
from returnn_lite.to_torch.regions import Helper
from returnn_lite.to_torch.scope import Scope, Unwritable, layer_name
from returnn_lite.to_torch.sizes import Samples, expression
from returnn_lite.to_torch.text import call_text, plain, wrapped

TURNS = 10  # so many of each loop are looked at
LONGEST = 60  # of what stands where its result is used
# What may stand there.
INLINE = frozenset(
    {"permute", "unsqueeze", "squeeze", "reshape", "view", "flatten", "t", "transpose", "movedim", "to", "expand",
     "contiguous", "zeros", "arange", "neg", "__getitem__", "unflatten", "float", "long", "full", "ones", "new_zeros",
     "all", "max"}
)  # fmt: skip
ROWS = {"index_select": "chosen", "repeat_interleave": "repeated"}  # of other rows; they keep their name
WORDS = {"add": "sum", "mul": "product", "sub": "difference", "to": "cast", "eq": "equal", "getitem": "item"}


class Writer:
    """Writes the items of a block as `lines`.

    `reads`: how often each Value is read; `results`: the Values that carry the name of their layer; `comments`: a
    line for each layer by its path; `missing`: gives a text for a number that no size tells; `names` of variables.
    """

    def __init__(
        self,
        scope: Scope,
        indent: str,
        *,
        reads: Counter[Any],
        results: Iterable[Value] = (),
        comments: dict[str, str] | None = None,
        missing: Callable[[int, Samples], str] | None = None,
        names: Mapping[Value, str] | None = None,
    ) -> None:
        self.scope, self.indent = scope, indent
        self.reads, self.results = reads, set(results)
        self.comments, self.missing, self.names = comments or {}, missing, names or {}
        self.lines: list[str] = []
        self.waiting: dict[Any, tuple[str, Call]] = {}  # results that may stand where they are used
        self.layer = ""
        self.loop: Loop | None = None  # whose body is written
        self.first_numbers: Sequence[int] = ()  # of each call of a helper, which of its numbers comes first

    # --- blocks -------------------------------------------------------------------------------------------------------

    def write(self, samples: Sequence[Sequence[Item]]) -> None:
        """The items of a block: alike in all samples, of which the first is written."""
        for position, row in enumerate(zip(*samples, strict=True)):
            try:
                if isinstance(row[0], Loop):
                    self._loop([item for item in row if isinstance(item, Loop)])
                else:
                    self._call([item for item in row if isinstance(item, Call)], position)
            except Unwritable as exc:
                raise Unwritable(str(exc), exc.layer or row[0].layer) from exc
        self.flush()

    def line(self, text: str) -> None:
        """Adds a line."""
        self.lines.append(wrapped(f"{self.indent}{text}"))

    def _comment(self, layer: str) -> None:
        if layer != self.layer and layer in self.comments:
            self.flush()
            self.layer = layer
            self.lines.append(f"{self.indent}# {self.comments[layer]}")

    def flush(self, but: Iterable[Any] = ()) -> None:
        """Gives names to results that wait."""
        kept = set(but)
        for value in [v for v in self.waiting if v not in kept]:
            text, call = self.waiting.pop(value)
            self.line(f"{self._name(call, value)} = {text}")

    # --- loops --------------------------------------------------------------------------------------------------------

    def _loop(self, loops: list[Loop]) -> None:
        self.flush()
        first = loops[0]
        for place in sorted(first.lists):
            self.scope.names[first, place] = self.scope.fresh(f"{self._wish_at(first, place)}_all")
            self.line(f"{self.scope.names[first, place]} = []")
        carried: dict[tuple[Value, Place], str] = {}
        turn_names: dict[tuple[int, int], str] = {}
        for at, source in first.inputs.items():
            if isinstance(source, Carried):
                turn_names[at] = self._carried(first, source, carried)
        turn = self.scope.fresh("t")
        lists = {at: self.list_text(x.of) for at, x in first.inputs.items() if isinstance(x, Element)}
        number = self._count(loops)
        elements = elements_of(list(dict.fromkeys(lists.values())), turn if number else "", self.scope, self.line)
        turn_names.update({at: elements[listed] for at, listed in lists.items()})
        body = self._body(loops, turn, turn_names, carried)
        self.line(head(turn, number, elements, body))
        self.lines += body

    def _carried(self, loop: Loop, source: Carried, known: dict[tuple[Value, Place], str]) -> str:
        """The name of what goes from turn to turn, set to what the first one reads."""
        key = (source.first, source.place)
        if key not in known:
            known[key] = self.scope.fresh(f"{self._wish_at(loop, source.place)}_prev")
            self.line(f"{known[key]} = {self.text(source.first)}")
        return known[key]

    def _body(
        self, loops: list[Loop], turn: str, turn_names: dict[tuple[int, int], str], carried: dict[Any, str]
    ) -> list[str]:
        """The lines of the body of a loop."""
        first = loops[0]
        scope = self.scope.body([min(len(x.turns), TURNS) for x in loops], turn, turn_names)
        writer = Writer(
            scope,
            f"{self.indent}    ",
            reads=self.reads,
            results=self.results,
            comments=self.comments,
            names=self.names,
        )
        writer.layer, writer.loop = self.layer, first
        writer.write([t for x in loops for t in x.turns[:TURNS]])
        for (_, (j, k)), name in carried.items():
            writer.line(f"{name} = {scope.names[outs(first.turns[0][j])[k]]}")
        self.layer = writer.layer
        self.scope.taken |= scope.taken
        for last, own in zip(first.turns[-1], first.turns[0], strict=True):
            for x, of_first in zip(outs(last), outs(own), strict=True):
                if of_first in scope.names:
                    self.scope.names[x] = scope.names[of_first]
        return writer.lines

    def _count(self, loops: list[Loop]) -> str:
        """How often a loop turns: a number that was read or a size; "" if once for each element of its lists.

        Lists are read backward by loops that follow the hypotheses back, from the last turn on; others go up to the
        lengths of the sequences.
        """
        counts = tuple(len(x.turns) + x.ticks_left for x in loops)
        lists = [x.of for x in loops[0].inputs.values() if isinstance(x, Element)]
        backward = [x for x in lists if any(isinstance(p, Part) and p.backward for p in x.parts)]
        if counts in self.scope.numbers and (not lists or len(backward) < len(lists)):
            return self.scope.numbers[counts]
        if lists:
            return ""
        number = expression(counts, [], [*self.scope.numbers.items(), *self.scope.known.items()])
        if number is None:
            raise Unwritable("no size tells how often its loop turns", loops[0].layer)
        return number

    # --- calls --------------------------------------------------------------------------------------------------------

    def _call(self, calls: list[Call], position: int) -> None:
        call = calls[0]
        self._comment(call.layer)
        if ends_loop(call):
            self.flush(but=reads(call))
            if self.scope.in_loop:
                self.line(f"if {self.leaf(reads(call)[0], position, 0, [reads(call)[0]])}:")
                self.line("    break")
            return
        if changes_in_place(call.function) or isinstance(call.function, Helper):
            self.flush(but=reads(call))
        text = self._text(calls, position)
        results = [x for x in outs(call) if isinstance(x, (Value, Number))]
        if isinstance(call.function, Helper):
            results = [outs(call)[i] for i in sorted(call.function.escaping)]
        if not results or (changes_in_place(call.function) and self._stays_unnamed(results[0])):
            self.flush()
            self.line(text)
        elif self._may_wait(call, position, results, text):
            self.waiting[results[0]] = text, call
        else:
            self.line(f"{self._targets(calls, results, position)} = {text}")
            self._learn(calls, [x for x in results if x in self.scope.names])
            self._append(call, position)

    def _stays_unnamed(self, x: Any) -> bool:
        """Whether what is changed in place needs no name: it has one, or is read nowhere else."""
        return x in self.scope.names or self.reads[x] < 2

    def _is_read(self, position: int, k: int, x: Any) -> bool:
        """Whether a result of a call is read."""
        if self.loop is None:
            return self.reads[x] > 0
        places = {s.place for s in self.loop.inputs.values() if isinstance(s, Carried)} | self.loop.lists
        last = outs(self.loop.turns[-1][position])[k]
        return (position, k) in places or self.reads[x] + self.reads[last] > 0

    def _targets(self, calls: list[Call], results: list[Any], position: int) -> str:
        """What the results are assigned to: names, or one name for a list whose length depends on the data."""
        call = calls[0]
        if len({len(outs(c)) for c in calls}) > 1:
            return self._list_of(call)
        is_tuple = isinstance(call.out, (list, tuple)) and not isinstance(call.function, Helper)
        unread = {x for k, x in enumerate(results) if is_tuple and not self._is_read(position, k, x)}
        names = ", ".join("_" if x in unread else self._name(call, x) for x in results)
        return f"{names}," if is_tuple and len(results) == 1 else names

    def _learn(self, calls: list[Call], results: list[Any]) -> None:
        """Sizes, numbers and elements of these results may be used from now on."""
        call = calls[0]
        if len({len(outs(c)) for c in calls}) > 1:
            for c in calls:
                found = outs(c)
                self.scope.elements.update({x: (self._list_of(call), i, len(found)) for i, x in enumerate(found)})
            return
        for x in results:
            at = outs(calls[0]).index(x)
            if isinstance(x, Value):
                self.scope.add_sizes(self.scope.names[x], [outs(c)[at] for c in calls])
            else:
                samples = tuple(outs(c)[at].value for c in calls)
                known = {key: name for key, name in self.scope.numbers.items() if key != samples}
                self.scope.numbers = {samples: self.scope.names[x], **known}  # the latest one is looked at first

    def _append(self, call: Call, position: int) -> None:
        """Results of which a list is kept go into it."""
        for k, x in enumerate(outs(call)):
            listed = self.scope.names.get((self.loop, (position, k)))
            if listed:
                self.line(f"{listed}.append({self.scope.names[x]})")

    def _may_wait(self, call: Call, position: int, results: list[Any], text: str) -> bool:
        """Whether the call may stand where its result is used."""
        if len(results) != 1 or call.function.__name__ not in INLINE or len(text) >= LONGEST:
            return False
        if self.loop is not None:
            places = {s.place for s in self.loop.inputs.values() if isinstance(s, Carried)} | self.loop.lists
            if (position, 0) in places:
                return False
        return self.reads[results[0]] == 1

    # --- text ---------------------------------------------------------------------------------------------------------

    def _text(self, calls: list[Call], position: int) -> str:
        """The call as Python."""
        call = calls[0]
        rows = list(zip(*map(reads, calls), strict=True))
        count = self.first_numbers[position] if self.first_numbers else 0
        numbers: dict[int, str] = {}
        for i, row in enumerate(rows):
            if is_plain(row[0]):
                numbers[i] = self._number(row, rows, position, count)
                count += 1
        more: list[str] = []
        if isinstance(call.function, Helper):
            handed = sorted(call.function.parameters)
            more = [self._number(tuple(c.use.numbers[i] for c in calls), rows, position, i) for i in handed]
            more += [self.scope.device] * call.function.needs_device

        is_stack = call.function is torch.stack and len(call.arguments) == 1  # which may be empty, and is cut itself
        cut = ""

        def leaf(i: int, x: Any) -> str:
            nonlocal cut
            if i in numbers:
                return numbers[i]
            if isinstance(x, (Value, Number)):
                return self.leaf(x, position, i, rows[i])
            if isinstance(x, Listed):
                end = self.scope.numbers.get(tuple(listed.length for listed in rows[i]))
                cut = f"[:{end}]" if end else ""
                return self.list_text(x) if is_stack else f"{self.list_text(x)}{cut}"
            return self.scope.device if isinstance(x, torch.device) else plain(x)

        text = call_text(call, leaf, more)
        return f"{text}{cut}" if is_stack else text

    def _number(self, row: Samples, rows: Sequence[tuple[Any, ...]], position: int, number: int) -> str:
        """The expression of a number among the arguments."""
        if row in self.scope.numbers:
            return self.scope.numbers[row]
        known = [*self.scope.numbers.items(), *self.scope.known.items()]
        text = expression(row, self._near(rows, position), known)
        if text is None and self.waiting:
            self.flush()  # their sizes may tell it
            text = expression(row, self._near(rows, position), known)
        if text is None and self.missing is not None:
            text = self.missing(number, row)
        if text is None:
            others = ", ".join(map(str, row[1:5]))
            raise Unwritable(f"no size tells a number that it computes with ({row[0]}; in other batches {others})")
        return text

    def _near(self, rows: Sequence[tuple[Any, ...]], position: int) -> list[tuple[Samples, str]]:
        """The sizes of the arguments that have names."""
        near: list[tuple[Samples, str]] = []
        for i, row in enumerate(rows):
            x = row[0]
            if isinstance(x, Value) and x not in self.waiting and len({len(v.shape) for v in row}) == 1:
                name = self.leaf(x, position, i, row)
                near += [
                    (sizes, f"{name}.shape[{axis}]")
                    for axis, sizes in enumerate(zip(*(v.shape for v in row), strict=True))
                ]
            elif isinstance(x, Listed):
                near.append((tuple(v.length for v in row), f"len({self.list_text(x)})"))
        return near

    def leaf(self, x: Any, position: int, i: int, row: Sequence[Any]) -> str:
        """The text of a Value among the arguments, which is `row` in the samples."""
        element = self.scope.element(row) if x in self.scope.elements else None
        return self.scope.turn_names.get((position, i)) or element or self.text(x)

    def text(self, x: Any) -> str:
        """The name of a Value, or the call that makes it."""
        if x in self.waiting:
            return self.waiting.pop(x)[0]
        if x not in self.scope.names:
            raise Unwritable("it reads what the file does not compute")
        return self.scope.names[x]

    # --- lists --------------------------------------------------------------------------------------------------------

    def list_text(self, listed: Listed) -> str:
        """A list of Values and of parts of other lists: an expression, or the name that it gets."""
        parts = [f"*{self._part(p)}" if isinstance(p, Part) else self.text(p) for p in listed.parts]
        if len(parts) == 1:
            return parts[0].removeprefix("*")
        key = tuple(parts)
        if key not in self.scope.names:
            self.scope.names[key] = self.scope.fresh("all_frames")
            self.line(f"{self.scope.names[key]} = [{', '.join(parts)}]")
        return self.scope.names[key]

    def _part(self, part: Part) -> str:
        if isinstance(part.of, Loop):
            name = self.scope.names[part.of, part.of.place_now(part.place)]
        else:
            name = self._list_of(part.of)
        cut = f"[{part.start or ''}:{-part.end or ''}]" if part.start or part.end else ""
        return f"{name}{cut}{'[::-1]' if part.backward else ''}"

    def _list_of(self, call: Call) -> str:
        """The name of the list that a call gives."""
        key = ("list", call)
        if key not in self.scope.names:
            self.scope.names[key] = self.scope.fresh(f"{self._wish(call, None)}_all")
        return self.scope.names[key]

    # --- names --------------------------------------------------------------------------------------------------------

    def _name(self, call: Call, value: Any) -> str:
        if value not in self.scope.names:
            self.scope.names[value] = self.scope.fresh(self._wish(call, value))
        return self.scope.names[value]

    def _wish(self, call: Call, value: Any) -> str:
        """The layer's name for its result, else with what was done behind it."""
        layer = layer_name(call) if self.comments else ""
        if value in self.results and layer:
            return layer
        base = self._rows_of(call) if value is not None else ""
        if base:
            return f"{base}_{ROWS[call.function.__name__]}"
        if value in self.names:
            return f"{layer}_{self.names[value]}" if layer != self.names[value] else layer
        name = call.function.base if isinstance(call.function, Helper) else call.function.__name__
        function = "number" if call.function in NUMBERS else name.strip("_")
        return f"{layer}_{WORDS.get(function, function)}"

    def _rows_of(self, call: Call) -> str:
        """The name of the tensor of which a call takes rows, "" if it does not, or if the turn before gave it."""
        if call.function.__name__ not in ROWS:
            return ""
        inputs = self.loop.inputs.values() if self.loop is not None else ()
        carried = any(isinstance(x, Carried) and x.first is call.args[0] for x in inputs)
        name = "" if carried else self.scope.names.get(call.args[0], "")
        return "" if name.startswith("self.") else re.sub(r"_[0-9]+$", "", name)

    def _wish_at(self, loop: Loop, place: Place) -> str:
        """The name of what a loop gives there, before it is written: for rows of a layer's output that of the layer."""
        call = loop.turns[0][place[0]]
        if call.function.__name__ in ROWS:
            layer = next((layer_name(c) for c in loop.turns[0] if call.args[0] in outs(c)), "")
            if layer:
                return layer
        return self._wish(call, outs(call)[place[1]])
