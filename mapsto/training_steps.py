"""The compiled functions of a `train` block: steps, and the evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from mapsto.arguments import Parameter, declared_types, parameters_of
from mapsto.callables import Compilable
from mapsto.compiler import Options
from mapsto.dsl.elaborated import Elaborated, ParameterSpec
from mapsto.dsl.precision import PRECISIONS
from mapsto.dsl.syntax import MapDefinition
from mapsto.dsl.train_members import Loss
from mapsto.dsl.training import Gradients, Trainer
from mapsto.ir.core import Array
from mapsto.ir.types import DType, TensorType
from mapsto.runtime.dataset import converted
from mapsto.runtime.devices.array import DeviceArray
from mapsto.runtime.history import Figure

__all__ = ["Averaging", "Evaluation", "Observation", "Step"]


class Owner(Protocol):
    """What the functions of a `train` block work on: the block, and the arrays of its nets."""

    inner: Trainer
    options: Options
    precision: str

    def storage_for(self, specs: Sequence[ParameterSpec]) -> Mapping[str, Array]:
        """The arrays of parameters and states by path; new ones are initialized."""


class _Compiled(Compilable):
    """A function of a batch that works on the arrays of a trainer."""

    def __init__(self, owner: Owner) -> None:
        super().__init__(owner.options)
        self.owner = owner

    @property
    def definitions(self) -> Iterable[MapDefinition]:
        """The maps that declare its inputs."""
        raise NotImplementedError

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        found: dict[str, Parameter] = {}
        for definition in self.definitions:
            found = {p.name: p for p in parameters_of(definition)} | found
        return tuple(found[name] for name in self._names_in_order())

    @property
    def types(self) -> dict[str, TensorType]:
        """The declared types of its inputs."""
        found: dict[str, TensorType] = {}
        for definition in self.definitions:
            found = declared_types(definition) | found
        return {name: found[name] for name in self._names_in_order() if name in found}

    def _names_in_order(self) -> Iterable[str]:
        """Each input where it comes first, as in what is elaborated."""
        named = (p.name.name for definition in self.definitions for p in definition.parameters)
        return dict.fromkeys(named)

    def own_arrays(self, slots: Sequence[ParameterSpec]) -> Mapping[str, Array]:
        return self.owner.storage_for(slots)

    def call(self, batch: Mapping[str, object]) -> Any:
        """The loss, or several results by name; arrays of other element types are converted."""
        result = self.try_fast(batch)
        if result is not NotImplemented:
            return result
        types = self.types
        return self(**{name: _converted(name, v, types) for name, v in batch.items()})

    def results(self, batch: Mapping[str, object]) -> dict[str, Any]:
        """The results of a call by name."""
        result = self.call(batch)
        return result if isinstance(result, dict) else {"loss": result}


class Step(_Compiled):
    """A training step as a function of the batch: of all losses, or of some."""

    def __init__(
        self,
        owner: Owner,
        losses: Sequence[Loss] | None = None,
        gradients: Gradients = Gradients.USE,
    ) -> None:
        super().__init__(owner)
        self.losses = tuple(owner.inner.losses if losses is None else losses)
        self.gradients = gradients

    @property
    def definitions(self) -> Iterable[MapDefinition]:
        return [loss.closure.definition for loss in self.losses]

    def elaborate(
        self, types: Mapping[str, TensorType], static: Mapping[str, object]
    ) -> Elaborated:
        precision = PRECISIONS[self.owner.precision]
        return self.owner.inner.elaborate_step(types, self.losses, self.gradients, precision)

    def run(self, batch: Mapping[str, object]) -> dict[str, float]:
        """Makes the step; the losses before it, their sum as `loss`, and what else the losses give
        that is one number."""
        return self.figures(self.results(batch))

    def figures(self, results: Mapping[str, Any]) -> dict[str, float]:
        """What `run` gives, from the results of a call."""
        found = {k: float(v) for k, v in results.items() if np.size(v) == 1}
        if "loss" in found and len(self.losses) == 1:
            return found
        return {"loss": sum(found[loss.name] for loss in self.losses), **found}


class Evaluation(_Compiled):
    """Losses and metrics as a function of the batch."""

    @property
    def definitions(self) -> Iterable[MapDefinition]:
        return self.owner.inner.evaluated

    def elaborate(
        self, types: Mapping[str, TensorType], static: Mapping[str, object]
    ) -> Elaborated:
        return self.owner.inner.elaborate_evaluate(types)

    def run(self, batch: Mapping[str, object]) -> dict[str, Figure]:
        """The figures of a batch by name; of several losses there is also the sum, as `loss`."""
        names = [loss.name for loss in self.owner.inner.losses]
        found = {
            name: _figure(value)
            for name, value in self.results(batch).items()
            if value.size == 1 or name.partition(".")[0] not in names
        }
        if "loss" in found:
            return found
        return {"loss": float(sum(found[name] for name in names)), **found}


class Observation(_Compiled):
    """What schedules do with a figure of an evaluation."""

    definitions = ()
    parameters = (Parameter("figure", True, DType.F32, False),)
    is_ready = False
    """Whether it is compiled: there is something that observes."""

    def elaborate(
        self, types: Mapping[str, TensorType], static: Mapping[str, object]
    ) -> Elaborated:
        elaborated = self.owner.inner.elaborate_observe()
        assert elaborated is not None
        return elaborated


class Averaging(_Compiled):
    """Gives the parameters their averages."""

    definitions = ()

    def elaborate(
        self, types: Mapping[str, TensorType], static: Mapping[str, object]
    ) -> Elaborated:
        return self.owner.inner.elaborate_averaging()


def _figure(value: Array) -> Figure:
    return float(value) if value.size == 1 else np.asarray(value)


def _converted(name: str, value: object, types: Mapping[str, TensorType]) -> object:
    if name not in types or isinstance(value, DeviceArray):
        return value
    return converted(name, np.asarray(value), types[name].dtype)
