"""Training loops of one's own in Python: `update` lets an optimizer change the parameters of a net.

net, optimizer = lib.MLP(seed=0), lib.Adam(lr=1e-3)
loss, gradient = mt.value_and_grad(lib.loss)(net, x, y)
mt.update(optimizer, net, gradient)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from mapsto.arguments import Parameter
from mapsto.callables import Compilable, arrays_of_arguments
from mapsto.dsl.applications import elaborate_update
from mapsto.dsl.elaborated import Elaborated, ParameterSpec
from mapsto.instances import Instance
from mapsto.ir.core import Array
from mapsto.ir.types import TensorType
from mapsto.runtime.errors import ArgumentError

__all__ = ["update"]


def update(optimizer: Instance, net: Instance, gradient: Mapping[str, Array]) -> None:
    """Gives the parameters of a net, in place, what an optimizer makes of their gradient.

    `gradient` is what `grad` and `value_and_grad` give: arrays by the paths of parameters; those
    that are left out stay as they are.  The optimizer keeps states of its own for each parameter.
    Raises ArgumentError for a path or an array that does not fit, DiagnosticsError where the
    optimizer is none.
    """
    key = (net, *gradient)
    found = optimizer.updates.get(key)
    if not isinstance(found, _Update):
        found = optimizer.updates[key] = _Update(optimizer, net, tuple(gradient))
    if found.try_fast(gradient) is NotImplemented:
        found(**gradient)


class _Update(Compilable):
    """The update of some parameters of a net."""

    def __init__(self, optimizer: Instance, net: Instance, paths: tuple[str, ...]) -> None:
        super().__init__(net.options)
        self.optimizer, self.net, self.paths = optimizer, net, paths
        net.add_user(self)
        optimizer.add_user(self)
        for path in paths:
            if path not in net.params:
                known = ", ".join(net.params) or "none yet"
                raise ArgumentError(f"the net has no parameter {path}; there are {known}")

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        return tuple(Parameter(path, True, None, False) for path in self.paths)

    def elaborate(
        self, types: Mapping[str, TensorType], static: Mapping[str, object]
    ) -> Elaborated:
        gradient = {path: types[path] for path in self.paths}
        net = self.net.inner
        return elaborate_update(net.program.scope, self.optimizer.value, net.value, gradient)

    def own_arrays(self, slots: Sequence[ParameterSpec]) -> Mapping[str, Array]:
        # The optimizer's states are where the parameters are.
        if self.optimizer.options.device != self.net.options.device:
            self.optimizer.to(self.net.options.device)
        return arrays_of_arguments(slots, {"net": self.net, "optimizer": self.optimizer})
