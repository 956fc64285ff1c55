"""From the config's name of a unit to its cell."""

from __future__ import annotations

import inspect

from returnn_lite.config_value import ConfigOptions
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.rec.cells.base import Cell
from returnn_lite.rec.cells.layernorm_lstm import LayerNormVariantsLstm
from returnn_lite.rec.cells.lstm import BasicLstm, NativeLstm, NativeLstm2, NativeLstmLowMem, StandardLstm, VanillaLstm
from returnn_lite.rec.cells.rhn import Rhn
from returnn_lite.rec.cells.rnn import BasicRnn, Gru
from returnn_lite.rec.cells.zoneout import ZoneoutLstm

UNITS: dict[str, type[Cell]] = {
    "basiclstm": BasicLstm,
    "basicrnn": BasicRnn,
    "gru": Gru,
    "layernormvariantslstm": LayerNormVariantsLstm,
    "nativelstm": NativeLstm,
    "nativelstm2": NativeLstm2,
    "nativelstmlowmem": NativeLstmLowMem,
    "rhn": Rhn,
    "standardlstm": StandardLstm,
    "vanillalstm": VanillaLstm,
    "zoneoutlstm": ZoneoutLstm,
}
_ALIASES = {"lstm": "nativelstm2", "lstmp": "nativelstm2"}
_BLOCK_LSTMS = ("lstmblock", "lstmblockfused", "cudnnlstm")
ELSEWHERE = {
    "blocksparselstm": "it needs the blocksparse library, which is not supported",
    "blocksparsemultiplicativemultisteplstm": "it needs the blocksparse library, which is not supported",
    "twodnativelstm": 'it is the unit of the layer class "twod_lstm"',
    "cudnngru": 'it has no counterpart without cuDNN; "gru" is the usual one',
    "grublock": 'it was removed; "gru" has the same formula',
}


def resolve_unit(unit: str, *, single_step: bool) -> str:
    """The unit that a name stands for; `single_step`: in an `rnn_cell` layer.  ConfigError for unknown names."""
    name = unit.lower()
    if name in _BLOCK_LSTMS:
        return "standardlstm" if single_step else "nativelstm2"
    name = _ALIASES.get(name, name)
    if name in UNITS:
        return name
    known = known_units()
    reason = f" ({ELSEWHERE[name]})" if name in ELSEWHERE else ""
    hint = "" if reason else did_you_mean(name, known)
    raise ConfigError("unit", f"unknown cell {unit!r}{reason}. known cells: {', '.join(known)}{hint}")


def known_units() -> list[str]:
    """All names that `resolve_unit` knows, sorted."""
    return sorted([*UNITS, *_ALIASES, *_BLOCK_LSTMS])


def make_cell(unit: str, n_out: int, unit_opts: ConfigOptions | None, *, single_step: bool) -> Cell:
    """The cell of a `rec` layer, or with `single_step` of an `rnn_cell` layer.

    ConfigError for an unknown name, an unknown or wrong option, a native unit in an `rnn_cell`.
    """
    cls = UNITS[resolve_unit(unit, single_step=single_step)]
    if single_step and cls.native:
        usable = ", ".join(name for name, other in UNITS.items() if not other.native)
        raise ConfigError("unit", f"`unit` of an rnn_cell must be one of {usable}, but is {unit!r} instead")
    options = unit_opts or {}
    known = [name for name, option in inspect.signature(cls).parameters.items() if option.kind is option.KEYWORD_ONLY]
    for name in options:
        if name not in known:
            expected = f"the options of {unit!r} are {', '.join(known)}" if known else f"{unit!r} has no options"
            raise ConfigError(f'unit_opts["{name}"]', f"unknown option; {expected}{did_you_mean(name, known)}")
    try:
        return cls(n_out, **options)
    except ConfigError as error:
        raise ConfigError(f'unit_opts["{error.path}"]', error.message) from None
