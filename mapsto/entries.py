"""Entries: quick functions for calls of one form.

Compiled code takes tensors and gives tensors, one after another.  What else there is to a call is
its form: how many arguments, which of them are nets, maps or numbers, the keys of dicts, the
structure of the result.  For each form that a map is called with a Python function is generated
that checks the form, hands the tensors to the compiled code, and arranges what that gives:

    def entry(*given):
        if not (len(given) == 3): return NotImplemented
        if not (given[0] is k0): return NotImplemented
        r = run(given[1], given[2])
        if r is NotImplemented: return r
        return (r[0], {'w': r[1], 'b': r[2]})

The compiled code checks the tensors themselves.  Where a call needs none of this, the compiled code
is its own entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from types import CodeType
from typing import Any

import numpy as np

from mapsto.arguments import Bound, dense_array
from mapsto.dsl.elaborated import Record, Structure, flatten, record_class
from mapsto.ir.types import DType, TensorType
from mapsto.outputs import parts_of_result
from mapsto.runtime.arrays import as_array
from mapsto.runtime.devices.array import DeviceArray
from mapsto.runtime.signature import TensorSpec

__all__ = ["Entries", "Entry", "entry_for", "entry_into"]

_KEPT = 8
"""So many forms and types of calls are kept at hand."""

Run = Callable[..., Any]

Template = str | Mapping[str, "Template"]
"""The name of a tensor, or the parts of a tuple, a record or a dict by name."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A function of the arguments of a call; NotImplemented where they have another form."""

    call: Run
    text: str = ""
    constants: tuple[object, ...] = ()

    def is_as(self, other: Entry) -> bool:
        """Whether another entry takes the same calls."""
        if not self.text:
            return self.call is other.call
        pairs = zip(self.constants, other.constants, strict=False)
        return self.text == other.text and all(a is b or _is_equal(a, b) for a, b in pairs)


class Entries:
    """The entries of what is called; `call` is the one that was of use last."""

    def __init__(self) -> None:
        self.call: Run = _never
        self._kept: tuple[Entry, ...] = ()

    def find(self, arguments: Sequence[object]) -> Any:
        """The result of the first entry that takes the arguments; NotImplemented if none does."""
        result = self.call(*arguments)
        if result is not NotImplemented:
            return result
        for entry in self._kept:
            result = entry.call(*arguments)
            if result is not NotImplemented:
                self.call = entry.call
                return result
        return NotImplemented

    def add(self, entry: Entry | None) -> None:
        """Keeps an entry, and the ones that were added last."""
        if entry is not None:
            others = [other for other in self._kept if not entry.is_as(other)]
            self._kept = (entry, *others[: _KEPT - 1])
            self.call = entry.call

    def clear(self) -> None:
        """Forgets all entries."""
        self.call, self._kept = _never, ()


def entry_for(
    run: Run, names: Sequence[str], arguments: Sequence[object], bound: Bound, result: Structure
) -> Entry | None:
    """The entry for calls like one that was made with arguments for the parameters of these names.

    None where there is an argument of which only the long way knows what it is.
    """
    is_plain = isinstance(result, TensorType) and not bound.static
    tensors = tuple(bound.tensors.values())
    if is_plain and len(tensors) == len(arguments) and all(map(_is_same, tensors, arguments)):
        return Entry(run)
    writer = _Writer(run, bound, len(arguments))
    if not writer.take_all(names, arguments):
        return None
    passed = ", ".join(writer.tensors[name] for name in bound.tensors)
    writer.lines += [f"r = run({passed})", "if r is NotImplemented: return r"]
    count = len(flatten(result))
    values = iter(["r"] if count == 1 else [f"r[{i}]" for i in range(count)])
    writer.lines.append(f"return {writer.arranged(result, values)}")
    return writer.entry()


def entry_into(
    run: Run,
    names: Sequence[str],
    arguments: Sequence[object],
    bound: Bound,
    result: Structure,
    out: object,
) -> Entry | None:
    """As `entry_for`, where `run` takes the arrays for the results too; `out`, in which they are,
    is the last argument of the entry."""
    writer = _Writer(run, bound, len(arguments) + 1)
    if not writer.take_all(names, arguments):
        return None
    template = _result_template(result, "out")
    if not writer.take(f"given[{len(arguments)}]", out, template):
        return None
    passed = ", ".join(writer.tensors[name] for name in (*bound.tensors, *_leaves(template)))
    writer.lines.append(f"if run({passed}) is NotImplemented: return NotImplemented")
    writer.lines.append(f"return given[{len(arguments)}]")
    return writer.entry()


