"""Options of the config that hold for some epochs only."""

from returnn_lite.config import Config
from returnn_lite.config_value import ConfigDict, ConfigValue
from returnn_lite.engine.models.descriptions import same_description
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log


class EpochOverrides:
    """The `#config` entry of a net description: options that hold for its epochs only."""

    def __init__(self, config: Config, log: Log) -> None:
        self.config, self.log = config, log
        self._saved: dict[str, tuple[ConfigValue, bool]] = {}

    def apply(self, epoch: int, overrides: ConfigDict) -> set[str]:
        """Sets these options and restores those of the previous epoch; returns the options whose value changed."""
        before = {key: self.config.typed_value(key) for key in {*self._saved, *overrides}}
        for key, (value, typed) in self._saved.items():
            if typed:
                self.config.set(key, value)
            else:
                self.config.typed.pop(key)
        self._saved = {}
        for key, value in overrides.items():
            if not self.config.has(key):
                path = f'network["#config"]["{key}"]'
                raise ConfigError(path, f"`{key}` must be an option of the config, but is not set")
            old = self.config.opt_typed_value(key)
            self.log.v3(f"Update config key {key!r} for epoch {epoch}: {old!r} -> {value!r}")
            self._saved[key] = (old, self.config.is_typed(key))
            self.config.set(key, value)
        return {key for key, value in before.items() if not same_description(value, self.config.typed_value(key))}
