"""Well-formedness of modules.

What holds of every module between passes:

1. A function stands under its own name.
2. A block ends in its only terminator, which is `return`.
3. An operand is defined before its use in the same block: an argument of the block or the result of
   an operation before.  Regions are closed: their blocks see only their own arguments.
4. A value is the result of one operation, at its own position, or an argument of one block.
5. An operation's class is the one registered under its name.
6. Its attributes are those that its record declares, of the declared types; an array has an element
   type of the language.
7. Its result types are what its shape rule gives.
8. Named sizes in a function are sizes of its arguments, and known sizes are not negative.
9. A callee exists; operands and results have the types that it takes and gives, its named sizes
   replaced.  `wrt` and `outputs` name arguments and results of floating point.
10. `aliases` are pairs (result, argument) of one type, no result or argument twice; `constants` are
    numbers of arguments that no alias updates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from mapsto.ir.attributes import attribute_problems, is_attribute
from mapsto.ir.bodies import alias_pairs
from mapsto.ir.core import (
    Attribute,
    Block,
    DenseArray,
    Function,
    Location,
    Module,
    Operation,
    SymbolReference,
    Trait,
    Value,
    registered_ops,
)
from mapsto.ir.dims import Dim, symbols
from mapsto.ir.errors import IRError, VerifyError
from mapsto.ir.ops.control import Call, Jvp, Return, Vjp
from mapsto.ir.ops.custom import CustomCall
from mapsto.ir.ops.flow import Scan
from mapsto.ir.types import DType, TensorType

__all__ = ["verify", "verify_function"]


def verify(module: Module) -> None:
    """Raises VerifyError, which names the function, the op and the source line, where the module
    breaks an invariant."""
    for name, function in module.functions.items():
        if name != function.name:
            raise VerifyError(f"the function @{function.name} stands under the name @{name}")
        verify_function(module, function)


def verify_function(module: Module, function: Function) -> None:
    """Raises VerifyError where a function of the module breaks an invariant."""
    _Verifier(module, function).check()


class _Verifier:
    def __init__(self, module: Module, function: Function) -> None:
        self.module = module
        self.function = function
        self.sizes = _symbols(v.type for v in function.arguments)
        self.seen: set[Value] = set()

    def check(self) -> None:
        """Checks the function."""
        self._check_block(self.function.block)
        problems = chain(_alias_problems(self.function), _constant_problems(self.function))
        problem = next(problems, None)
        if problem is not None:
            self._fail(problem, self.function.location)

    def _check_block(self, block: Block) -> None:
        visible: set[Value] = set()
        for number, argument in enumerate(block.arguments):
            self._define(argument, isinstance(argument.owner, Block), number)
            visible.add(argument)
        if not block.operations or not isinstance(block.terminator, Return):
            self._fail("a block ends in `return`")
        for op in block.operations:
            self._check_op(op, visible, is_last=op is block.terminator)
            visible.update(op.results)

    def _check_op(self, op: Operation, visible: set[Value], is_last: bool) -> None:
        for problem in self._problems(op, visible, is_last):
            self._fail(problem, op.location, op)
        for number, result in enumerate(op.results):
            self._define(result, result.owner is op, number, op)
        for region in op.regions:
            self._check_block(region.block)
        for problem in self._type_problems(op):
            self._fail(problem, op.location, op)

    def _define(
        self, value: Value, is_owned: bool, number: int, op: Operation | None = None
    ) -> None:
        """Records a definition; a value has one, at its own position."""
        if not is_owned or value.index != number or value in self.seen:
            location = op.location if op is not None else None
            self._fail(f"{value!r} is defined twice or elsewhere", location, op)
        if any(isinstance(dim, int) and dim < 0 for dim in value.shape):
            location = op.location if op is not None else None
            self._fail(f"{value!r} has a negative size", location, op)
        self.seen.add(value)

    def _problems(self, op: Operation, visible: set[Value], is_last: bool) -> Iterator[str]:
        """What is wrong with an op, but for its types."""
        if registered_ops().get(op.name) is not type(op):
            yield "is not the op registered under that name"
        if op.has(Trait.TERMINATOR) and not is_last:
            yield "stands before the end of its block"
        for number, operand in enumerate(op.operands):
            if operand not in visible:
                yield f"operand {number}, {operand!r}, is not defined before"
        yield from attribute_problems(type(op), op.attributes)
        for name, attribute in op.attributes.items():
            if isinstance(attribute, DenseArray) and DType.of(attribute.array.dtype) is None:
                yield f"`{name}` is an array of {attribute.array.dtype}, no type of the language"

    def _type_problems(self, op: Operation) -> Iterator[str]:
        """What is wrong with the types of an op whose operands and attributes are well-formed."""
        try:
            expected = op.infer_results()
        except IRError as error:
            yield getattr(error, "message", str(error))
            return
        except Exception as error:
            # A shape rule may take for granted what only holds of well-formed operations.
            yield f"its shape rule fails: {type(error).__name__}: {error}"
            return
        found = tuple(result.type for result in op.results)
        if found != expected:
            yield f"has results of type {_types_text(found)}, not {_types_text(expected)}"
        unknown = (_symbols(found) | _extent_symbols(op)) - self.sizes
        if unknown:
            yield f"the size {min(unknown)} is no size of an argument"
        yield from _reference_problems(self.module, op)

    def _fail(
        self, problem: str, location: Location | None = None, op: Operation | None = None
    ) -> None:
        where = f"{location}: " if location is not None else ""
        subject = f"`{op.name}` in @{self.function.name}" if op else f"@{self.function.name}"
        raise VerifyError(f"{where}{subject}: {problem}")


# ---- references to functions


def _reference_problems(module: Module, op: Operation) -> Iterator[str]:
    """What is wrong with the functions that an op names."""
    missing = [name for name in _references(op) if name not in module.functions]
    if missing:
        yield f"no function @{missing[0]}"
    elif isinstance(op, Jvp | Vjp):
        yield from _derivative_problems(module, op)
    elif isinstance(op, Call):
        yield from _call_problems(module[op.callee], op.operands, op.results)
    if isinstance(op, CustomCall) and not missing:
        yield from _gradient_problems(module, op)


def _references(op: Operation) -> Iterator[str]:
    for attribute in op.attributes.values():
        if isinstance(attribute, SymbolReference):
            yield attribute.name


def _call_problems(
    callee: Function, operands: Sequence[Value], results: Sequence[Value]
) -> Iterator[str]:
    """What is wrong with a call with these operands and results."""
    taken = [v.type for v in callee.arguments]
    given = [v.type for v in operands]
    sizes = _sizes(taken, given)
    if [type_.substitute(sizes) for type_ in taken] != given:
        yield f"@{callee.name} takes {_types_text(taken)}, found {_types_text(given)}"
        return
    expected = [v.type.substitute(sizes) for v in callee.results]
    found = [v.type for v in results]
    if expected != found:
        yield f"@{callee.name} gives {_types_text(expected)}, found {_types_text(found)}"


def _derivative_problems(module: Module, op: Jvp | Vjp) -> Iterator[str]:
    callee = module[op.callee]
    arguments, results = len(callee.arguments), len(callee.results)
    if len(op.operands) < arguments or len(op.results) < results:
        yield f"@{callee.name} takes {arguments} arguments and gives {results} results"
        return
    yield from _call_problems(callee, op.operands[:arguments], op.results[:results])
    wrt = _chosen(op.operands[:arguments], op.attributes["wrt"])
    outputs = _chosen(op.results[:results], op.attributes["outputs"])
    if wrt is None or outputs is None:
        yield "`wrt` and `outputs` name arguments and results of floating point, each once"
        return
    taken, given = (wrt, outputs) if isinstance(op, Jvp) else (outputs, wrt)
    seeds, derivatives = op.operands[arguments:], op.results[results:]
    if [v.type for v in seeds] != taken or [v.type for v in derivatives] != given:
        yield f"takes {_types_text(taken)} and gives {_types_text(given)} beside @{callee.name}"


def _chosen(values: Sequence[Value], numbers: Attribute) -> list[TensorType] | None:
    """The types of the values with these numbers; None where one is not differentiable."""
    if not isinstance(numbers, tuple) or len(set(numbers)) != len(numbers):
        return None
    types = [values[i].type for i in numbers if isinstance(i, int) and 0 <= i < len(values)]
    fits = len(types) == len(numbers) and all(type_.dtype.is_float for type_ in types)
    return types if fits else None


def _gradient_problems(module: Module, op: CustomCall) -> Iterator[str]:
    gradient = op.attributes["gradient"]
    assert isinstance(gradient, SymbolReference)
    cotangents = [v for v in op.results if v.dtype.is_float]
    given = [v for v in op.operands if v.dtype.is_float]
    yield from _call_problems(module[gradient.name], (*op.operands, *cotangents), given)


def _sizes(taken: Sequence[TensorType], given: Sequence[TensorType]) -> dict[str, Dim]:
    """The callee's named sizes, each from the first dimension that is one."""
    sizes: dict[str, Dim] = {}
    for parameter, argument in zip(taken, given, strict=False):
        for dim, size in zip(parameter.shape, argument.shape, strict=False):
            if symbols(dim) == {str(dim)}:
                sizes.setdefault(str(dim), size)
    return sizes


