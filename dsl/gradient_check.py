"""Comparing a hand-written gradient with the derivative of the body, when a program is compiled.

The call is elaborated once more, on small tensors, turned to double precision, and both are
evaluated by the reference evaluator at random points.  Where the body has no derivative (a loop
with a condition, say), central differences take its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mapsto import ir
from mapsto.dsl.custom_gradients import CustomCall, Functions
from mapsto.dsl.diagnostics import DiagnosticError, Help, Kind
from mapsto.dsl.frame import Facts, Frame, Session, fail
from mapsto.dsl.structures import mapped
from mapsto.dsl.values import Argument, Tensor, Value
from mapsto.ir.core import Array
from mapsto.ir.dims import Dim, symbols
from mapsto.ir.passes.differentiate import Differentiate
from mapsto.ir.widening import in_double_precision

__all__ = ["check_gradient"]

_LARGEST_KEPT = 4
_FIRST_SIZE = 3
_DIVISIBLE = 12
"""Sizes that stand for symbols are 3, 4, 5..; where those do not fit, multiples of 12."""
_TOLERANCE = 1e-6
_DIFFERENCES_TOLERANCE = 1e-4
_STEP = 1e-5
_POINTS = ("normal", "positive")

Elaborate = Callable[[Frame, tuple[Argument, ...]], CustomCall]
_NOT_APPLICABLE = (DiagnosticError, ir.IRError, ValueError, IndexError, ZeroDivisionError)
"""What a map may raise on sizes or points that it is not made for."""


@dataclass(frozen=True, slots=True)
class _Difference:
    """A cotangent that is not the derivative: of which argument, where, and both numbers."""

    name: str
    index: tuple[int, ...]
    found: float
    expected: float


def check_gradient(call: CustomCall, arguments: tuple[Argument, ...], elaborate: Elaborate) -> None:
    """Raises DiagnosticError where the gradient of a call is not the derivative of its body.

    `elaborate` makes the call again in another session, of other arguments.  What has sizes that
    are not known, and accepts none of those that are tried, is not checked here: it is where it is
    called with sizes.
    """
    reason = "no sizes were accepted"
    for sized in _smaller(arguments):
        frame = Frame(_session(call.frame), call.frame.scope)
        try:
            functions = elaborate(frame, sized).functions()
            problem = _compare(frame.session, functions)
        except _NOT_APPLICABLE as error:
            reason = str(error) or reason
            continue
        if problem is None:
            return
        if isinstance(problem, _Difference):
            _fail(call, problem)
        else:
            reason = problem
    if not any(ir.symbols(dim) for dim in _dims(arguments)):
        facts: Facts = {"name": call.title, "reason": reason, "names": _names(call)}
        fail(Kind.GRADIENT_NOT_COMPARED, call.written.span, help=Help.LEAVE_UNCHECKED, **facts)


def _fail(call: CustomCall, problem: _Difference) -> None:
    place = f"[{', '.join(map(str, problem.index))}]" if problem.index else ""
    fail(
        Kind.GRADIENT_DIFFERS,
        call.written.span,
        help=Help.LEAVE_UNCHECKED,
        name=call.title,
        argument=f"{problem.name}{place}",
        found=f"{problem.found:.6g}",
        expected=f"{problem.expected:.6g}",
        names=_names(call),
    )


def _names(call: CustomCall) -> str:
    return ", ".join(name.name for name in call.written.parameters)


def _session(frame: Frame) -> Session:
    """A session of its own, in which nothing is checked again."""
    return replace(
        frame.session,
        build=ir.Builder(ir.Block(())),
        functions={},
        parameters={},
        states={},
        renewed={},
        errors=None,
        compared=None,
    )


# ---- sizes


def _dims(arguments: Sequence[Argument]) -> list[Dim]:
    """The dimensions of all tensors, each once, in order."""
    found: dict[Dim, None] = {}

    def collect(leaf: Value) -> Value:
        if isinstance(leaf, Tensor):
            found.update(dict.fromkeys(leaf.shape))
        return leaf

    for argument in arguments:
        mapped(collect, argument.value)
    return list(found)


def _smaller(arguments: tuple[Argument, ...]) -> Iterator[tuple[Argument, ...]]:
    """The arguments with new tensors in place of theirs: small ones, then of the sizes given."""
    dims = _dims(arguments)
    large = [d for d in dims if not isinstance(d, int) or d > _LARGEST_KEPT]
    named = sorted({name for dim in dims for name in symbols(dim)})
    sizes = {dim: _FIRST_SIZE + i for i, dim in enumerate(large)}
    yield _sized(arguments, lambda dim: sizes.get(dim, dim))
    for factor, start in ((1, _FIRST_SIZE), (_DIVISIBLE, 1)):
        values: dict[str, Dim] = {n: factor * (start + i) for i, n in enumerate(named)}
        yield _sized(arguments, lambda dim, values=values: ir.substitute(dim, values))  # type: ignore[misc]
        if not named:
            return


def _sized(arguments: Sequence[Argument], size: Callable[[Dim], Dim]) -> tuple[Argument, ...]:
    def resized(leaf: Value) -> Value:
        if not isinstance(leaf, Tensor):
            return leaf
        type = leaf.type.with_shape(tuple(map(size, leaf.shape)))
        return Tensor(ir.Value(type, None, 0, leaf.value.hint))

    return tuple([replace(a, value=mapped(resized, a.value)) for a in arguments])


# ---- values


def _compare(session: Session, functions: Functions) -> _Difference | str | None:
    """A difference, why nothing could be compared, or None where the two agree."""
    module = ir.Module(dict(session.functions))
    derived = _derived(module[functions.body], functions)
    try:
        both = Differentiate().run(in_double_precision(module.with_function(derived)))
    except ir.MissingDerivative:
        both = Differentiate().run(in_double_precision(module))
    compared = False
    for number, kind in enumerate(_POINTS):
        random = np.random.default_rng(number)
        arguments = both[functions.body].arguments
        samples = {
            operand: _sample(random, kind, value.type)
            for operand, value in zip(functions.operands, arguments, strict=True)
        }
        given = [samples[operand] for operand in functions.operands]
        values = ir.evaluate(both, functions.body, given)
        seeds = [random.normal(size=v.shape) for v in values if v.dtype.kind == "f"]
        found = ir.evaluate(both, functions.gradient, [*given, *seeds])
        if derived.name in both.functions:
            expected = ir.evaluate(both, derived.name, [*given, *seeds])
            problems = _elementwise(functions, found, expected)
        else:
            problems = _along(both, functions, random, given, found, seeds)
        for problem in problems:
            if isinstance(problem, _Difference):
                return problem
            compared = True
    return None if compared else "at random points it is not finite"


def _derived(body: ir.Function, functions: Functions) -> ir.Function:
    """The derivative of the body by the arguments of the call, as a function."""
    results = functions.results
    floats = [i for i, type in enumerate(results) if type.dtype.is_float]
    types = [*(v.type for v in body.arguments), *(results[i] for i in floats)]
    build = ir.Builder(ir.Block(types))
    wrt = _differentiated(functions)
    op = build.op(
        ir.Vjp,
        *build.block.arguments,
        callee=ir.SymbolReference(body.name),
        results=(*results, *(types[i] for i in wrt)),
        wrt=tuple(wrt),
        outputs=tuple(floats),
    )
    return ir.finish_function(f"{body.name}.derived", build, op.results[len(results) :])


def _differentiated(functions: Functions) -> list[int]:
    """Which operands are floating-point tensors of arguments."""
    own = functions.operands[: len(functions.names)]
    return [i for i, value in enumerate(own) if value.dtype.is_float]


def _sample(random: np.random.Generator, kind: str, type: ir.TensorType) -> Array:
    """A random tensor: of whole numbers only 0 and 1, which are indices almost everywhere."""
    sizes: Mapping[str, Dim] = dict.fromkeys(type.symbols, _FIRST_SIZE)
    shape = tuple(int(ir.substitute(dim, sizes)) for dim in type.shape)  # type: ignore[arg-type]
    if not type.dtype.is_float:
        return random.integers(0, 2, shape).astype(type.dtype.numpy)
    values = random.normal(size=shape) if kind == "normal" else random.uniform(0.2, 0.8, shape)
    return np.asarray(values)


def _elementwise(
    functions: Functions, found: Sequence[Array], expected: Sequence[Array]
) -> Iterator[_Difference | None]:
    """For each finite element whether the cotangents differ there."""
    for i, one, other in zip(_differentiated(functions), found, expected, strict=False):
        finite = np.isfinite(one) & np.isfinite(other)
        scale = np.maximum(1, np.maximum(np.abs(one), np.abs(other)))
        differs = finite & (np.abs(one - other) > _TOLERANCE * scale)
        if differs.any():
            index = tuple(int(k) for k in np.argwhere(differs)[0])
            yield _Difference(functions.names[i], index, float(one[index]), float(other[index]))
        elif finite.any() or not finite.size:
            yield None


def _along(
    module: ir.Module,
    functions: Functions,
    random: np.random.Generator,
    given: Sequence[Array],
    found: Sequence[Array],
    seeds: Sequence[Array],
) -> Iterator[_Difference | None]:
    """As `_elementwise`, by central differences along a random direction of each argument."""

    def rise(i: int, step: Array) -> float:
        moved = [*given]
        moved[i] = given[i] + step
        values = ir.evaluate(module, functions.body, moved)
        floats = [v for v in values if v.dtype.kind == "f"]
        return sum(float(np.sum(v * seed)) for v, seed in zip(floats, seeds, strict=True))

    for i, cotangent in zip(_differentiated(functions), found, strict=False):
        direction = random.normal(size=given[i].shape)
        expected = (rise(i, _STEP * direction) - rise(i, -_STEP * direction)) / (2 * _STEP)
        slope = float(np.sum(cotangent * direction))
        if not np.isfinite([expected, slope]).all():
            continue
        scale = max(1.0, abs(expected), abs(slope))
        differs = abs(expected - slope) > _DIFFERENCES_TOLERANCE * scale
        name = f"{functions.names[i]}` along a direction of `{functions.names[i]}"
        yield _Difference(name, (), slope, expected) if differs else None
