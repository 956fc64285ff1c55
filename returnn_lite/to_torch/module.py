"""A network as one Python file: its class, the functions it calls, and its weights."""

from __future__ import annotations

import builtins
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from returnn_lite.to_torch.folding import content, folded
from returnn_lite.to_torch.functions import draws
from returnn_lite.to_torch.loops import Carried, Item, Listed, Loop, outs, reads, rolled
from returnn_lite.to_torch.pruning import Live, ends_loop, needed_calls, pruned
from returnn_lite.to_torch.recorder import PLAIN, Call, Number, Recorder, Value, is_plain
from returnn_lite.to_torch.regions import Grouping, Helper, name_helpers, without_loops
from returnn_lite.to_torch.scope import Scope, Unwritable
from returnn_lite.to_torch.sizes import Samples
from returnn_lite.to_torch.writer import Writer

ALIKE = 3  # so many recordings must agree

TEMPLATE = '''"""{title}"""

{imports}
{helpers}

class Net(torch.nn.Module):
    """{title}"""

    def __init__(self):
        super().__init__()
{weights}

    def forward(self, {inputs}):
{body}


def load(filename={weights_file!r}):
    """The network with its weights."""
    net = Net()
    net.load_state_dict(torch.load(filename, weights_only=True))
    return net.eval()
'''


@dataclass
class Recording:
    """What was recorded of a batch; tensors that are to be given, by name; outputs of layers, by their paths."""

    recorder: Recorder
    outputs: Mapping[str, Value]
    layers: Mapping[str, Value] = field(default_factory=dict)


