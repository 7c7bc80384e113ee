"""The tensor IR: Module > Function > Block > Operation > Value.

An op is a subclass of `Operation`; the class is the record of everything the IR knows about it
(traits, attributes, shape rule, reference evaluation, derivative).  Subclasses register themselves
under their `name`.

Values, operations and blocks do not change once they are built: a pass builds new ones
(see `rewriting`), so a value can be shared, compared by identity and used as a key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Flag, auto
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mapsto.ir.affine import AffineMap
from mapsto.ir.dims import Dim, DimExpression
from mapsto.ir.errors import MissingDerivative, TypeRuleError
from mapsto.ir.types import DType, TensorType

if TYPE_CHECKING:
    from mapsto.ir.builder import Builder

__all__ = [
    "Array",
    "Attribute",
    "Block",
    "DenseArray",
    "Function",
    "Location",
    "Module",
    "Operation",
    "Region",
    "SymbolReference",
    "Trait",
    "Value",
    "registered_ops",
]

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Location:
    """Where in a source text something was written; lines and columns count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class SymbolReference:
    """The name of a function of the module, as an attribute: `@loss`."""

    name: str

    def __str__(self) -> str:
        return f"@{self.name}"


class DenseArray:
    """A constant array as an attribute: compared and hashed by its bytes."""

    __slots__ = ("_key", "array")

    def __init__(self, array: Array) -> None:
        self.array = np.ascontiguousarray(array).reshape(np.shape(array))
        self.array.setflags(write=False)
        self._key = (self.array.dtype.str, self.array.shape, self.array.tobytes())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DenseArray) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


Attribute = (
    bool
    | int
    | float
    | str
    | DType
    | TensorType
    | DimExpression
    | AffineMap
    | SymbolReference
    | DenseArray
    | tuple["Attribute", ...]
)


class Trait(Flag):
    """What passes, printer and verifier may assume of an op."""

    NONE = 0
    ELEMENTWISE = auto()
    """All operands and the result have one shape; element i depends on elements i only."""
    COMMUTATIVE = auto()
    """The two operands may be exchanged."""
    INDEXING = auto()
    """Each result element is a copy of one operand element, or a constant."""
    EFFECT = auto()
    """Must be kept, in order, even where no result is used."""
    TERMINATOR = auto()
    """Ends a block."""
    OPAQUE = auto()
    """Is expanded by a pass before lowering (differentiation, calls)."""
    EXPENSIVE = auto()
    """Takes tens of operations an element: better kept than computed again."""
    APART = auto()
    """Is lowered on its own, with operands and results in memory: never part of a kernel."""
    FALLIBLE = auto()
    """May fail, or not end, for some operands: stays where the program runs it."""
    WHOLE = auto()
    """Is computed by a kernel of its own, which no other stage joins: its elements are not computed
    one by one."""


class Value:
    """A tensor that an operation computes or that a block receives."""

    __slots__ = ("hint", "index", "owner", "type")

    def __init__(
        self, type: TensorType, owner: Operation | Block | None, index: int, hint: str = ""
    ) -> None:
        self.type = type
        self.owner = owner
        self.index = index
        self.hint = hint

    def __repr__(self) -> str:
        return f"<value {self.hint or self.index} : {self.type}>"

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self.type.dtype

    @property
    def shape(self) -> tuple[Dim, ...]:
        """The shape."""
        return self.type.shape

    @property
    def defining_op(self) -> Operation | None:
        """The operation that computes the value; None for a block's argument."""
        return self.owner if isinstance(self.owner, Operation) else None


_REGISTRY: dict[str, type[Operation]] = {}


def registered_ops() -> Mapping[str, type[Operation]]:
    """Every op known to the process, by name."""
    return _REGISTRY