class _Writer:
    """Writes an entry."""

    def __init__(self, run: Run, bound: Bound, count: int) -> None:
        self.lines: list[str] = []
        self.constants: dict[str, object] = {}
        self.tensors: dict[str, str] = {}
        """Where the tensors are in the arguments, by name."""
        self._run = run
        self._bound = bound
        self._is_placed = False
        self.guard(f"len(given) == {count}")

    def entry(self) -> Entry:
        """What was written, as a function."""
        text = "\n    ".join(["def entry(*given):", *self.lines])
        scope = {"run": self._run, **self.constants}
        exec(_code(text), scope)
        return Entry(scope["entry"], text, (self._run, *self.constants.values()))  # type: ignore[arg-type]

    def guard(self, condition: str) -> None:
        self.lines.append(f"if not ({condition}): return NotImplemented")

    def constant(self, value: object) -> str:
        name = f"k{len(self.constants)}"
        self.constants[name] = value
        return name

    def take_all(self, names: Sequence[str], arguments: Sequence[object]) -> bool:
        """Finds the tensors among the arguments, and checks the others; False where it cannot."""
        for position, (name, value) in enumerate(zip(names, arguments, strict=False)):
            where = f"given[{position}]"
            if name in self._bound.static:
                self.check(where, value)
            elif not self.take(where, value, _argument_template(self._bound, name)):
                return False
        return True

    def take(self, where: str, value: object, template: Template) -> bool:
        """Finds the tensors in a value."""
        if isinstance(template, str):
            return self.take_tensor(where, value, template)
        kind, names = self.constant(type(value)), list(template)
        if isinstance(value, Mapping):
            keys = self.constant(tuple(value))
            self.guard(f"type({where}) is {kind} and tuple({where}) == {keys}")
            parts = [(f"{where}[{name!r}]", value[name]) for name in names]
        elif hasattr(value, "_asdict"):
            self.guard(f"type({where}) is {kind}")
            parts = [(f"{where}.{name}", getattr(value, name)) for name in names]
        elif isinstance(value, list | tuple):
            self.guard(f"type({where}) is {kind} and len({where}) == {len(names)}")
            parts = [(f"{where}[{i}]", item) for i, item in enumerate(value)]
        else:
            return False
        return all(
            self.take(place, item, template[name])
            for name, (place, item) in zip(names, parts, strict=True)
        )

    def take_tensor(self, where: str, value: Any, name: str) -> bool:
        """A tensor as it is, or made of what the compiled code does not know."""
        if isinstance(value, DeviceArray):
            # The first array that is on a device says where the program runs.
            if not self._is_placed:
                self.guard(f"type({where}) is {self.constant(DeviceArray)}")
            self._is_placed = True
        elif not _is_dense(value):
            convert = self.conversion(name, value)
            if convert is None:
                return False
            self.guard(f"type({where}) is {self.constant(type(value))}")
            where = f"{self.constant(convert)}({where})"
        self.tensors[name] = where
        return True

    def conversion(self, name: str, value: object) -> Callable[[object], Any] | None:
        """What makes an array of an argument; None where that depends on other arguments."""
        if name not in self._bound.tensors or isinstance(value, list | tuple):
            return None
        if not isinstance(value, bool | int | float):
            return partial(dense_array, name)
        dtype = DType.of(self._bound.tensors[name].dtype)
        assert dtype is not None, "the code was compiled for its type"
        return partial(as_array, TensorSpec(name, dtype, ()))

    def check(self, where: str, value: object) -> None:
        """Checks that an argument that is no tensor is the same: numbers and texts by value, lists
        and dicts by item, all else by identity."""
        if isinstance(value, list | tuple):
            kind = self.constant(type(value))
            self.guard(f"type({where}) is {kind} and len({where}) == {len(value)}")
            for position, item in enumerate(value):
                self.check(f"{where}[{position}]", item)
            return
        if isinstance(value, dict):
            kind, keys = self.constant(type(value)), self.constant(tuple(value))
            self.guard(f"type({where}) is {kind} and tuple({where}) == {keys}")
            for key, item in value.items():
                self.check(f"{where}[{self.constant(key)}]", item)
            return
        constant = self.constant(value)
        # Zeros of both signs are equal, and NaN is not; they have to be the same object.
        if isinstance(value, str | bool | int | float) and (value == value != 0.0):
            kind = self.constant(type(value))
            self.guard(f"type({where}) is {kind} and {where} == {constant}")
        else:
            self.guard(f"{where} is {constant}")

    def arranged(self, structure: Structure, values: Iterator[str]) -> str:
        """The text of a result of this structure."""
        if isinstance(structure, TensorType):
            return next(values)
        if isinstance(structure, dict):
            items = [f"{k!r}: {self.arranged(v, values)}" for k, v in structure.items()]
            return f"{{{', '.join(items)}}}"
        if isinstance(structure, Record):
            made = self.constant(record_class(structure.names))
            return f"{made}{self.arranged(structure.items, values)}"
        return f"({''.join(f'{self.arranged(item, values)}, ' for item in structure)})"


def _never(*arguments: object) -> Any:
    return NotImplemented


@lru_cache(maxsize=256)
def _code(text: str) -> CodeType:
    return compile(text, "<entry>", "exec")


def _is_same(a: object, b: object) -> bool:
    return a is b and type(a) is np.ndarray


def _is_equal(a: object, b: object) -> bool:
    """Whether constants stand for the same: tuples of keys, texts and conversions are made anew."""
    if isinstance(a, partial) and isinstance(b, partial):
        return a.func is b.func and a.args == b.args
    return type(a) is type(b) and isinstance(a, str | int | float | tuple) and a == b


def _is_dense(value: object) -> bool:
    """Whether compiled code takes a value as it is."""
    return type(value) is np.ndarray and value.flags.c_contiguous and value.flags.aligned


def _argument_template(bound: Bound, name: str) -> Template:
    """The tensors of an argument."""
    if name in bound.tensors:
        return name
    template: dict[str, Any] = {}
    for full in bound.tensors:
        if full.startswith(f"{name}."):
            *outer, last = full.removeprefix(f"{name}.").split(".")
            inner = template
            for part in outer:
                inner = inner.setdefault(part, {})
            inner[last] = full
    return template


def _result_template(structure: Structure, name: str) -> Template:
    """The tensors of a result."""
    if isinstance(structure, TensorType):
        return name
    parts = zip(*parts_of_result(structure), strict=True)
    return {part: _result_template(item, f"{name}.{part}") for part, item in parts}


def _leaves(template: Template) -> list[str]:
    """The names of the tensors, in order."""
    if isinstance(template, str):
        return [template]
    return [leaf for part in template.values() for leaf in _leaves(part)]
