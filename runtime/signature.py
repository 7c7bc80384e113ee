"""What a compiled entry takes and gives: names, element types and shapes, in ABI order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from mapsto.ir.dims import Dim, DimExpression, symbol
from mapsto.ir.types import DType, TensorType

__all__ = ["MAX_DIM", "Argument", "Signature", "TensorSpec"]

MAX_DIM = 2**31 - 1
"""The largest value of a named size that compiled code accepts."""

_SUPPORTED = frozenset(DType) - {DType.BF16}


@dataclass(frozen=True)
class TensorSpec:
    """A named tensor type, printed `x: f32[n, 64]`."""

    name: str
    dtype: DType
    shape: tuple[Dim, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}: {self.type}"

    @property
    def type(self) -> TensorType:
        """The type without the name."""
        return TensorType(self.dtype, self.shape)


@dataclass(frozen=True)
class Argument:
    """An argument of the entry; a bound one (parameter, state) is not passed at each call."""

    spec: TensorSpec
    bound: bool = False


@dataclass(frozen=True)
class Signature:
    """The arguments of an entry and the results that alias none of them, both in ABI order.

    `release_gil` lets other Python threads run during a call.  `exclusive` says that bound buffers
    are written: calls then wait for each other.  The entry reads `prepared_bytes` of memory that
    are filled once, before the first call; their address follows those of the results.

    Raises ValueError if a bound argument has a named size, a named size stands alone in no unbound
    argument (its value could not be known), or an element type has no array type in NumPy.
    """

    arguments: tuple[Argument, ...]
    results: tuple[TensorSpec, ...]
    release_gil: bool = True
    exclusive: bool = False
    prepared_bytes: int = 0

    def __post_init__(self) -> None:
        for spec in self.specs:
            if spec.dtype not in _SUPPORTED:
                raise ValueError(f"{spec}: NumPy has no {spec.dtype} arrays")
        for spec in self.bound:
            if spec.type.symbols:
                raise ValueError(f"{spec}: a bound argument needs a fixed shape")
        unknown = [name for name in self.symbols if name not in self._plain_symbols]
        if unknown:
            raise ValueError(f"no argument says what the size {unknown[0]} is")

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """All arguments and results."""
        return tuple(argument.spec for argument in self.arguments) + self.results

    @cached_property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The arguments that a caller passes."""
        return tuple(argument.spec for argument in self.arguments if not argument.bound)

    @cached_property
    def bound(self) -> tuple[TensorSpec, ...]:
        """The arguments that the context holds."""
        return tuple(argument.spec for argument in self.arguments if argument.bound)

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """The named sizes, sorted: the order of the entry's `dims`."""
        return tuple(sorted(frozenset().union(*(spec.type.symbols for spec in self.specs))))

    @property
    def _plain_symbols(self) -> frozenset[str]:
        dims = {dim for spec in self.inputs for dim in spec.shape}
        return frozenset(name for name in self.symbols if symbol(name) in dims)


def plain_symbol(dim: Dim) -> str | None:
    """The name, if the dimension is just a named size."""
    if not isinstance(dim, DimExpression) or len(dim.terms) != 1:
        return None
    (monomial, coefficient) = dim.terms[0]
    if coefficient != 1 or len(monomial) != 1 or not isinstance(monomial[0], str):
        return None
    return monomial[0]
