"""The loop IR: one kernel is one `LoopFunction` over row-major buffers.

Everything is a frozen record, so structurally equal kernels are equal objects.

Buffers live in one of four spaces.  `argument`: passed by pointer.  `local`: scratch memory of the
task (or, outside a parallel loop, of the kernel), 64-byte aligned, any size.  `shared`: fast memory
that the threads of a block have in common, of static shape.  `register`: small and of static shape;
indexed by constants once `unroll` and short vector loops are expanded, it becomes registers.  All
but arguments are declared by `Allocate`, live to the end of the enclosing block of statements and
start with undefined contents.  Two buffers never overlap unless both say `may_alias`.

Loops run `variable = start, start + step, ...` while `variable < stop`:

- `serial`: in order.
- `unroll`: static bounds, expanded.
- `vector`: iterations are independent except for `Reduce`; executed in groups of lanes.  Everything
  inside may depend on the variable: loads and stores become contiguous, strided or gathered; inner
  loops need bounds that do not depend on it; registers allocated inside are one per lane; `If` on a
  condition that varies becomes masking.  Step 1.
- `parallel`: iterations are independent tasks for the thread pool.  Not inside another parallel or
  a vector loop; one iteration is one task, so the division of work never depends on the number of
  threads.  Registers declared outside cannot be used inside.  Step 1.
- `block`, `thread`: what a GPU runs at once.  A kernel for a GPU is up to three block loops, one
  inside the other, around shared buffers and up to three thread loops, which hold all the rest and
  start at 0; the innermost is the fastest (`x`).  Threads have registers of their own.  A `Barrier`
  makes all threads of a block wait for each other, and memory that one wrote before it is seen by
  all after it; all of them must come to the same one.  Steps 1.

`Reduce(op, buffer, indices, value)` is `buffer[indices] = op(buffer[indices], value)`.  In a vector
loop whose variable does not occur in `indices`, the target is a register buffer declared outside
the loop, and the order is fixed by the emitted code, never by the number of threads: iteration `i`
goes to one of `lanes * unroll` partial results, in order.  At the end of the outermost serial loop
around in which only vector loops use the target, and only so, the partials are combined by halving
(`p[j] = op(p[j], p[j + half])`), first over the unrolled vectors, then over the lanes, then into
the target; where the machine has no masks for the types in the loop, the iterations after the last
whole vector follow one by one.  An `atomic` one, in a thread loop, happens as a whole: other
threads may reduce into the same element, in any order.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeGuard

from mapsto.ir.dims import Dim
from mapsto.ir.kernel_key import exact
from mapsto.ir.types import DType
from mapsto.lowering.indices import Index, as_index
from mapsto.lowering.scalar_operations import OPERATIONS, check_operands

__all__ = [
    "FALSE",
    "MAX_WORKERS",
    "TRUE",
    "Allocate",
    "Apply",
    "AsyncCopy",
    "Barrier",
    "Buffer",
    "Comment",
    "CommitCopies",
    "Constant",
    "Expression",
    "For",
    "If",
    "IndexValue",
    "Let",
    "Load",
    "LoadMatrix",
    "LoopFunction",
    "LoopKind",
    "MatrixMultiply",
    "Prefetch",
    "Reduce",
    "Ref",
    "Shuffle",
    "Space",
    "Statement",
    "Store",
    "Together",
    "WaitCopies",
    "all_of",
    "apply",
    "bitcast",
    "cast",
    "compare",
    "constant",
    "fma",
    "is_product",
    "select",
    "within",
]

MAX_WORKERS = 256
"""Worker numbers that the thread pool passes to tasks are below this."""


class Space(Enum):
    """Where a buffer lives; see the head of this file."""

    ARGUMENT = "argument"
    LOCAL = "local"
    SHARED = "shared"
    REGISTER = "register"


class LoopKind(Enum):
    """How a loop is executed; see the head of this file."""

    SERIAL = "serial"
    PARALLEL = "parallel"
    VECTOR = "vector"
    UNROLL = "unroll"
    BLOCK = "block"
    THREAD = "thread"


@dataclass(frozen=True, slots=True)
class Buffer:
    """A row-major array.  `alignment` is in bytes; 0: one element's (64 for local buffers)."""

    name: str
    dtype: DType
    shape: tuple[Dim, ...] = ()
    space: Space = Space.ARGUMENT
    readonly: bool = False
    alignment: int = 0
    may_alias: bool = False

    def __getitem__(self, indices: Index | str | tuple[Index | str, ...]) -> Load:
        """The load of an element: `a["i", k + 1]`; a string is a loop variable."""
        parts = indices if isinstance(indices, tuple) else (indices,)
        return Load(self, tuple(map(as_index, parts)))

    def store(
        self, indices: tuple[Index | str, ...], value: Expression, guard: Expression | None = None
    ) -> Store:
        """The statement that stores an element."""
        return Store(self, tuple(map(as_index, indices)), value, guard)


