"""From values of elaboration to IR: materializing, broadcasting as NumPy does, element types.

Index variables are batch axes: an operation on tensors that depend on indices works at each point
of the union of their indices.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mapsto import ir
from mapsto.dsl.diagnostics import Help, Kind, Note, NoteKind
from mapsto.dsl.frame import Facts, Frame, fail
from mapsto.dsl.source import Span
from mapsto.dsl.values import (
    Access,
    Applicable,
    Dimensions,
    Effect,
    ElementType,
    Formula,
    Group,
    IndexVariable,
    Indices,
    Key,
    ModuleClass,
    Namespace,
    Nothing,
    Number,
    ParameterTree,
    Position,
    Product,
    Tensor,
    Text,
    TrainClass,
    Truth,
    Value,
)

__all__ = [
    "as_access",
    "as_tensor",
    "broadcast_shape",
    "coerce",
    "common_dtype",
    "describe",
    "dimension_note",
    "dimension_notes",
    "elementwise",
    "is_static",
    "list_dims",
    "read",
    "select",
    "sorted_variables",
    "spread",
]


def describe(value: Value) -> str:
    """A value in the words of a message."""
    match value:
        case Tensor():
            return str(value.type)
        case Product():
            return f"{value.dtype}[]"
        case Position():
            return "an index"
        case Number():
            return f"the number {value.value}"
        case Formula():
            return "a number"
        case Truth():
            return str(value.value).lower()
        case Text():
            return "a string"
        case Nothing():
            return "none"
        case Group():
            if value.names:
                return f"a record of {', '.join(value.names)}"
            return "a list" if value.is_list else "a tuple"
        case ElementType():
            return f"the dtype {value.dtype}"
        case ModuleClass():
            return f"the module `{value.definition.name.name}`"
        case TrainClass():
            return f"the train block `{value.definition.name.name}`"
    return _KINDS.get(type(value), "an instance of a module")


_KINDS: dict[type, str] = {
    Dimensions: "a group of dimensions",
    Effect: "a statement",
    Indices: "a group of indices",
    Key: "a random key",
    Namespace: "an imported file",
    ParameterTree: "a tree of parameters",
    **dict.fromkeys(Applicable.__subclasses__(), "a map"),
}


def is_static(value: Value) -> bool:
    """Whether the value is a number or a truth value known during elaboration."""
    return isinstance(value, Number | Formula | Truth)


def list_dims(shape: Sequence[ir.Dim]) -> str:
    """A shape in the words of a message: `[n, 64]`."""
    return f"[{', '.join(map(str, shape))}]"


def sorted_variables(variables: Iterable[IndexVariable]) -> tuple[IndexVariable, ...]:
    """Index variables in the order of the axes that stand for them."""
    return tuple(sorted(set(variables), key=lambda variable: variable.serial))


def as_tensor(frame: Frame, span: Span, value: Value, dtype: ir.DType | None = None) -> Tensor:
    """The value as a tensor; `dtype` is what a number or an index becomes."""
    match value:
        case Tensor():
            return value
        case Product():
            return _multiplied(frame, span, value)
        case Position():
            return _index_values(frame, span, value, dtype or ir.DType.I32)
        case Number():
            wanted = dtype or default_dtype(value)
            return _number(frame, span, value, ir.TensorType(wanted))
        case Formula():
            operands = [as_tensor(frame, span, x, dtype or ir.DType.F32) for x in value.operands]
            return elementwise(frame, span, value.op, operands)
        case Truth():
            return frame.constant(span, value.value, ir.TensorType(ir.DType.BOOL))
        case Key():
            return Tensor(_key(frame, span, value))
    return fail(Kind.NOT_A_TENSOR, span, found=describe(value))


def _key(frame: Frame, span: Span, key: Key) -> ir.Value:
    """64 bits that depend on the seed and the stream, as a key of their own."""
    type = ir.TensorType(ir.DType.I64)
    stream = key.stream ^ _KEYS
    result: ir.Value = frame.emit(span, ir.Random, key.seed, stream=stream, type=type)
    return result


_KEYS = 0x6B657973 << 32
"""Keeps the streams of keys apart from those of first values."""


def default_dtype(value: Number) -> ir.DType:
    """What a number is where nothing asks for an element type."""
    return ir.DType.F32 if isinstance(value.value, float) else ir.DType.I32


def _number(frame: Frame, span: Span, number: Number, type: ir.TensorType) -> Tensor:
    """A tensor of this type with the number everywhere."""
    value, dtype = number.value, type.dtype
    if dtype is ir.DType.BOOL or (isinstance(value, float) and not dtype.is_float):
        fail(Kind.NUMBER_OF_DTYPE, span, value=value, dtype=dtype)
    if isinstance(value, ir.DimExpression):
        return Tensor(_fill(frame, span, _size(frame, span, value, dtype), type.shape))
    if dtype.is_integer and not fits(value, dtype):
        fail(Kind.NUMBER_OF_DTYPE, span, value=value, dtype=dtype)
    return frame.constant(span, float(value) if dtype.is_float else value, type)


def fits(value: float, dtype: ir.DType) -> bool:
    """Whether a whole number is in the range of an integer type."""
    low = -(1 << (dtype.bits - 1)) if dtype.is_signed else 0
    return low <= value < low + (1 << dtype.bits)


def _size(frame: Frame, span: Span, dim: ir.Dim, dtype: ir.DType) -> ir.Value:
    """A symbolic dimension as a scalar: the last element of `0 .. dim`."""
    type = ir.TensorType(dtype, (dim + 1,))
    counted = frame.emit(span, ir.Iota, axis=0, type=type)
    last = frame.emit(span, ir.Slice, counted, starts=(dim,), sizes=(1,), steps=(1,))
    result: ir.Value = frame.emit(span, ir.Reshape, last, shape=())
    return result


def _fill(frame: Frame, span: Span, value: ir.Value, shape: tuple[ir.Dim, ...]) -> ir.Value:
    if not shape:
        return value
    result: ir.Value = frame.emit(span, ir.Broadcast, value, shape=shape, dims=())
    return result


def _index_values(frame: Frame, span: Span, position: Position, dtype: ir.DType) -> Tensor:
    """The values of an affine index at each point of its variables."""
    if dtype is ir.DType.BOOL:
        fail(Kind.INDEX_OF_DTYPE, span, dtype=dtype)
    total: Value = Number(position.constant)
    for variable, coefficient in position.terms:
        type = ir.TensorType(dtype, (variable.extent,))
        term: Value = Tensor(frame.emit(span, ir.Iota, axis=0, type=type), (variable,))
        if coefficient != 1:
            term = elementwise(frame, span, ir.Mul, [term, Number(coefficient)])
        if total != Number(0):
            term = elementwise(frame, span, ir.Add, [total, term])
        total = term
    return as_tensor(frame, span, total, dtype)


def _multiplied(frame: Frame, span: Span, product: Product) -> Tensor:
    result = _read_sorted(frame, span, product.factors[0])
    for factor in product.factors[1:]:
        right = _read_sorted(frame, span, factor)
        result = elementwise(frame, span, ir.Mul, [result, right])
    return result


def _read_sorted(frame: Frame, span: Span, access: Access) -> Tensor:
    variables = sorted_variables(access.variables)
    return Tensor(read(frame, span, access, variables), variables)


def read(frame: Frame, span: Span, access: Access, variables: Sequence[IndexVariable]) -> ir.Value:
    """The accessed element at each point of the variables, which are all that it depends on."""
    plain = [position.plain for position in access.positions]
    named = [variable for variable in plain if variable is not None]
    if len(named) == len(plain) and len(set(named)) == len(named) == len(variables):
        permutation = tuple(named.index(variable) for variable in variables)
        if permutation == tuple(range(len(permutation))):
            return access.tensor
        result: ir.Value = frame.emit(span, ir.Transpose, access.tensor, permutation=permutation)
        return result
    exprs = [affine(position, variables) for position in access.positions]
    extents = [variable.extent for variable in variables]
    map_ = ir.AffineMap(len(extents), tuple(exprs))
    return frame.contract(span, [access.tensor], [map_], extents, len(extents))


def affine(position: Position, variables: Sequence[IndexVariable]) -> ir.AffineExpr:
    """A position as an affine expression over a domain with a dimension for each variable."""
    coefficients = dict(position.terms)
    return ir.AffineExpr(tuple(coefficients.get(v, 0) for v in variables), position.constant)


def as_access(tensor: Tensor) -> Access:
    """A scalar that depends on indices as an access of its IR value."""
    return Access(tensor.value, tuple(map(Position.of, tensor.axes)))


def common_dtype(frame: Frame, span: Span, values: Sequence[Value]) -> ir.DType:
    """The one element type of the operands that have one; numbers and indices adapt."""
    found: ir.DType | None = None
    for value in values:
        if not isinstance(value, Tensor | Product):
            continue
        if found is not None and value.dtype is not found:
            fail(Kind.DTYPES_DIFFER, span, help=Help.CAST, left=found, right=value.dtype)
        found = value.dtype
    if found is not None:
        return found
    if all(isinstance(value, Truth) for value in values):
        return ir.DType.BOOL
    if any(isinstance(value, Formula) for value in values):
        return ir.DType.F32
    numbers = [value for value in values if isinstance(value, Number)]
    return max(map(default_dtype, numbers), key=lambda d: d.is_float, default=ir.DType.I32)


def elementwise(
    frame: Frame, span: Span, op: type[ir.Operation], values: Sequence[Value], **facts: Any
) -> Tensor:
    """Applies an elementwise op to operands broadcast to one shape."""
    dtype = common_dtype(frame, span, values)
    axes, operands = _aligned(frame, span, values, [dtype] * len(values))
    accepts = getattr(op, "accepts", None)
    if accepts is not None and dtype not in accepts:
        fail(Kind.DTYPE_NOT_ACCEPTED, span, operation=op.name, dtype=dtype)
    return Tensor(frame.emit(span, op, *operands, **facts), axes)


def select(frame: Frame, span: Span, condition: Tensor, then: Value, other: Value) -> Tensor:
    """`then` where the condition holds, else `other`."""
    dtype = common_dtype(frame, span, [then, other])
    dtypes = [ir.DType.BOOL, dtype, dtype]
    axes, operands = _aligned(frame, span, [condition, then, other], dtypes)
    return Tensor(frame.emit(span, ir.Select, *operands), axes)


def _aligned(
    frame: Frame, span: Span, values: Sequence[Value], dtypes: Sequence[ir.DType]
) -> tuple[tuple[IndexVariable, ...], list[ir.Value]]:
    """The operands as IR values of one shape, and the index variables of its leading axes."""
    tensors = [
        value if isinstance(value, Number) else as_tensor(frame, span, value, dtype)
        for value, dtype in zip(values, dtypes, strict=True)
    ]
    given = [tensor for tensor in tensors if isinstance(tensor, Tensor)]
    axes = sorted_variables(v for tensor in given for v in tensor.axes)
    shape = broadcast_shape(frame, span, given)
    full = (*(variable.extent for variable in axes), *shape)
    operands = [
        spread(frame, span, tensor, axes, shape)
        if isinstance(tensor, Tensor)
        else _number(frame, span, tensor, ir.TensorType(dtype, full)).value
        for tensor, dtype in zip(tensors, dtypes, strict=True)
    ]
    return axes, operands


def broadcast_shape(frame: Frame, span: Span, tensors: Sequence[Tensor]) -> tuple[ir.Dim, ...]:
    """The common shape by NumPy's rules: aligned at the right, an axis of size 1 stretches."""
    result: tuple[ir.Dim, ...] = ()
    for position, tensor in enumerate(tensors):
        rank = max(len(result), len(tensor.shape))
        left = (1,) * (rank - len(result)) + result
        right = (1,) * (rank - len(tensor.shape)) + tensor.shape
        pairs = list(zip(left, right, strict=True))
        wrong = [pair for pair in pairs if pair[0] != pair[1] and 1 not in pair]
        if wrong:
            before = tensors[position - 1].type.with_shape(result)
            _fail_broadcast(frame, span, before, tensor.type, wrong[-1])
        result = tuple(b if a == 1 else a for a, b in pairs)
    return result