class Operation:
    """One operation; a subclass is the record of an op.

    A subclass gives `name`, `traits`, `attribute_types` (name -> type or union of types) and
    `defaults`, and overrides `infer` (the shape rule, which is the verifier), `evaluate` (the NumPy
    reference, which is the meaning) and, where the op is differentiable, `jvp` and `transpose`.
    """

    name: ClassVar[str] = ""
    traits: ClassVar[Trait] = Trait.NONE
    attribute_types: ClassVar[Mapping[str, Any]] = {}
    defaults: ClassVar[Mapping[str, Attribute]] = {}
    arity: ClassVar[int | None] = None
    """The number of operands; None where it varies."""
    region_names: ClassVar[tuple[str, ...]] = ()
    """What each region is, of an op that is lowered on its own: condition, body, .."""
    not_differentiable: ClassVar[str] = ""
    """Why the op has no derivative, where that is so by nature."""

    __slots__ = ("attributes", "location", "operands", "regions", "results")

    def __init_subclass__(cls) -> None:
        if "name" in cls.__dict__:
            registered = _REGISTRY.setdefault(cls.name, cls)
            if registered.__qualname__ != cls.__qualname__:
                raise ValueError(f"an op named {cls.name!r} exists already: {registered!r}")
            _REGISTRY[cls.name] = cls

    def __init__(
        self,
        operands: Sequence[Value],
        attributes: Mapping[str, Attribute] | None = None,
        regions: Sequence[Region] = (),
        location: Location | None = None,
        result_types: Sequence[TensorType] | None = None,
    ) -> None:
        self.operands = tuple(operands)
        self.attributes: dict[str, Attribute] = {**self.defaults, **(attributes or {})}
        self.regions = tuple(regions)
        self.location = location
        types = self.infer_results() if result_types is None else result_types
        self.results = tuple(Value(t, self, i) for i, t in enumerate(types))

    def __repr__(self) -> str:
        return f"<{self.name} : {', '.join(str(r.type) for r in self.results)}>"

    @property
    def result(self) -> Value:
        """The only result."""
        (result,) = self.results
        return result

    def has(self, trait: Trait) -> bool:
        """Whether the op has the trait."""
        # By their numbers: `&` makes a new flag, which takes a tenth of the time of all passes.
        return bool(self.traits._value_ & trait._value_)

    @property
    def has_effect(self) -> bool:
        """Whether the op, or one inside its regions, has an effect."""
        if self.has(Trait.EFFECT) or not self.regions:
            return self.has(Trait.EFFECT)
        return any(op.has_effect for region in self.regions for op in region.block.operations)

    @property
    def can_fail(self) -> bool:
        """Whether the op, or one inside its regions, may fail or not end."""
        if self.has(Trait.FALLIBLE) or not self.regions:
            return self.has(Trait.FALLIBLE)
        return any(op.can_fail for region in self.regions for op in region.block.operations)

    def infer_results(self) -> tuple[TensorType, ...]:
        """The result types by the shape rule; TypeRuleError carries the op's location."""
        if self.arity is not None and len(self.operands) != self.arity:
            found = len(self.operands)
            raise TypeRuleError(f"{self.name} takes {self.arity} operands, found {found}", self)
        try:
            return self.infer()
        except TypeRuleError as error:
            error.op = error.op or self
            raise

    def infer(self) -> tuple[TensorType, ...]:
        """The shape rule: result types from operands, attributes and regions.

        Raises TypeRuleError where they do not fit.
        """
        raise NotImplementedError(f"{self.name} has no shape rule")

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        """The reference semantics: arrays of the results from arrays of the operands."""
        raise NotImplementedError(f"{self.name} has no reference evaluation")

    def jvp(
        self, build: Builder, results: Sequence[Value], tangents: Sequence[Value | None]
    ) -> Sequence[Value | None]:
        """Tangents of the results from tangents of the operands; None stands for zero.

        The op here is the primal op itself: `self.operands` and `results` are its primal values.
        Only ops that are linear in a tangent may be applied to it.
        """
        raise MissingDerivative(self)

    def transpose(
        self, build: Builder, cotangent: Value, linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        """Cotangents of the operands that are `linear`; None for the others.

        Called on ops that `jvp` rules emit, which are linear in those operands.
        """
        raise MissingDerivative(self)

    def region_aliases(self, number: int) -> tuple[tuple[int, int], ...]:
        """Pairs (result, argument) of a region: where it runs again, the result takes the place of
        the argument."""
        return ()

    def pushed(
        self, build: Builder, tangents: Sequence[Value | None]
    ) -> tuple[Sequence[Value], Sequence[Value | None]]:
        """Emits the op, which stands in no block yet; gives its results and their tangents.

        Overridden where primal values and tangents are better computed in one go.
        """
        return self.linearized(build, tangents)

    def linearized(
        self, build: Builder, tangents: Sequence[Value | None]
    ) -> tuple[Sequence[Value], Sequence[Value | None]]:
        """As `pushed`, where the tangents are going to be transposed.

        No op that is emitted may both depend on a tangent and give a primal value.  Overridden
        where what the tangents need of the primal op has to be given by it (residuals).
        """
        build.append(self)
        return self.results, self.jvp(build, self.results, tangents)

    def pulled_back(
        self, build: Builder, cotangents: Sequence[Value | None], linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        """Cotangents of the operands that are `linear` from those of the results; None is zero.

        Overridden by linear ops that have several results; `transpose` is for those with one.
        """
        if len(cotangents) != 1 or cotangents[0] is None:
            raise MissingDerivative(self)
        parts = self.transpose(build, cotangents[0], linear)
        if any(is_linear and part is None for is_linear, part in zip(linear, parts, strict=True)):
            # A `jvp` rule used the op where it is not linear: an error rather than a wrong 0.
            raise MissingDerivative(self)
        return parts

    def region_constants(self, number: int) -> int:
        """How many first arguments of a region are the same each time that it runs, where that is
        often."""
        return 0

    def rebuilt(
        self, operands: Sequence[Value], regions: Sequence[Region] | None = None
    ) -> Operation:
        """The same op on other operands; its result types are inferred again where types of these
        are different or there are regions."""
        inner = self.regions if regions is None else regions
        pairs = zip(operands, self.operands, strict=False)
        alike = len(operands) == len(self.operands) and all(
            new.type is old.type or new.type == old.type for new, old in pairs
        )
        types = [result.type for result in self.results] if alike and not inner else None
        return type(self)(operands, self.attributes, inner, self.location, types)


class Block:
    """Arguments and a list of operations, the last of which is a terminator."""

    __slots__ = ("arguments", "operations")

    def __init__(self, arguments: Sequence[TensorType], hints: Sequence[str] = ()) -> None:
        names = [*hints, *[""] * (len(arguments) - len(hints))]
        self.arguments = tuple(
            Value(type, self, i, name)
            for i, (type, name) in enumerate(zip(arguments, names, strict=True))
        )
        self.operations: list[Operation] = []

    def with_operations(self, operations: Sequence[Operation]) -> Block:
        """A block of other operations on the same arguments."""
        block = Block(())
        block.arguments = self.arguments
        block.operations = list(operations)
        return block

    @property
    def terminator(self) -> Operation:
        """The last operation."""
        return self.operations[-1]

    @property
    def returned(self) -> tuple[Value, ...]:
        """The values that the block gives."""
        return self.terminator.operands


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A block inside an operation."""

    block: Block


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """A named block; its arguments are the function's, its terminator's operands its results.

    `attributes` hold facts for later stages.  `aliases`: pairs (result, argument) that share one
    buffer, so that the result is an update in place.  `constants`: numbers of arguments that are
    the same at each call, and never written.  `private`: true where only this module calls
    the function, so that it goes when nothing here does.
    """

    name: str
    block: Block
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    location: Location | None = None

    @property
    def arguments(self) -> tuple[Value, ...]:
        """The values that a caller gives."""
        return self.block.arguments

    @property
    def results(self) -> tuple[Value, ...]:
        """The values that a caller receives."""
        return self.block.returned

    def operations(self) -> Iterator[Operation]:
        """Every operation, those in regions after the operation that holds them."""
        return _walk(self.block)

    def with_block(self, block: Block) -> Function:
        """The function with another body."""
        return replace(self, block=block)


@dataclass(frozen=True, slots=True, eq=False)
class Module:
    """Functions by name."""

    functions: Mapping[str, Function]

    @staticmethod
    def of(*functions: Function) -> Module:
        """A module of these functions."""
        return Module({function.name: function for function in functions})

    def __getitem__(self, name: str) -> Function:
        return self.functions[name]

    def with_function(self, function: Function) -> Module:
        """The module with the function added or replaced."""
        return Module({**self.functions, function.name: function})


def _walk(block: Block) -> Iterator[Operation]:
    for op in block.operations:
        yield op
        for region in op.regions:
            yield from _walk(region.block)