@dataclass
class Module:
    """The text of a file, the weights by their names in it, and the names of what `forward` takes.

    `draws`: whether it draws random numbers; `searches`: whether its loops may end early; `loops`: the layers whose
    loops turn as often as the sizes of a batch say. `layers`: the variables of `forward` that are outputs of layers, by
    their paths; `biases`: attributes that are vectors of parameters as the network has them, with the names of these.
    """

    text: str
    weights: dict[str, torch.Tensor]
    inputs: tuple[str, ...] = ()
    draws: bool = False
    loops: tuple[str, ...] = ()
    searches: bool = False
    layers: dict[str, str] = field(default_factory=dict)
    biases: dict[str, str] = field(default_factory=dict)

    def chosen(self, arrays: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Those of these arrays that it takes."""
        return {name: x for name, x in arrays.items() if name in self.inputs}


def make_module(recordings: Sequence[Recording], title: str, weights_file: str, comments: dict[str, str]) -> Module:
    """The file of a network of which batches of other sizes were recorded; `comments`: a line for each layer.

    Raises Unwritable for what no file could compute.
    """
    grouping = Grouping()
    foldings = folded([r.recorder for r in recordings])
    for f, r in zip(foldings, recordings, strict=True):
        r.outputs = {name: f.instead.get(x, x) for name, x in r.outputs.items()}
    flat = without_loops([f.calls for f in foldings])
    calls = [grouping.grouped(c, set(r.outputs.values())) for c, r in zip(flat, recordings, strict=True)]
    unused: frozenset[int] = frozenset()
    while True:
        made = _Assembly(recordings, calls, unused).written(title, weights_file, comments)
        idle = made.idle
        if idle <= unused:
            if made.varies is not None:
                raise Unwritable("numbers that Python makes by the sizes of a batch go into it", made.varies)
            kept = {name for folding in foldings for name in folding.params}
            made.module.biases = {name: param for name, param in made.module.biases.items() if param not in kept}
            return made.module
        unused |= idle


@dataclass
class _Written:
    """A file, which of the numbers that are read off tensors it does not use, and the layer whose constants vary."""

    module: Module
    idle: frozenset[int]
    varies: str | None


class _Assembly:
    """The rolled recordings that are alike, without the numbers that are `unused`."""

    def __init__(self, recordings: Sequence[Recording], calls: Sequence[list[Call]], unused: frozenset[int]) -> None:
        alike: dict[Any, list[tuple[Recording, list[Item], list[Number]]]] = {}
        for recording, of_recording in zip(recordings, calls, strict=True):
            program = rolled(of_recording)
            numbers = list(_numbers(program))
            read = [x for i, x in enumerate(numbers) if i not in unused]
            program = pruned(program, Live([*recording.outputs.values(), *read]))
            alike.setdefault(tuple(map(_kind, program)), []).append((recording, program, numbers))
        enough = [group for group in alike.values() if len(group) >= ALIKE]
        if not enough:
            groups = sorted(alike.values(), key=len, reverse=True)
            where = _first_unlike(groups[0][0][1], groups[1][0][1])
            raise Unwritable("it computes in another way for almost every size of a batch", where)
        most = max(enough, key=lambda group: (_size(group[0][1]), len(group)))  # others take short cuts, as no padding
        self.recordings = [recording for recording, _, _ in most]
        self.programs = [program for _, program, _ in most]
        self.numbers = most[0][2]
        self.calls = [*_calls(self.programs[0])]
        self.weights: dict[str, Value] = {}
        self.varies: str | None = None  # the layer that reads a constant that differs from recording to recording

    def written(self, title: str, weights_file: str, comments: dict[str, str]) -> _Written:
        """The file."""
        helpers = list(dict.fromkeys(c.function for c in self.calls if isinstance(c.function, Helper)))
        for helper in helpers:
            every = (c for program in self.programs for c in _calls(program, all_turns=True))
            helper.uses = [c.use for c in every if c.function is helper]
        name_helpers(helpers)
        functions = [helper_text(helper) for helper in helpers]
        scope = self._scope({helper.name for helper in helpers})
        outputs = self.recordings[0].outputs
        reading, results = _times_read(self.programs[0]), _layer_results(self.calls, outputs.values())
        reading.update(dict.fromkeys(outputs.values(), 2))
        inside = [op for call in self.calls if call.use for inner in call.use.calls for op in inner.ops]
        names = {x: name for op in inside for x, name in op.names.items() if name not in PLAIN}
        names.update(self.recordings[0].recorder.locals)
        writer = Writer(scope, " " * 8, reads=reading, results=results, comments=comments, names=names)
        writer.write(self.programs)
        given = ", ".join(f'"{name}": {writer.text(x)}' for name, x in outputs.items())
        writer.line(f"return {{{given}}}")
        weights = {name: x.tensor for name, x in self.weights.items() if x.tensor is not None}
        body = "\n".join(writer.lines)
        uses_functions = re.search(r"\bF\.", "".join([body, *functions]))
        text = TEMPLATE.format(
            title=title,
            imports="import torch" + "\nimport torch.nn.functional as F" * bool(uses_functions),
            helpers="".join(f"\n\n{text}" for text in functions),
            weights="\n".join(map(_declared, weights, weights.values())),
            inputs=", ".join(self.recordings[0].recorder.inputs),
            body=body,
            weights_file=weights_file,
        )
        inner = [c for helper in helpers for c in helper.calls]
        random = any(draws(call.function) for call in (*self.calls, *inner))
        inputs = tuple(self.recordings[0].recorder.inputs)
        module = Module(text, weights, inputs, random, self._loops(), any(map(ends_loop, self.calls)))
        module.layers = {path: scope.names[x] for path, x in self.recordings[0].layers.items() if x in scope.names}
        module.biases = {
            name: x.name
            for name, x in self.weights.items()
            if x.source == "param" and len(x.shape) == 1 and x.dtype.is_floating_point
        }
        return _Written(module, self._idle(scope, text), self.varies)

    def _loops(self) -> tuple[str, ...]:
        rows = [[x for x in row if isinstance(x, Loop)] for row in zip(*self.programs, strict=True)]
        return tuple(row[0].layer for row in rows if len({len(x.turns) for x in row}) > 1)

    def _scope(self, taken: set[str]) -> Scope:
        """What the file's `forward` may name at its beginning."""
        inputs = self.recordings[0].recorder.inputs
        scope = Scope(f"{next(iter(inputs))}.device", taken=taken | set(dir(builtins)) | set(inputs))
        for name, x in inputs.items():
            scope.names[x] = name
            scope.add_sizes(name, [r.recorder.inputs[name] for r in self.recordings])
        attributes = Scope("", taken=set(dir(torch.nn.Module)))
        for layer, row in self._read():
            x = row[0]
            if x.source == "constant" and self.varies is None and len(set(map(content, row))) > 1:
                self.varies = layer
            if x.source in ("param", "constant") and x not in scope.names:
                name = attributes.fresh(re.sub(r"(/batch_norm/)\w*_(?=\w+$)", r"\1", x.name) or "constant")
                scope.names[x] = f"self.{name}"
                self.weights[name] = x
        return scope

    def _read(self) -> Iterator[tuple[str, tuple[Value, ...]]]:
        """All tensors that are read or given, in all recordings, with the layer that reads them."""
        for calls in zip(*map(_calls, self.programs), strict=True):
            yield from ((calls[0].layer, row) for row in zip(*map(_values, calls), strict=False))
        yield from (("", row) for row in zip(*(r.outputs.values() for r in self.recordings), strict=True))

    def _idle(self, scope: Scope, text: str) -> frozenset[int]:
        names = {i: scope.names.get(x) for i, x in enumerate(self.numbers)}
        words = Counter(re.findall(r"\w+", text))
        return frozenset(i for i, name in names.items() if not name or words[name] < 2)


def _declared(name: str, x: torch.Tensor) -> str:
    shape = ", ".join(map(str, x.shape)) or "()"
    dtype = "" if x.dtype == torch.float32 else f", dtype={x.dtype}"
    if x.is_floating_point():
        return f"        self.{name} = torch.nn.Parameter(torch.empty({shape}{dtype}))"
    return f'        self.register_buffer("{name}", torch.empty({shape}{dtype}))'


def helper_text(helper: Helper) -> str:
    """A function of the file; sets what it is handed beside tensors. It reads no numbers that it does not use."""
    numbers = [x for call in helper.calls for x in outs(call) if isinstance(x, Number)]
    while True:
        text, scope = _function(helper, numbers)
        words = Counter(re.findall(r"\w+", text))
        used = [x for x in numbers if words[scope.names.get(x, "")] > 1]
        if len(used) == len(numbers):
            return text
        numbers = used


def _function(helper: Helper, numbers: Sequence[Number]) -> tuple[str, Scope]:
    """Its text, and the names in it."""
    first = helper.uses[0]
    op = first.calls[0].op
    helper.parameters = {}
    scope = Scope("", taken=set(dir(builtins)))
    for at, x in enumerate(first.inputs):
        wish = x.name.rpartition("/")[2] if isinstance(x, Value) else ""
        name = scope.names[x] = scope.fresh(
            (op is not None and isinstance(x, Value) and op.names.get(x)) or wish or "x"
        )
        if isinstance(x, Value):
            scope.device = scope.device or f"{name}.device"
            scope.add_sizes(name, [v for use in helper.uses if isinstance(v := use.inputs[at], Value)])
    names = [scope.names[x] for x in first.inputs]
    scope.device = scope.device or scope.fresh("device")
    returned = [first.values[i] for i in sorted(helper.escaping)]

    def handed(number: int, row: Samples) -> str:
        wish = op.numbers.get(row[0], "number") if op is not None else "number"
        helper.parameters[number] = scope.known[row] = scope.fresh(wish)
        return scope.known[row]

    kept = needed_calls(first.calls, [*returned, *numbers])
    reading = Counter(x for i in kept for x in reads(first.calls[i]))
    reading.update(dict.fromkeys(returned, 2))
    locals_ = {x: name for call in first.calls for op in call.ops for x, name in op.names.items()}
    writer = Writer(scope, " " * 4, reads=reading, missing=handed, names=locals_)
    amounts = [sum(map(is_plain, reads(call))) for call in first.calls]
    writer.first_numbers = [sum(amounts[:i]) for i in kept]
    writer.write([[use.calls[i] for i in kept] for use in helper.uses])
    given = ", ".join(scope.names[x] for x in returned)
    if writer.lines and writer.lines[-1].startswith(f"    {given} = "):
        writer.lines[-1] = writer.lines[-1].replace(f"{given} =", "return", 1)
    else:
        writer.line(f"return {given}")
    names += [helper.parameters[i] for i in sorted(helper.parameters)]
    helper.needs_device = scope.device == "device" and any("=device" in line for line in writer.lines)
    names += ["device"] * helper.needs_device
    doc = docstring(helper.doc, names)
    return f"def {helper.name}({', '.join(names)}):\n{doc}" + "\n".join(writer.lines) + "\n", scope


def docstring(doc: str, names: Sequence[str]) -> str:
    """The docstring of a function with arguments of these names, without sentences about others and about training."""
    paragraphs = []
    for at, paragraph in enumerate(re.split(r"\n\s*\n", doc.strip())):
        sentences = re.split(r"(?<=\.)\s+(?=[A-Z`])", " ".join(paragraph.split()))
        told = [s for i, s in enumerate(sentences) if (at == i == 0) or _is_about(s, names)]
        paragraphs += [textwrap.fill(" ".join(told), 109)] * bool(told)
    text = "\n\n".join(paragraphs)
    return textwrap.indent(f'"""{text}"""\n', "    ") if text else ""


def _is_about(sentence: str, names: Sequence[str]) -> bool:
    """Whether a sentence is about a function that takes `names`."""
    others = set(re.findall(r"`([\w.]+)`", sentence)) - set(names)
    return not others and not re.search(r"gradient|autograd|dropout", sentence)


# --- questions about a rolled recording -------------------------------------------------------------------------------


def _calls(program: Iterable[Item], *, all_turns: bool = False) -> Iterator[Call]:
    """All calls, those of the first turn or of all turns of loops."""
    for item in program:
        if isinstance(item, Call):
            yield item
        else:
            for turn in item.turns if all_turns else item.turns[:1]:
                yield from turn


def _size(program: Iterable[Item]) -> int:
    """How many calls it has, those of helpers counted, those of a loop once."""
    return sum(len(c.function.calls) if isinstance(c.function, Helper) else 1 for c in _calls(program))


def _kind(item: Item) -> Any:
    """What is the same in recordings that are alike."""
    if isinstance(item, Loop):
        return tuple(map(_kind, item.turns[0])), tuple(item.inputs), tuple(sorted(item.lists))
    return item.function, len(reads(item))


def _first_unlike(program: Sequence[Item], other: Sequence[Item]) -> str:
    """The layer of the first item that two recordings do not have in common."""
    pairs = zip(program, other, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if _kind(a) != _kind(b)), min(len(program), len(other)))
    longer = max(program, other, key=len)
    return longer[min(at, len(longer) - 1)].layer if longer else ""


