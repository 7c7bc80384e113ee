"""Effects: calls of what writes text (`runtime/print.ll`), and checks that may end a program."""

from __future__ import annotations

from collections.abc import Sequence

from mapsto.ir.array_text import PLACEHOLDER
from mapsto.ir.core import Operation, Value
from mapsto.ir.ops.effects import Assert, Print
from mapsto.ir.types import DType
from mapsto.lowering.apart import ApartWriter, Sizes
from mapsto.lowering.llvm.types import I8, I32, I64, VOID, Operand, constant
from mapsto.lowering.lowered import LoweredFunction

__all__ = ["AssertLowering", "PrintLowering"]

_MESSAGE_BYTES = 1024
"""What print.ll keeps of a message, and how much of it there is."""


class AssertLowering:
    """Returns the code of the assertion where the condition does not hold."""

    def scratch_bytes(
        self, sizes: Sizes, op: Operation, bodies: Sequence[LoweredFunction]
    ) -> Operand:
        return constant(I64, 0)

    def write(self, writer: ApartWriter) -> None:
        f, op = writer.f, writer.op
        assert isinstance(op, Assert)
        code = writer.assertions.code(op.message, op.location)
        fails = f.icmp("eq", f.load(I8, writer.operands[0]), constant(I8, 0))
        writer.fail_if(fails, constant(I32, code))


class PrintLowering:
    """Hands text and tensors to the runtime, piece by piece."""

    def scratch_bytes(
        self, sizes: Sizes, op: Operation, bodies: Sequence[LoweredFunction]
    ) -> Operand:
        return constant(I64, 0)

    def write(self, writer: ApartWriter) -> None:
        op = writer.op
        assert isinstance(op, Print)
        message = writer.f.alloca(I8, _MESSAGE_BYTES)
        _call(writer, "mapsto_print_begin", message)
        first, *rest = op.text.split(PLACEHOLDER)
        _print_text(writer, message, first)
        for value, pointer, text in zip(op.operands, writer.operands, rest, strict=True):
            _print_tensor(writer, message, value, pointer)
            _print_text(writer, message, text)
        _call(writer, "mapsto_print_end", message)


def _print_text(writer: ApartWriter, message: Operand, text: str) -> None:
    if text:
        data = text.encode()
        _call(writer, "mapsto_print_text", message, _bytes(writer, data), constant(I64, len(data)))


def _print_tensor(writer: ApartWriter, message: Operand, value: Value, pointer: Operand) -> None:
    f, rank = writer.f, value.type.rank
    shape = f.alloca(I64, max(2, rank), 8)
    for axis, dim in enumerate(value.shape):
        f.store(writer.sizes.dim(dim), f.getelementptr(I64, shape, axis))
    kind = list(DType).index(value.dtype)
    numbers = constant(I64, kind), constant(I64, rank)
    _call(writer, "mapsto_print_tensor", message, pointer, *numbers, shape)


def _bytes(writer: ApartWriter, data: bytes) -> Operand:
    """Text as a constant of the program."""
    text = "".join(f"\\{byte:02X}" for byte in data)
    return writer.module.add_global(
        f"text.{data.hex()}", f'internal constant [{len(data)} x i8] c"{text}"'
    )


def _call(writer: ApartWriter, name: str, *arguments: Operand) -> None:
    writer.f.declare(name, VOID, [argument.type for argument in arguments])
    writer.f.call(name, VOID, arguments)