class Expression:
    """A scalar expression; every subclass has a `dtype`."""

    __slots__ = ()

    @property
    def type(self) -> DType:
        """The element type of the value."""
        raise NotImplementedError

    def __str__(self) -> str:
        from mapsto.lowering.loop_printer import expression_text

        return expression_text(self)

    def __add__(self, other: Expression) -> Apply:
        return apply("add", self, other)

    def __sub__(self, other: Expression) -> Apply:
        return apply("sub", self, other)

    def __mul__(self, other: Expression) -> Apply:
        return apply("mul", self, other)

    def __truediv__(self, other: Expression) -> Apply:
        return apply("div", self, other)

    def __neg__(self) -> Apply:
        return apply("neg", self)


@dataclass(frozen=True, slots=True, eq=False)
class Constant(Expression):
    """A literal; zeros of both signs are different, a NaN is itself."""

    value: bool | int | float
    dtype: DType

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[DType, Hashable]:
        return self.dtype, exact(self.value)

    @property
    def type(self) -> DType:
        return self.dtype


@dataclass(frozen=True, slots=True, eq=False)
class Load(Expression):
    """An element of a buffer; where `guard` is false, `otherwise`, and no memory is touched."""

    buffer: Buffer
    indices: tuple[Index, ...]
    guard: Expression | None = None
    otherwise: bool | int | float = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Load) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Hashable, ...]:
        return self.buffer, self.indices, self.guard, exact(self.otherwise)

    @property
    def type(self) -> DType:
        return self.buffer.dtype


@dataclass(frozen=True, slots=True)
class IndexValue(Expression):
    """The value of an index as a scalar (an iota)."""

    index: Index
    dtype: DType = DType.I64

    @property
    def type(self) -> DType:
        return self.dtype


@dataclass(frozen=True, slots=True)
class Ref(Expression):
    """The value that a `Let` of that name bound."""

    name: str
    dtype: DType

    @property
    def type(self) -> DType:
        return self.dtype


@dataclass(frozen=True, slots=True)
class Shuffle(Expression):
    """What `value` is in another thread of the warp: in lane `number xor lane`, or (not `across`)
    in that lane.  It is the whole value of a `Let`, which all threads of the warp come to."""

    value: Expression
    lane: int
    across: bool = True

    @property
    def type(self) -> DType:
        return self.value.type


@dataclass(frozen=True, slots=True)
class Apply(Expression):
    """A scalar operation, one of `scalar_operations.OPERATIONS`."""

    op: str
    operands: tuple[Expression, ...]
    dtype: DType

    @property
    def type(self) -> DType:
        return self.dtype


def constant(value: bool | int | float, dtype: DType) -> Constant:
    """A literal, converted to the Python type of the element type."""
    if dtype is DType.BOOL:
        return Constant(bool(value), dtype)
    return Constant(float(value) if dtype.is_float else int(value), dtype)


TRUE = Constant(True, DType.BOOL)
FALSE = Constant(False, DType.BOOL)


def apply(op: str, *operands: Expression) -> Apply:
    """A scalar operation with its result type; TypeError when the operands do not fit."""
    check_operands(op, tuple(operand.type for operand in operands))
    if op in ("cast", "bitcast"):
        raise TypeError(f"`{op}` needs a result type: use `{op}(expression, dtype)`")
    dtype = DType.BOOL if OPERATIONS[op].compares else operands[-1].type
    return Apply(op, operands, dtype)


def cast(expression: Expression, dtype: DType) -> Expression:
    """The value converted to another element type; to bool it is `value != 0`."""
    return expression if expression.type is dtype else Apply("cast", (expression,), dtype)


def bitcast(expression: Expression, dtype: DType) -> Expression:
    """The same bits as another element type of the same width."""
    if expression.type.bits != dtype.bits:
        raise TypeError(f"bitcast from {expression.type} to {dtype}: the widths differ")
    return expression if expression.type is dtype else Apply("bitcast", (expression,), dtype)


def fma(a: Expression, b: Expression, c: Expression) -> Apply:
    """`a * b + c`, rounded once where the machine has fused multiply-add."""
    return apply("fma", a, b, c)


def is_product(expression: Expression) -> TypeGuard[Apply]:
    """Whether a sum with the expression is one fused operation.

    It is decided from this, in sight, and not left to LLVM: which product of two it would fuse
    depends on the code around, and the bits of a result must not.
    """
    is_mul = isinstance(expression, Apply) and expression.op == "mul"
    return is_mul and expression.type.is_float


def select(condition: Expression, a: Expression, b: Expression) -> Apply:
    """`a` where the condition holds, else `b`; both are evaluated."""
    return apply("select", condition, a, b)


def compare(op: str, left: Index | str, right: Index | str) -> Expression:
    """A comparison of two indices (`lt`, `le`, `gt`, `ge`, `eq`, `ne`), for guards."""
    return apply(op, IndexValue(as_index(left)), IndexValue(as_index(right)))


def all_of(*conditions: Expression | None) -> Expression | None:
    """The conjunction of the conditions that are not None; None when there is none."""
    result: Expression | None = None
    for condition in conditions:
        if condition is not None:
            result = condition if result is None else apply("and", result, condition)
    return result