# ---- functions


def _alias_problems(function: Function) -> Iterator[str]:
    for name, attribute in function.attributes.items():
        if not is_attribute(attribute):
            yield f"`{name}` is no attribute: {attribute!r}"
    aliases = function.attributes.get("aliases", ())
    if not isinstance(aliases, tuple):
        yield "`aliases` is a tuple of pairs"
        return
    for pair in aliases:
        yield from _pair_problems(function, pair)
    pairs = [pair for pair in aliases if isinstance(pair, tuple)]
    for kind, numbers in zip(("result", "argument"), zip(*pairs, strict=True), strict=False):
        if len(set(numbers)) != len(numbers):
            yield f"`aliases` has the same {kind} twice"


def _constant_problems(function: Function) -> Iterator[str]:
    numbers = function.attributes.get("constants", ())
    if not (isinstance(numbers, tuple) and all(isinstance(n, int) for n in numbers)):
        yield "`constants` is a tuple of numbers"
        return
    updated = {argument for _, argument in alias_pairs(function)}
    for number in numbers:
        if number not in range(len(function.arguments)):
            yield f"`constants` names argument {number}, which there is not"
        elif number in updated:
            yield f"`constants` names argument {number}, which is updated"


def _pair_problems(function: Function, pair: Attribute) -> Iterator[str]:
    if not (isinstance(pair, tuple) and len(pair) == 2):
        yield "`aliases` is a tuple of pairs"
        return
    result, argument = pair
    if not (isinstance(result, int) and 0 <= result < len(function.results)):
        yield f"`aliases` names result {result}, which there is not"
    elif not (isinstance(argument, int) and 0 <= argument < len(function.arguments)):
        yield f"`aliases` names argument {argument}, which there is not"
    elif function.results[result].type != function.arguments[argument].type:
        yield f"`aliases`: result {result} and argument {argument} differ in type"


def _symbols(types: Iterator[TensorType] | Sequence[TensorType]) -> frozenset[str]:
    return frozenset[str]().union(*(type_.symbols for type_ in types))


def _extent_symbols(op: Operation) -> frozenset[str]:
    """The named sizes in the number of steps of a `scan`, which has to be known when it runs."""
    return symbols(op.extent) if isinstance(op, Scan) else frozenset()


def _types_text(types: Sequence[TensorType]) -> str:
    return f"({', '.join(map(str, types))})"