def _fail_broadcast(
    frame: Frame, span: Span, left: ir.TensorType, right: ir.TensorType, pair: Sequence[ir.Dim]
) -> None:
    notes = dimension_notes(frame, pair)
    facts: Facts = {"left": left, "right": right, "first": pair[0], "second": pair[1]}
    fail(Kind.SHAPES_DIFFER, span, notes=notes, **facts)


def dimension_notes(frame: Frame, dims: Iterable[ir.Dim]) -> list[Note]:
    """Where the dimensions got their values: notes for the names in scope that have them."""
    notes: dict[str, Note] = {}
    for dim in dims:
        names = ir.symbols(dim)
        items = (item for scope in frame.scope.enclosing() for item in scope.names.items())
        for name, bound in items:
            value = bound.value
            if bound.span is None or not isinstance(value, Number) or name in notes:
                continue
            if value.value == dim or str(value.value) in names:
                notes[name] = dimension_note(name, value.value, bound.span)
    return list(notes.values())


def dimension_note(name: str, value: object, span: Span) -> Note:
    """Where a dimension got its value; a rigid one stands for any size."""
    kind = NoteKind.DIMENSION_ANY if str(value) == name else NoteKind.DIMENSION_FROM
    return Note(kind, span, {"name": name, "value": value})


