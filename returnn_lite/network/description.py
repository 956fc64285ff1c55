"""The description of one layer: an entry of the net's dict, checked and split into what its class and the net need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from returnn_lite.config_value import ConfigValue
from returnn_lite.errors import ConfigError
from returnn_lite.layers.core.axis_rules import check_axis_texts
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.context import Surroundings
from returnn_lite.layers.core.options import CommonOptions
from returnn_lite.layers.core.registry import layer_class, own_options, split_options


@dataclass
class LayerDescription:
    """An entry of a net's dict: the class, the options every layer has, those of the class, and the whole `entry`."""

    path: str
    cls: type[Layer]
    options: CommonOptions
    own: dict[str, Any]
    entry: dict[str, Any]

    @property
    def lacks_size(self) -> bool:
        """Whether the class takes `n_out`, which neither the dict nor `out_dim` gives."""
        return "n_out" in own_options(self.cls) and self.own.get("n_out") is None

    @property
    def sized_by_target(self) -> bool:
        """Whether the number of outputs is that of the target's classes (or features)."""
        return self.options.target is not None or self.options.loss is not None

    def set_size(self, size: int | None) -> None:
        """The size of the output, where the entry lacks it."""
        if size is not None:
            self.own["n_out"] = self.options.n_out = size

    def sources(self, behavior: int) -> list[str]:
        """The names in `from`. Raises ConfigError for a class that needs some and gets none, or takes none."""
        cls, value = self.cls, self.options.from_
        if value is None:
            if cls.default_from and cls.sources != "none" and behavior >= 1:
                raise ConfigError(self.path, "`from` is missing (required since behavior_version >= 1)")
            value = () if cls.sources == "none" else cls.default_from
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, (list, tuple)):
            raise ConfigError(self.path, f"`from` must be a layer name or a list of them, but is {value!r} instead")
        found = [v for v in value if v != "none"]
        if cls.sources == "none" and found:
            text = f"`from` must be empty for layer class {cls.class_name!r}, but is {value!r} instead"
            raise ConfigError(self.path, text)
        if cls.sources == "one" and not found and cls.needs_source:
            raise ConfigError(self.path, f"layer class {cls.class_name!r} needs a source, but `from` is empty")
        return found

    def make(self) -> Layer:
        """The layer. Raises ConfigError, with its path, for whatever the class refuses."""
        try:
            layer = self.cls(**self.own)
        except ConfigError as exc:
            raise exc if exc.path.startswith("network") else ConfigError(self.path, str(exc)) from exc
        except Exception as exc:  # a value that no check has refused
            raise ConfigError(self.path, f"wrong option value: {type(exc).__name__}: {exc}") from exc
        layer.options = self.options
        return layer


def described(name: str, entry: ConfigValue, net: Surroundings) -> LayerDescription:
    """The description of the layer `name` of a net. Raises ConfigError(s) for what is wrong with its options."""
    path = net.layer_path(name)
    if not isinstance(entry, Mapping):
        raise ConfigError(path, f"a layer must be a dict, but is {entry!r} instead")
    if "class" not in entry:
        raise ConfigError(path, 'the entry "class" is missing')
    entry = _effective(dict(entry), search=net.context.search)
    entry = layer_class(entry["class"], path).prepare({**entry, "#name": name}, net)
    entry.pop("#name", None)
    cls = layer_class(entry["class"], path)
    options, own = split_options(cls, entry, path)
    check_axis_texts(cls, own, net.context.behavior, path)
    return LayerDescription(path, cls, options, own, entry)


def _effective(entry: dict[str, Any], *, search: bool) -> dict[str, Any]:
    """The dict without a loss that counts only outside of search."""
    if entry.get("loss_only_on_non_search") and search:
        for key in ("loss", "loss_scale", "loss_opts"):
            entry.pop(key, None)
    return entry