def _numbers(program: Iterable[Item]) -> Iterator[Number]:
    """The numbers that are read off tensors outside of loops; those of constants are none that a file needs."""
    for item in program:
        if isinstance(item, Call) and {x.source for x in _values(item)} != {"constant"}:
            yield from (x for x in outs(item) if isinstance(x, Number))


def _values(call: Call) -> Iterator[Value]:
    """The tensors that a call reads."""
    for x in reads(call):
        for part in x.parts if isinstance(x, Listed) else (x,):
            if isinstance(part, Value):
                yield part


def _times_read(program: Iterable[Item]) -> Counter[Any]:
    """How often each Value is read; more than once if by a loop or if it outlasts one."""
    found: Counter[Any] = Counter()
    for item in program:
        if isinstance(item, Call):
            found.update(x for x in reads(item) if isinstance(x, (Value, Number)))
            found.update({p: 2 for x in reads(item) if isinstance(x, Listed) for p in x.parts if isinstance(p, Value)})
            continue
        own = {x for call in item.turns[0] for x in outs(call)}
        for call in item.turns[0]:
            found.update({x: 1 if x in own else 2 for x in reads(call) if isinstance(x, (Value, Number))})
        for source in item.inputs.values():
            parts = [source.first] if isinstance(source, Carried) else source.of.parts
            found.update({x: 2 for x in parts if isinstance(x, Value)})
    return found


def _layer_results(calls: Sequence[Call], outputs: Iterable[Value]) -> set[Value]:
    """For each layer the last of its results that others read."""
    makers = {x: call.layer for call in calls for x in outs(call) if isinstance(x, Value)}
    read = {x for call in calls for x in _values(call) if makers.get(x, call.layer) != call.layer} | set(outputs)
    return set({layer: x for x, layer in makers.items() if x in read}.values())
