"""Writes programs of the language at random: what is in scope, names, blocks.

A step takes a writer and a tensor in scope, writes statements and gives a new tensor, or None where
the tensor does not suit it.  Elements of floating-point tensors stay near the range from -1 to 1,
so that no program overflows and tolerances mean something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from mapsto.ir.dims import Dim, dim_value, symbol, symbols

__all__ = ["FLOATS", "INTEGERS", "Shared", "Step", "Var", "Writer", "brackets", "grow", "type_text"]

FLOATS = ("f16", "bf16", "f32", "f64")
INTEGERS = ("i8", "i16", "i32", "i64", "u8")
SIZES = (1, 2, 3, 5, 8, 17)
"""What a named size may be."""
LARGEST = 1500
"""Elements of a tensor, at the sizes with which a program runs."""
DEEPEST = 3
"""How deep blocks nest."""
n, m = symbol("n"), symbol("m")


@dataclass(frozen=True)
class Var:
    """An expression that can be used in what follows, and its type."""

    text: str
    dtype: str
    shape: tuple[Dim, ...] = ()

    @property
    def is_float(self) -> bool:
        """Whether its elements are floating-point numbers."""
        return self.dtype in FLOATS

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def type(self) -> str:
        """Its type in the language."""
        return type_text(self.dtype, self.shape)

    @property
    def is_known(self) -> bool:
        """Whether all its sizes are numbers."""
        return all(isinstance(dim, int) for dim in self.shape)


def brackets(items: Iterable[object]) -> str:
    """`[a, b]`."""
    return f"[{', '.join(map(str, items))}]"


def type_text(dtype: str, shape: Sequence[Dim]) -> str:
    """`f32[n, 3]`, or `f32` for a scalar."""
    return dtype + (brackets(shape) if shape else "")


@dataclass
class Shared:
    """What all blocks of a program have in common."""

    random: Random
    sizes: Mapping[str, int]
    dims: tuple[Dim, ...]
    dtype: str
    """The floating-point dtype that most tensors have."""
    reverse: bool = False
    """Whether the program is differentiated in reverse mode."""
    steps: tuple[Step, ...] = ()
    """What a block may consist of."""
    definitions: list[str] = field(default_factory=list)
    count: int = 0

    def fresh(self, prefix: str) -> str:
        """A name that nothing else has."""
        self.count += 1
        return f"{prefix}{self.count}"


class Writer:
    """Writes the statements of one block."""

    def __init__(self, shared: Shared, scope: Iterable[Var], depth: int = 0) -> None:
        self.shared = shared
        self.random = shared.random
        self.scope = list(scope)
        self.depth = depth
        self.lines: list[str] = []
        self.is_loop = False

    @property
    def dtype(self) -> str:
        """The floating-point dtype that most tensors have."""
        return self.shared.dtype

    def chance(self, probability: float) -> bool:
        """True as often as `probability` says."""
        return self.random.random() < probability

    def line(self, text: str) -> None:
        """Writes a statement."""
        self.lines += text.splitlines()

    def let(self, text: str, dtype: str, shape: Sequence[Dim] = ()) -> Var | None:
        """Gives an expression a name, or lets it stand where it will be used; None if it has too
        many elements or none."""
        found = Var(text, dtype, tuple(shape))
        if not self.fits(found.shape):
            return None
        if self.chance(0.15) and len(text) < 50 and "\n" not in text:
            return Var(f"({text})", dtype, found.shape)
        name = self.shared.fresh("v")
        annotation = f": {found.type}" if self.chance(0.15) else ""
        self.line(f"let {name}{annotation} = {text}")
        return Var(name, dtype, found.shape)

    def fits(self, shape: Sequence[Dim]) -> bool:
        """Whether a tensor of this shape is neither empty nor large."""
        elements = 1
        for dim in shape:
            elements *= dim_value(dim, self.shared.sizes)
            if dim_value(dim, self.shared.sizes) < 1:
                return False
        return elements <= (LARGEST if self.depth < 2 else LARGEST // 10)

    def reduction(self, x: Var, names: Sequence[str]) -> str:
        """One of these reductions; of large tensors no product, whose second derivative takes the
        reference evaluator a cube of memory."""
        name = self.random.choice(names)
        elements = 1
        for dim in x.shape:
            elements *= self.size(dim)
        return "max" if name == "prod" and elements > 64 else name

    def size(self, dim: Dim) -> int:
        """What a dimension is when the program runs."""
        return dim_value(dim, self.shared.sizes)

    def pick(self, fits: Callable[[Var], bool] = lambda var: True) -> Var | None:
        """A tensor in scope for which a condition holds, more often a recent one."""
        found = [var for var in self.scope if fits(var)]
        if not found:
            return None
        return self.random.choice(found[-4:] if self.chance(0.6) else found)

    def floats(self) -> Var:
        """A tensor of floating-point numbers."""
        found = self.pick(lambda var: var.dtype == self.dtype)
        return found or Var(self.number(self.dtype), self.dtype)

    def like(self, x: Var) -> Var:
        """A tensor of the type of x, x itself if need be."""
        return self.pick(lambda var: (var.dtype, var.shape) == (x.dtype, x.shape)) or x

    def of_shape(self, dtype: str, shape: Sequence[Dim]) -> str:
        """An expression of a type."""
        found = self.pick(lambda var: (var.dtype, var.shape) == (dtype, tuple(shape)))
        if found is not None:
            return found.text
        if not shape:
            return f"{dtype}({self.number(dtype)})"
        return f"broadcast({dtype}({self.number(dtype)}), {brackets(shape)})"

    def number(self, dtype: str = "f64") -> str:
        """A literal."""
        if dtype == "bool":
            return self.random.choice(["true", "false"])
        if dtype not in FLOATS:
            return self.random.choice(["0", "1", "2", "3", "7", "0x1F", "100"])
        return self.random.choice(["0", "1", "0.5", "0.25", ".75", "1e-1", "2", "-0.5", "1.5"])

    def scalar(self) -> Var:
        """One floating-point number."""
        x = self.floats()
        if not x.rank:
            return x
        return Var(f"{self.random.choice(['mean', 'max', 'min'])}({x.text})", x.dtype)

    def integers(self, shape: Sequence[Dim], below: Dim) -> str:
        """Whole numbers in a shape, from 0 up to a size."""
        shape = tuple(shape)
        found = self.pick(lambda var: (var.dtype, var.shape) == ("i32", shape))
        if found is not None and self.chance(0.8):
            return f"({found.text} % {_atom(below)})"
        if not shape:
            return f"(i32({self.number('i32')}) % {_atom(below)})"
        factor, shift = self.random.randint(1, 3), self.random.randint(0, 4)
        total: Dim = 1
        for dim in shape:
            total = total * dim
        numbers = f"iota({total})"
        if len(shape) > 1:
            numbers = f"reshape({numbers}, {brackets(shape)})"
        return f"(({factor} * {numbers} + {shift}) % {_atom(below)})"

    def condition(self) -> str:
        """One truth value that the program computes."""
        kind = self.random.randrange(4)
        operator = self.random.choice(["<", ">", "<=", ">=", "!=", "=="])
        found = self.pick(lambda var: var.dtype in INTEGERS)
        if kind == 0 and found is not None:
            return f"{self.random.choice(['all', 'any'])}({found.text} {operator} 2)"
        x = self.scalar()
        if kind == 1:
            return f"not ({x.text} > 0.3)"
        return f"{x.text} {self.random.choice('<>')} {self.number()}"

    def inside(self, more: Iterable[Var] = (), keep: bool = True) -> Writer:
        """A writer of a block within this one, which also sees `more`."""
        inner = Writer(self.shared, [*(self.scope if keep else ()), *more], self.depth + 1)
        inner.is_loop = self.is_loop
        return inner

    def block(self, inner: Writer, value: str) -> str:
        """The text behind a colon: the statements of a writer, then a value."""
        if not inner.lines and not value.startswith("let "):
            return f" {value}"
        return "\n" + "\n".join(f"    {line}" for line in [*inner.lines, value])

    def fresh(self, prefix: str) -> str:
        """A name that nothing else has."""
        return self.shared.fresh(prefix)

    def symbolic(self, dims: Iterable[Dim]) -> bool:
        """Whether one of the sizes has a name."""
        return any(symbols(dim) for dim in dims)


def _atom(dim: Dim) -> str:
    return str(dim) if str(dim).isalnum() else f"({dim})"


def grow(w: Writer, x: Var, steps: int) -> Var:
    """Some more steps in a block; the last floating-point tensor that they gave."""
    found = x
    for _ in range(steps):
        start = found if w.chance(0.5) else w.pick() or found
        new = w.random.choice(w.shared.steps)(w, start)
        if new is not None:
            w.scope.append(new)
            found = new if new.is_float else found
    return found


Step = Callable[[Writer, Var], Var | None]
