"""The graph of a net: who reads whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from returnn_lite.config.config_code import code_error, code_place
from returnn_lite.errors import ConfigError
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.params import Derived
from returnn_lite.network.after import Step, check_output, steps_after
from returnn_lite.network.placed import Slot, placed, slots
from returnn_lite.tensor import Spec, Tensor


@dataclass(eq=False)
class Node:
    """A layer in its net: `sources` in the order of `from`, `refs` by the option that names them.

    `previous`: for a `prev:` node the node whose last frame it reads (an edge that is no dependency within a tick).
    `spec` is None until inferred. `after`: what common options do to the output. `param_nodes`: nodes whose output is
    used as a parameter, by name.
    """

    name: str
    layer: Layer
    sources: list[Node] = field(default_factory=list)
    refs: dict[str, Node] = field(default_factory=dict)
    description: dict[str, Any] = field(default_factory=dict)
    previous: Node | None = None
    spec: Spec | None = None
    built: bool = False
    after: list[Step] = field(default_factory=list)
    param_nodes: dict[str, Node] = field(default_factory=dict)
    _outputs_as_params: list[tuple[list[Slot], Derived]] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"Node({self.layer.path or self.name})"

    @property
    def inputs(self) -> list[Node]:
        """All nodes whose value of the same tick is needed."""
        return [*self.sources, *self.refs.values(), *self.param_nodes.values()]

    def infer(self) -> Spec | None:
        """Computes the Spec from those of the inputs; errors get the layer's path."""
        specs = tuple(n.spec for n in self.sources)
        refs = {k: n.spec for k, n in self.refs.items()}
        try:
            self.spec = self.layer.output_spec(specs, refs)
        except ConfigError as exc:
            raise self._located(exc) from exc
        except Exception as exc:  # a value that no check has refused
            raise self._failed(exc) from exc
        return self.spec

    def build(self) -> None:
        """Makes the layer's parameters, once. All Specs must be known."""
        if self.built:
            return
        missing = [n.name for n in (*self.inputs, self) if n.spec is None]
        if missing:
            raise self.layer.error(f"the axes of {', '.join(map(repr, missing))} could not be found out")
        try:
            specs = tuple(n.spec for n in self.sources if n.spec is not None)
            refs = {k: n.spec for k, n in self.refs.items() if n.spec is not None}
            self.layer.build_with(specs, refs)
            if self.spec is not None:
                check_output(self.layer, self.spec)
                self.after = steps_after(self.layer, self.spec)
        except ConfigError as exc:
            raise self._located(exc) from exc
        except Exception as exc:  # a value that no check has refused
            raise self._failed(exc) from exc
        scope = self.layer.scope
        derived = [d for d in scope.derived.values() if d.node is not None] if scope is not None else []
        self._outputs_as_params = [(slots(self.layer, d.placeholder), d) for d in derived]
        self.built = True

    def compute(self, values: dict[Node, Tensor]) -> Tensor:
        """The layer's output, its inputs taken from `values`."""
        sources = [values[n] for n in self.sources]
        refs = {k: values[n] for k, n in self.refs.items()} if self.refs else {}
        try:
            if self._outputs_as_params:
                with placed([(at, values[d.node].data.permute(d.order)) for at, d in self._outputs_as_params]):
                    out = self.layer.run(sources, refs)
            else:
                out = self.layer.run(sources, refs)
            for step in self.after:
                out = step(out, sources)
            return out
        except ConfigError as exc:
            raise self._located(exc) from exc
        except Exception as exc:
            if "out of memory" in str(exc) or type(exc).__module__.startswith("torch._dynamo"):
                raise
            inputs = ", ".join(f"{n.name!r} {n.spec} {tuple(values[n].data.shape)}" for n in self.inputs)
            raise self._failed(exc, f"; inputs: {inputs}") from exc

    def _failed(self, exc: Exception, more: str = "") -> ConfigError:
        """The error for an exception in the layer, with the line of the config if its code is there."""
        place = code_place(exc.__traceback__)
        if place is not None:
            error = code_error(exc, place)
            return self.layer.error(f"{error.path}: {error.message}{more}")
        first = (str(exc).strip() or "no message").splitlines()[0]
        return self.layer.error(f"{type(exc).__name__} in layer class {self.layer.class_name!r}: {first}{more}")

    def _located(self, exc: ConfigError) -> ConfigError:
        """The same error with the layer's path in front, if it has no layer path yet."""
        if exc.path.startswith("network"):
            return exc
        option = f"[{exc.path!r}]" if exc.path else ""
        return ConfigError(f"{self.layer.path}{option}", exc.message)
