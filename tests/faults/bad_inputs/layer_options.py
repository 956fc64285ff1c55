"""Layer classes and losses: every option with values of every kind."""

from collections.abc import Iterator
from typing import Any

from returnn_lite.config.option_types import Kind, option_kinds, wrong_values
from returnn_lite.layers.core.options import CommonOptions
from returnn_lite.layers.core.registry import layer_class, own_options
from returnn_lite.losses.base import CommonLossOptions, loss_class, loss_names
from tests.faults.bad_inputs.cases import VALUES, Case, literal
from tests.layers.layer_cases import BATCH, LENGTHS
from tests.layers.test_all_layers import CASES as ROWS
from tests.layers.test_all_layers import keys_of, made
from tests.nets import batch, network

ANSWERED_BY = ("linear", "copy")  # the layers on which the options that all layers have are tried
ELSEWHERE = {"eval.states", "choice.sampled", "print", "hdf_dump"}  # ones that write
REWRITTEN = {("switch", "condition"), ("concat", "axes")}  # before the class sees them
SPELLING = {"from_": "from"}


def layer_cases() -> Iterator[Case]:
    """One layer of the table of layers each, one of its options changed."""
    seen = set()
    for row in ROWS:
        if row.word in seen or row.word in ELSEWHERE:
            continue
        seen.add(row.word)
        cls = layer_class(row.word, "")
        kinds: dict[str, Kind] = {**option_kinds(CommonOptions), **option_kinds(cls.__init__)}
        common = list(kinds) if row.word in ANSWERED_BY else []
        for option in dict.fromkeys([*own_options(cls), *common]):
            for value in VALUES:
                wrong = bool(wrong_values(kinds, {option: value}, "")) and (row.word, option) not in REWRITTEN
                yield _layer_case(row, SPELLING.get(option, option), value, wrong)


def _layer_case(row: Any, option: str, value: Any, wrong: bool) -> Case:
    def build() -> None:
        net = made(row, **{option: value})
        data, lengths = batch(keys_of(row), LENGTHS, size=BATCH)
        net(data, lengths, [f"seq-{i}" for i in range(BATCH)])

    return Case(f"layer {row.word}: {option} = {literal(value)}", ("network[",), wrong, build=build)


def loss_cases() -> Iterator[Case]:
    """Every loss with each of its options changed, on a softmax."""
    for name in loss_names():
        kinds = {**option_kinds(CommonLossOptions), **option_kinds(loss_class(name).__init__)}
        for option in kinds:
            for value in VALUES:
                wrong = bool(wrong_values(kinds, {option: value}, ""))
                yield _loss_case(name, option, value, wrong)


def _loss_case(name: str, option: str, value: Any, wrong: bool) -> Case:
    def build() -> None:
        output = {"class": "softmax", "from": "data", "target": "classes", "loss": name, "loss_opts": {option: value}}
        network({"output": output})

    return Case(f"loss {name}: {option} = {literal(value)}", ('network["output"]', "loss"), wrong, build=build)