def spread(
    frame: Frame,
    span: Span,
    tensor: Tensor,
    axes: Sequence[IndexVariable],
    shape: Sequence[ir.Dim],
) -> ir.Value:
    """The tensor over these index variables, repeated to this shape."""
    kept = [i for i, dim in enumerate(tensor.shape) if not _stretches(tensor.shape, i, shape)]
    value = tensor.value
    leading = len(tensor.axes)
    if len(kept) != len(tensor.shape):
        dims = (*value.shape[:leading], *(tensor.shape[i] for i in kept))
        value = frame.emit(span, ir.Reshape, value, shape=dims)
    offset = len(axes) + len(shape) - len(tensor.shape)
    dims = (*(axes.index(v) for v in tensor.axes), *(offset + i for i in kept))
    full = (*(variable.extent for variable in axes), *shape)
    if value.shape == full:
        return value
    result: ir.Value = frame.emit(span, ir.Broadcast, value, shape=full, dims=dims)
    return result


def _stretches(shape: Sequence[ir.Dim], i: int, target: Sequence[ir.Dim]) -> bool:
    return shape[i] == 1 and target[len(target) - len(shape) + i] != 1


def coerce(
    frame: Frame,
    span: Span,
    value: Value,
    type: ir.TensorType,
    *,
    what: str,
    declared: Span | None = None,
) -> Tensor:
    """The value as a tensor of exactly this type.

    In messages `what` is its role, and `declared` the place that asks for the type.
    """
    if isinstance(value, Number):
        return _number(frame, span, value, type)
    tensor = as_tensor(frame, span, value, type.dtype)
    if isinstance(value, Formula | Truth) and tensor.dtype is type.dtype:
        return Tensor(_fill(frame, span, tensor.value, type.shape))
    if tensor.type == type:
        return tensor
    kind = Kind.WRONG_DTYPE if tensor.dtype is not type.dtype else Kind.WRONG_SHAPE
    notes = [] if declared is None else [Note(NoteKind.DECLARED_HERE, declared, {"type": type})]
    if len(tensor.shape) == len(type.shape):
        pairs = zip(tensor.shape, type.shape, strict=True)
        notes += dimension_notes(frame, [d for pair in pairs if pair[0] != pair[1] for d in pair])
    help = Help.CAST if kind is Kind.WRONG_DTYPE else None
    return fail(kind, span, notes=notes, help=help, what=what, expected=type, found=tensor.type)
