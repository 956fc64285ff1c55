"""Imports every module that registers something: layers, losses, datasets, optimizers, learning-rate controls."""

import importlib
import pkgutil

PACKAGES = ("layers", "losses", "network", "rec", "datasets", "optim", "schedule")
LATER = "returnn_lite.network.compiling."  # registers nothing, and would load torch's compiler, which takes a second


def fill_registries() -> None:
    """Imports all modules of these packages (and their sub-packages)."""
    for name in PACKAGES:
        package = importlib.import_module(f"returnn_lite.{name}")
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not module.name.startswith(LATER):
                importlib.import_module(module.name)


fill_registries()
