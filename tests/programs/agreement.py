"""Whether a program means the same everywhere: laid out anew, optimized, compiled."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from types import ModuleType

import numpy as np
from harness import Native
from loop_harness import machines
from programs import Program

from mapsto import ir
from mapsto.dsl.checking import check
from mapsto.dsl.elaborated import Elaborated
from mapsto.dsl.formatter import format_source
from mapsto.dsl.parser import parse
from mapsto.dsl.program import Program as Definitions
from mapsto.dsl.render import render_all
from mapsto.dsl.source import Source
from mapsto.ir import evaluator, fusion, stages
from mapsto.ir.bodies import alias_pairs
from mapsto.ir.core import Array, Function, Module, Operation
from mapsto.ir.dims import dim_value
from mapsto.ir.pass_runner import PassRunner
from mapsto.ir.passes.differentiate import Differentiate
from mapsto.ir.passes.inline import Inline
from mapsto.ir.passes.split_sums import SplitSums
from mapsto.ir.pipeline import DEFAULT
from mapsto.ir.types import DType, TensorType
from mapsto.ir.verifier import verify
from mapsto.lowering import contraction_plan, loop_streams, row_kernels
from mapsto.lowering.cpu import contraction_schedule, scheduling, weighted_schedule
from mapsto.lowering.kernel_work import Division

__all__ = ["Disagreement", "agree", "elaborations", "small_thresholds"]

TOLERANCES = {DType.F16: 8e-3, DType.BF16: 5e-2, DType.F32: 1e-5, DType.F64: 1e-10}
ROUNDING = {DType.F16: 1e-3, DType.BF16: 8e-3, DType.F32: 1e-7, DType.F64: 2e-16}
MOVING = [
    "broadcast",
    "reshape",
    "transpose",
    "slice",
    "pad",
    "concat",
    "gather",
    "dynamic_update",
    "select",
]
CHOOSING = ["max", "min", "argsort", "scatter_max", "scatter_min", "floor", "ceil", "round"]
EXACT = frozenset(
    [*MOVING, *CHOOSING, "dynamic_update", "abs", "neg", "sign", "iota", "constant", "cast"]
)
"""Ops that do not round."""
Types = dict[str, TensorType]


THRESHOLDS: tuple[tuple[ModuleType, str, object], ...] = (
    (scheduling, "DIVISION", Division(task_work=96, column_block=4)),
    (stages, "HEAVY_PRODUCTS", 64),
    (fusion, "SMALL_WORK", 64),
    (fusion, "LEAST_COLUMNS", 4),
    (scheduling, "SPLIT_SUMS", SplitSums(length=4, least=2, work=16)),
    (contraction_schedule, "LEAST_TASK", 64),
    (contraction_schedule, "MINIMUM_TASKS", 2),
    (contraction_schedule, "FETCHED_STEPS", 3),
    (contraction_plan, "LONG_ROW", 8),
    (weighted_schedule, "LEAST_ROWS", 2),
    (weighted_schedule, "FEW_ROWS", 4),
    (loop_streams, "LEAST_RUN", 16),
    (row_kernels, "SHORT_PART", 2),
)
"""With these, and such caches, small programs are divided into tasks, and small products packed, as
large ones."""
SMALL_CACHES = {"l1": 512, "l2": 1024, "l3": 2048}


class Disagreement(AssertionError):
    """Two ways to run a program differ; the text is the program and what was found."""

    def __init__(self, program: Program, what: str, found: object) -> None:
        sizes = f"sizes {dict(program.sizes)}"
        super().__init__(f"seed {program.seed}, {sizes}: {what}\n{found}\n\n{program.text}")
        self.what = what


@dataclass
class Run:
    """A program, an elaboration of it, and what it gives for some arguments."""

    program: Program
    elaborated: Elaborated
    arguments: list[Array]
    expected: Sequence[Array] = ()
    printed: str = ""
    plain: Module = field(default_factory=lambda: Module({}))

    @property
    def types(self) -> list[TensorType]:
        """The types of the results."""
        return [value.type for value in self.elaborated.function.results]


@contextlib.contextmanager
def small_thresholds() -> Iterator[tuple[tuple[ModuleType, str, int], ...]]:
    """In this context programs are compiled with THRESHOLDS."""
    before = [getattr(module, name) for module, name, _ in THRESHOLDS]
    try:
        for module, name, value in THRESHOLDS:
            setattr(module, name, value)
        yield THRESHOLDS
    finally:
        for (module, name, _), value in zip(THRESHOLDS, before, strict=True):
            setattr(module, name, value)


def agree(program: Program) -> bool:
    """Whether the program was stable enough to compare; raises Disagreement where ways to run it
    differ."""
    random = Random(program.seed)
    _check(program)
    if random.random() < 0.3:
        _check_layout(program)
    with contextlib.redirect_stdout(io.StringIO()):
        runs = [*elaborations(program)]
    first = runs[0]
    for run in runs:
        _evaluate(run)
    if any(not _same(first, run.expected, "symbolic sizes") for run in runs[1:]):
        return False
    if program.is_gradient and not _modes_agree(first):
        return False
    chosen = random.choice(runs)
    stable = [_run_all_ways(run, random, native=run is chosen) for run in runs]
    return all(stable)


def _check(program: Program) -> None:
    found = check(Source("program.mto", program.text))
    if found:
        raise Disagreement(program, "the check finds mistakes", render_all(found))


def _check_layout(program: Program) -> None:
    text = format_source(program.text)
    if format_source(text) != text:
        raise Disagreement(program, "the layout changes again", text)
    trees = [parse(Source("program.mto", part))[0] for part in (text, program.text)]
    if trees[0] != trees[1]:
        raise Disagreement(program, "the layout changes the meaning", text)


def elaborations(program: Program) -> Iterator[Run]:
    """With numbers for all sizes, then with names where there are any, and arguments."""
    random = Random(program.seed)
    named = {v.text: TensorType(DType(v.dtype), v.shape) for v in program.inputs}
    numbers = {name: _with_numbers(type_, program) for name, type_ in named.items()}
    arguments: list[Array] = []
    for types in [numbers, *([named] if named != numbers else [])]:
        for position, elaborated in enumerate(_elaborate(program, types)):
            values = elaborated.function.arguments
            given = [_array(random, v.type, v.hint or "", program) for v in values]
            if types is named:
                given = arguments[position] if position < len(arguments) else given
            else:
                arguments.append(given)
            yield Run(program, elaborated, given)
            if program.entry != "f":
                return


def _with_numbers(type_: TensorType, program: Program) -> TensorType:
    return type_.with_shape(tuple(dim_value(dim, program.sizes) for dim in type_.shape))


def _elaborate(program: Program, types: Types) -> list[Elaborated]:
    definitions = Definitions.loads(program.text)
    if program.entry == "f":
        return [definitions.elaborate_map("f", types)]
    if program.entry == "F":
        return [definitions.instantiate("F").elaborate("", types)]
    return [definitions.trainer("Fit").elaborate_step(types)]


def _array(random: Random, type_: TensorType, name: str, program: Program) -> Array:
    generator = np.random.default_rng(random.getrandbits(32))
    shape = [dim_value(dim, program.sizes) for dim in type_.shape]
    if type_.dtype.is_float:
        values = generator.uniform(-1, 1, shape)
        return np.asarray(np.round(values * 64) / 64 if random.random() < 0.2 else values).astype(
            type_.dtype.numpy
        )
    if type_.dtype is DType.BOOL:
        return np.asarray(generator.random(shape) < 0.5)
    low, high = (0, 9) if random.random() < 0.7 else (-100, 100)
    low = 0 if type_.dtype is DType.U8 else low
    return np.asarray(generator.integers(low, high, shape)).astype(type_.dtype.numpy)


def _evaluate(run: Run) -> None:
    run.plain = Inline().run(Differentiate().run(run.elaborated.module))
    verify(run.plain)
    with _printing() as text:
        run.expected = ir.evaluate(run.plain, run.elaborated.entry, run.arguments)
    run.printed = text.getvalue()


@contextlib.contextmanager
def _printing() -> Iterator[io.StringIO]:
    with contextlib.redirect_stdout(io.StringIO()) as text:
        yield text


def _run_all_ways(run: Run, random: Random, native: bool) -> bool:
    module = PassRunner(DEFAULT, verify=random.random() < 0.3).run(run.elaborated.module)
    verify(module)
    with _printing() as text:
        found = ir.evaluate(module, run.elaborated.entry, run.arguments)
    if text.getvalue() != run.printed:
        raise Disagreement(run.program, "the passes change what is printed", text.getvalue())
    if not _same(run, found, "the passes"):
        return False
    if not native:
        return True
    machine = random.choice(machines())
    function = _with_constants(module[run.elaborated.entry], random)
    is_small = random.random() < 0.5
    if is_small:
        machine = replace(machine, **SMALL_CACHES)
    with small_thresholds() if is_small else contextlib.nullcontext():
        compiled = Native(function, machine, threads=random.random() < 0.05)
    copies = [np.array(array) for array in run.arguments]
    with _printing() as text:
        results = compiled(copies)
    what = f"native code at {machine.vector_bits} bits"
    if isinstance(results, int):
        raise Disagreement(run.program, f"{what} fails", results)
    if text.getvalue() != run.printed:
        raise Disagreement(run.program, f"{what} prints", text.getvalue())
    aliases = dict(alias_pairs(function))
    rest = iter(results)
    values = [copies[aliases[i]] if i in aliases else next(rest) for i in range(len(run.types))]
    return _same(run, values, what)


def _with_constants(function: Function, random: Random) -> Function:
    """The function, told in some programs that some arguments are the same at each call."""
    updated = {argument for _, argument in alias_pairs(function)}
    free = [number for number in range(len(function.arguments)) if number not in updated]
    if random.random() < 0.5:
        return function
    constants = tuple(number for number in free if random.random() < 0.7)
    return replace(function, attributes={**function.attributes, "constants": constants})


def _same(run: Run, found: Sequence[Array], what: str) -> bool:
    """Whether results are what is expected; False where rounding alone explains the difference."""
    for position, (type_, wanted, actual) in enumerate(
        zip(run.types, run.expected, found, strict=True)
    ):
        if _close(type_.dtype, wanted, actual, _tolerance(run, type_.dtype)):
            continue
        if _is_unstable(run, position, actual):
            return False
        text = f"result {position}: {type_}\nexpected {wanted!r}\nfound {actual!r}"
        raise Disagreement(run.program, f"{what} differs", text)
    return True


def _tolerance(run: Run, dtype: DType) -> float:
    """Of the dtype in which the program computes, if it is less precise."""
    return max(TOLERANCES.get(dtype, 0), TOLERANCES[DType(run.program.dtype)])


def _close(dtype: DType, wanted: Array, actual: Array, tolerance: float) -> bool:
    if wanted.shape != actual.shape:
        return False
    if not dtype.is_float:
        return bool(np.array_equal(wanted, actual))
    wanted, actual = np.asarray(wanted, np.float64), np.asarray(actual, np.float64)
    scale = float(np.max(np.abs(wanted[np.isfinite(wanted)]), initial=1.0))
    return np.allclose(wanted, actual, tolerance, tolerance * scale, equal_nan=True)


def _modes_agree(run: Run) -> bool:
    value, same, forward, reverse = run.expected
    for one, other in ((value, same), (forward, reverse)):
        if _close(DType.F64, np.asarray(one), np.asarray(other), 1e-8):
            continue
        if any(_is_unstable(run, position, run.expected[position]) for position in range(4)):
            return False
        raise Disagreement(run.program, "forward and reverse mode differ", run.expected)
    return True


def _is_unstable(run: Run, position: int, found: Array) -> bool:
    """Whether rounding errors inside the program may change a result as much as was seen."""
    wanted = run.expected[position]
    if wanted.shape != found.shape:
        return False
    distance = _distance(wanted, found) if wanted is not found else 1e-8
    rounding = max(ROUNDING.get(v.dtype, 0) for v in _values(run.plain[run.elaborated.entry].block))
    spread = 0.0
    for seed in range(8):
        with _noise(seed, rounding), _printing():
            noisy = ir.evaluate(run.plain, run.elaborated.entry, run.arguments)[position]
        spread = max(spread, _distance(wanted, noisy))
    return 30 * spread >= distance


def _values(block: ir.Block) -> Iterator[ir.Value]:
    yield from block.arguments
    for op in block.operations:
        yield from op.results
        for region in op.regions:
            yield from _values(region.block)


def _distance(one: Array, other: Array) -> float:
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        return np.inf
    with np.errstate(all="ignore"):
        difference = np.where((a == b) | np.isnan(a), 0, np.abs(a - b))
    return float(np.max(difference, initial=0.0))


@contextlib.contextmanager
def _noise(seed: int, rounding: float) -> Iterator[None]:
    """In this context the evaluator makes random rounding errors."""
    generator = np.random.default_rng(seed)
    plain = evaluator._evaluate_operation

    def noisy(op: Operation, operands: Sequence[Array], module: Module | None) -> Sequence[Array]:
        results = plain(op, operands, module)
        if op.name in EXACT:
            return results
        return [_perturbed(v.dtype, r) for v, r in zip(op.results, results, strict=True)]

    def _perturbed(dtype: DType, array: Array) -> Array:
        if not dtype.is_float:
            return array
        factors = 1 + rounding * generator.uniform(-2, 2, np.shape(array))
        return np.asarray(np.asarray(array, np.float64) * factors).astype(dtype.numpy)

    evaluator._evaluate_operation = noisy
    try:
        yield
    finally:
        evaluator._evaluate_operation = plain
