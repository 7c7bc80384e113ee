"""Runs programs of the language with the reference evaluator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mapsto import ir
from mapsto.dsl.elaborated import Elaborated, unflatten
from mapsto.dsl.program import ModuleInstance, Program
from mapsto.ir.passes.differentiate import Differentiate
from mapsto.ir.passes.inline import Inline

Array = np.ndarray[Any, Any]


def type_of(array: Array) -> ir.TensorType:
    """The tensor type of an array."""
    dtype = ir.DType.of(array.dtype)
    assert dtype is not None
    return ir.TensorType(dtype, array.shape)


def evaluate(elaborated: Elaborated, arrays: list[Array]) -> list[Array]:
    """The results of an elaborated function."""
    module = Inline().run(Differentiate().run(elaborated.module))
    return list(ir.evaluate(module, elaborated.entry, arrays))


def run_map(
    text: str,
    arguments: Mapping[str, Array],
    static: Mapping[str, object] | None = None,
    name: str = "f",
) -> Any:
    """The value of a map of a program for these arrays."""
    program = Program.loads(text)
    types = {key: type_of(np.asarray(value)) for key, value in arguments.items()}
    elaborated = program.elaborate_map(name, types, static)
    arrays = [np.asarray(arguments[spec.name]) for spec in elaborated.inputs]
    return unflatten(elaborated.result, evaluate(elaborated, arrays))


def initial_slots(source: Any, seed: int = 0) -> dict[str, Array]:
    """First values of parameters and states of a module instance or a trainer."""
    elaborated = source.elaborate_initializers()
    values = evaluate(elaborated, [np.asarray(seed, np.int64)])
    slots = unflatten(elaborated.result, values)
    assert isinstance(slots, dict)
    return slots


def run_slots(elaborated: Elaborated, slots: dict[str, Array], inputs: Mapping[str, Array]) -> Any:
    """The result of a function with parameters and states; updates these in place."""
    arrays = [slots[spec.path] for spec in (*elaborated.parameters, *elaborated.states)]
    arrays += [np.asarray(inputs[spec.name]) for spec in elaborated.inputs]
    values = evaluate(elaborated, arrays)
    first = len(values) - len(elaborated.updated)
    for spec, value in zip(elaborated.updated, values[first:], strict=True):
        slots[spec.path] = value
    return unflatten(elaborated.result, values[:first])


def call_module(instance: ModuleInstance, method: str = "", **inputs: Array) -> Any:
    """The value of a map of a module instance with its initial parameters."""
    types = {key: type_of(value) for key, value in inputs.items()}
    elaborated = instance.elaborate(method, types)
    return run_slots(elaborated, initial_slots(instance), inputs)
