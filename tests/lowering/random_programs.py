"""Random programs of the tensor IR: any op on any value so far, with shapes that fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random

from mapsto import ir
from mapsto.ir.affine import axis, projection
from mapsto.ir.core import Function, Value
from mapsto.ir.dims import Dim, dim_value, symbol
from mapsto.ir.ops.contraction import access, contract, reduce_axes
from mapsto.ir.ops.flow import branch, scan, while_loop
from mapsto.ir.types import DType, TensorType

n = symbol("n")
DEEPEST = 2
"""How deep loops and branches nest."""

LARGEST = 20_000
"""Programs have no tensors with more elements than this for n = 7."""

DIMS: tuple[tuple[Dim, ...], ...] = ((n, 1, 3, 5, 8, 17), (n, 40, 64))
Step = Callable[["ProgramWriter", Value], Value | None]


class ProgramWriter:
    """Writes one program of tensors of a floating-point type; `random` makes all choices."""

    def __init__(self, random: Random, dtype: DType = DType.F64) -> None:
        self.random = random
        self.depth = 0
        self.dims = random.choice(DIMS)
        shapes = [self._shape() for _ in range(random.randint(1, 3))]
        if not any(n in shape for shape in shapes):
            shapes[0] = (n, *shapes[0][:2])
        types = [TensorType(dtype, shape) for shape in shapes]
        self.build = ir.Builder(ir.Block(types, [f"x{i}" for i in range(len(types))]))
        self.values = list(self.build.block.arguments)

    def _shape(self) -> tuple[Dim, ...]:
        return tuple(self.random.choice(self.dims) for _ in range(self.random.randint(0, 3)))

    def write(self) -> Function:
        """The whole function, some results updating arguments in place."""
        for _ in range(self.random.randint(2, 14)):
            recent = self.values[-6:] if self.random.random() < 0.7 else self.values
            value = self.random.choice(STEPS)(self, self.random.choice(recent))
            if value is not None and _elements(value) <= LARGEST:
                self.values.append(value)
        results = [self.random.choice(self.values[-8:]) for _ in range(self.random.randint(1, 3))]
        aliases = tuple(self._aliases(results))
        attributes = {"aliases": aliases} if aliases else {}
        return ir.finish_function("f", self.build, results, attributes)

    def _aliases(self, results: list[Value]) -> Iterator[tuple[int, int]]:
        taken: set[int] = set()
        for i, result in enumerate(results):
            for j, argument in enumerate(self.build.block.arguments):
                same = argument.type == result.type and j not in taken
                if same and self.random.random() < 0.6:
                    taken.add(j)
                    yield i, j
                    break

    def inside(self, build: ir.Builder, values: Sequence[Value]) -> ProgramWriter:
        """A writer of a few operations in a region, on these values and some from outside."""
        inner = ProgramWriter.__new__(ProgramWriter)
        inner.random, inner.dims, inner.depth = self.random, self.dims, self.depth + 1
        inner.build, inner.values = build, [*self.values[-3:], *values]
        for _ in range(self.random.randint(1, 4)):
            step = self.random.choice(STEPS if inner.depth < DEEPEST else PLAIN_STEPS)
            value = step(inner, self.random.choice(inner.values))
            if value is not None and _elements(value) <= LARGEST // 20:
                inner.values.append(value)
        return inner

    def result_like(self, value: Value) -> Value:
        """A value of the same type, not far from zero where it was computed here."""
        found = self.pick(lambda other: other.type == value.type) or value
        is_computed = found.owner is not None and found.defining_op in self.build.block.operations
        return self.build.emit(ir.Tanh, found) if is_computed else found

    def pick(self, fits: Callable[[Value], bool]) -> Value | None:
        """One of the values so far for which a condition holds."""
        found = [value for value in self.values if fits(value)]
        return self.random.choice(found) if found else None


def _elements(value: Value) -> int:
    return dim_value(value.type.elements, {"n": 7})


def unary(p: ProgramWriter, x: Value) -> Value:
    record = p.random.choice([ir.Sin, ir.Neg, ir.Abs, ir.Sigmoid, ir.Exp, ir.StopGradient])
    return p.build.emit(record, p.build.emit(ir.Tanh, x))


def binary(p: ProgramWriter, x: Value) -> Value:
    y = p.pick(lambda value: value.type == x.type) or x
    return p.build.emit(p.random.choice([ir.Add, ir.Sub, ir.Mul, ir.Max, ir.Min]), x, y)


def chosen(p: ProgramWriter, x: Value) -> Value:
    y = p.pick(lambda value: value.type == x.type) or x
    return p.build.emit(ir.Select, p.build.emit(ir.Gt, x, y), y, x)


def broadcast(p: ProgramWriter, x: Value) -> Value | None:
    if x.type.rank == 3:
        return None
    at = p.random.randint(0, x.type.rank)
    shape = (*x.shape[:at], p.random.choice(p.dims), *x.shape[at:])
    dims = tuple(i + (i >= at) for i in range(x.type.rank))
    return p.build.emit(ir.Broadcast, x, shape=shape, dims=dims)


def transpose(p: ProgramWriter, x: Value) -> Value:
    permutation = list(range(x.type.rank))
    p.random.shuffle(permutation)
    return p.build.emit(ir.Transpose, x, permutation=tuple(permutation))


def reduction(p: ProgramWriter, x: Value) -> Value | None:
    if x.type.rank == 0:
        return None
    axes = sorted(p.random.sample(range(x.type.rank), p.random.randint(1, x.type.rank)))
    return reduce_axes(p.build, p.random.choice(["sum", "max", "min"]), x, axes)


def pad(p: ProgramWriter, x: Value) -> Value | None:
    if x.type.rank == 0:
        return None
    low, high = (tuple(p.random.randint(0, 2) for _ in x.shape) for _ in range(2))
    return p.build.emit(ir.Pad, x, low=low, high=high, value=p.random.choice([0, 1.5]))


def concat(p: ProgramWriter, x: Value) -> Value | None:
    if x.type.rank == 0:
        return None
    along = p.random.randrange(x.type.rank)

    def rest(value: Value) -> tuple[Dim, ...]:
        return (*value.shape[:along], *value.shape[along + 1 :])

    y = p.pick(lambda value: value.type.rank == x.type.rank and rest(value) == rest(x)) or x
    return p.build.emit(ir.Concat, x, y, axis=along)


def slice_(p: ProgramWriter, x: Value) -> Value:
    starts, sizes, steps = [], [], []
    for extent in x.shape:
        step = p.random.choice([1, 1, 2, -1]) if isinstance(extent, int) else 1
        start, size = 0, extent
        if isinstance(extent, int):
            size = p.random.randint(1, -(-extent // abs(step)))
            start = p.random.randint(0, extent - 1 - (size - 1) * abs(step))
            start += (size - 1) if step < 0 else 0
        starts.append(start)
        sizes.append(size)
        steps.append(step)
    return p.build.emit(ir.Slice, x, starts=tuple(starts), sizes=tuple(sizes), steps=tuple(steps))


def reshape(p: ProgramWriter, x: Value) -> Value | None:
    if x.type.rank == 0:
        return None
    i = p.random.randrange(x.type.rank)
    before, extent, after = x.shape[:i], x.shape[i], x.shape[i + 1 :]
    if after and p.random.random() < 0.5:
        return p.build.emit(ir.Reshape, x, shape=(*before, extent * after[0], *after[1:]))
    split = (2, extent // 2) if isinstance(extent, int) and extent % 2 == 0 else (extent, 1)
    return p.build.emit(ir.Reshape, x, shape=(*before, *split, *after))


def product(p: ProgramWriter, x: Value) -> Value | None:
    if x.type.rank != 2:
        return None
    y = p.pick(lambda value: value.type.rank == 2 and value.shape[0] == x.shape[1])
    if y is None:
        return None
    maps = [projection([0, 2], 3), projection([2, 1], 3)]
    return contract(p.build, [x, y], maps, (x.shape[0], y.shape[1], x.shape[1]), 2)


def position(p: ProgramWriter, x: Value) -> Value | None:
    if x.type.rank == 0:
        return None
    record = p.random.choice([ir.ArgMax, ir.ArgMin])
    found = p.build.emit(record, x, axis=p.random.randrange(x.type.rank))
    number = p.build.emit(ir.Cast, found, dtype=x.dtype)
    return p.build.emit(ir.Mul, number, p.build.like(0.01, number))


def window(p: ProgramWriter, x: Value) -> Value | None:
    if x.type.rank == 0:
        return None
    exprs = [axis(i, x.type.rank) for i in range(x.type.rank)]
    i = p.random.randrange(x.type.rank)
    exprs[i] = exprs[i].scaled(p.random.choice([1, 2, -1])).shifted(p.random.choice([-1, 0, 1]))
    return access(p.build, x, exprs, x.shape)


def loop(p: ProgramWriter, x: Value) -> Value | None:
    """A scan over x: what is carried is another value, or an element of x."""
    if x.type.rank == 0:
        return None
    element = x.type.with_shape(x.shape[1:])
    carried = [p.pick(lambda value: True) or x]
    if p.random.random() < 0.5:
        carried.append(p.build.constant(0.5, element.dtype, element.shape))

    def body(build: ir.Builder, states: Sequence[Value], slices: Sequence[Value]):
        inner = p.inside(build, [*states, *slices])
        new = [inner.result_like(state) for state in states]
        return new, [p.random.choice(inner.values[-4:])]

    finals, outputs = scan(p.build, body, carried, [x], reverse=p.random.random() < 0.3)
    p.values += [value for value in finals if _elements(value) <= LARGEST]
    return outputs[0]


def conditional_loop(p: ProgramWriter, x: Value) -> Value:
    """A few steps of a `while`."""
    steps = p.build.constant(p.random.randint(0, 3), DType.I64)

    def more(build: ir.Builder, states: Sequence[Value]):
        return [build.emit(ir.Gt, states[1], build.constant(0, DType.I64))]

    def body(build: ir.Builder, states: Sequence[Value]):
        inner = p.inside(build, states[:1])
        return [inner.result_like(states[0]), build.emit(ir.Sub, states[1], build.like(1, steps))]

    return while_loop(p.build, more, body, [x, steps])[0]


def branches(p: ProgramWriter, x: Value) -> Value:
    top = reduce_axes(p.build, "max", x, list(range(x.type.rank)))
    condition = p.build.emit(ir.Gt, top, p.build.like(p.random.choice([0.0, 0.7, 5.0]), top))

    def one(build: ir.Builder) -> list[Value]:
        return [p.inside(build, [x]).result_like(x)]

    return branch(p.build, condition, one, one)[0]


PLAIN_STEPS: tuple[Step, ...] = (
    *(unary, binary, binary, chosen, broadcast, broadcast, transpose, reduction, reduction),
    *(pad, concat, slice_, reshape, product, product, position, window),
)

STEPS: tuple[Step, ...] = (*PLAIN_STEPS, loop, conditional_loop, branches)