def within(index: Index | str, extent: Index | str) -> Expression:
    """The guard `0 <= index and index < extent`."""
    return apply("and", compare("ge", index, 0), compare("lt", index, extent))


@dataclass(frozen=True, slots=True)
class Allocate:
    """Declares a local or register buffer for the rest of the enclosing block."""

    buffer: Buffer


@dataclass(frozen=True, slots=True)
class Store:
    """Stores an element; does nothing where `guard` is false.  That it `streams` is a hint: nothing
    reads the element before the caches have passed on to others."""

    buffer: Buffer
    indices: tuple[Index, ...]
    value: Expression
    guard: Expression | None = None
    streams: bool = False


@dataclass(frozen=True, slots=True)
class Reduce:
    """`buffer[indices] = op(buffer[indices], value)`; `op` is add, mul, min, max, and, or."""

    op: str
    buffer: Buffer
    indices: tuple[Index, ...]
    value: Expression
    guard: Expression | None = None
    atomic: bool = False


@dataclass(frozen=True, slots=True)
class Let:
    """Binds a name to a value for the rest of the enclosing block."""

    name: str
    value: Expression


@dataclass(frozen=True, slots=True)
class If:
    """Runs one of two blocks."""

    condition: Expression
    then: tuple[Statement, ...]
    otherwise: tuple[Statement, ...] = ()


@dataclass(frozen=True, slots=True)
class Prefetch:
    """A hint that the cache line of an element will be read soon, or written; any index is safe."""

    buffer: Buffer
    indices: tuple[Index, ...]
    writes: bool = False


@dataclass(frozen=True, slots=True)
class Barrier:
    """Where all threads of a block wait for each other; see the head of this file."""


@dataclass(frozen=True, slots=True)
class AsyncCopy:
    """Begins to copy `count` neighbours from `source` on, zeros where its guard is false, to shared
    memory; they are there after a `WaitCopies` and, for other threads, a `Barrier`."""

    buffer: Buffer
    indices: tuple[Index, ...]
    source: Load
    count: int = 1


@dataclass(frozen=True, slots=True)
class CommitCopies:
    """Makes a group of the copies that a thread has begun since the last one; it may be empty."""


@dataclass(frozen=True, slots=True)
class WaitCopies:
    """Waits for a thread's groups of copies but for the last `pending` ones."""

    pending: int = 0


@dataclass(frozen=True, slots=True)
class LoadMatrix:
    """Four matrices of 8 x 8 elements of 16 bits, from shared memory to the registers of a warp.

    All its threads come to it.  Thread `l` tells where row `l % 8` of matrix `l // 8` is: eight
    neighbours from `source[source_indices]` on, aligned to 16 bytes.  It gets `(l // 4, 2*(l % 4))`
    and the next element of that row of each matrix (of its transpose, if `transposed`), eight
    neighbours from `buffer[indices]` on.
    """

    buffer: Buffer
    indices: tuple[Index, ...]
    source: Buffer
    source_indices: tuple[Index, ...]
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class MatrixMultiply:
    """`sums += left x right`, of matrices that the threads of a warp hold together in registers.

    `shape` is (m, n, k): `left` is m x k, `right` k x n, of 16-bit floats, or of f32, which are
    rounded to tf32 (11 significant bits, halves away from zero); the sums are f32.  Each
    thread has a 32nd of each, neighbours from the given elements on.  All of them come to it.  A
    matrix is made of some of 8 x 8, one column of them after the other; of each, thread `l` has row
    `l // 4` (of `right`: column), and of that the elements `2 * (l % 4)` and the next.
    """

    sums: Buffer
    sums_indices: tuple[Index, ...]
    left: Buffer
    left_indices: tuple[Index, ...]
    right: Buffer
    right_indices: tuple[Index, ...]
    shape: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Comment:
    """A remark that is printed and copied into the generated code."""

    text: str


@dataclass(frozen=True, slots=True)
class For:
    """A loop.  `lanes`: of a vector loop, 0 for what fits the machine's vectors and the widest type
    in the body.  `unroll`: of a vector loop, how many vectors an iteration handles, each with its
    own partial results of reductions (0: chosen by the emitter); of a serial loop, how many
    iterations are laid out in a row."""

    variable: str
    start: Index
    stop: Index
    body: tuple[Statement, ...]
    kind: LoopKind = LoopKind.SERIAL
    step: int = 1
    lanes: int = 0
    unroll: int = 0


Together = Barrier | AsyncCopy | CommitCopies | WaitCopies | LoadMatrix | MatrixMultiply
"""What stands in a thread loop only."""
Statement = Allocate | Store | Reduce | Let | If | Prefetch | Comment | For | Together


@dataclass(frozen=True, slots=True)
class LoopFunction:
    """A kernel: argument buffers in the order of its pointer parameters, then its sizes (names of
    symbolic dimensions, passed as 64-bit integers), then the statements."""

    name: str
    buffers: tuple[Buffer, ...]
    sizes: tuple[str, ...]
    body: tuple[Statement, ...] = field(default=())
