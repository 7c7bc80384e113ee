"""The loop IR as text, for people.

    kernel saxpy(x: readonly f32[n], y: f32[n]; n) {
      for i in 0..$n vector {
        y[i] = fma(x[i], 2.0, y[i])
      }
    }

Sizes are written with a dollar sign, as in indices; `where` gives the guard of a store, `if` and
`else` after a load its guard and what it is where that is false.
"""

from __future__ import annotations

from collections.abc import Iterator

from mapsto.ir.types import DType
from mapsto.lowering.indices import Index
from mapsto.lowering.loops import (
    Allocate,
    Apply,
    AsyncCopy,
    Barrier,
    Buffer,
    Comment,
    CommitCopies,
    Constant,
    Expression,
    For,
    If,
    IndexValue,
    Let,
    Load,
    LoadMatrix,
    LoopFunction,
    LoopKind,
    MatrixMultiply,
    Prefetch,
    Reduce,
    Ref,
    Shuffle,
    Statement,
    Store,
    WaitCopies,
)

__all__ = ["expression_text", "loop_text"]

_INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "mod": "%",
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "and": "and",
    "or": "or",
}
_ASSIGNMENTS = {"add": "+=", "mul": "*=", "min": "min=", "max": "max=", "and": "and=", "or": "or="}
_INDENT = "  "


def loop_text(function: LoopFunction) -> str:
    """The kernel as indented text."""
    buffers = ", ".join(map(_buffer_text, function.buffers))
    sizes = f"; {', '.join(function.sizes)}" if function.sizes else ""
    lines = [f"kernel {function.name}({buffers}{sizes}) {{"]
    lines.extend(_block_lines(function.body, _INDENT))
    return "\n".join([*lines, "}\n"])


def _buffer_text(buffer: Buffer) -> str:
    words = [word for word in ("readonly", "may_alias") if getattr(buffer, word)]
    if buffer.alignment:
        words.append(f"align({buffer.alignment})")
    shape = ", ".join(map(str, buffer.shape))
    return f"{buffer.name}: {' '.join([*words, f'{buffer.dtype}[{shape}]'])}"


# ---- statements


def _block_lines(body: tuple[Statement, ...], indent: str) -> Iterator[str]:
    for statement in body:
        yield from _statement_lines(statement, indent)


def _statement_lines(statement: Statement, indent: str) -> Iterator[str]:
    if isinstance(statement, For):
        yield f"{indent}{_loop_head(statement)} {{"
        yield from _block_lines(statement.body, indent + _INDENT)
        yield indent + "}"
    elif isinstance(statement, If):
        yield from _if_lines(statement, indent)
    else:
        yield indent + _line(statement)


def _if_lines(statement: If, indent: str) -> Iterator[str]:
    yield f"{indent}if {expression_text(statement.condition)} {{"
    yield from _block_lines(statement.then, indent + _INDENT)
    if statement.otherwise:
        yield indent + "} else {"
        yield from _block_lines(statement.otherwise, indent + _INDENT)
    yield indent + "}"


def _loop_head(loop: For) -> str:
    words = [f"for {loop.variable} in {_bound_text(loop.start)}..{_bound_text(loop.stop)}"]
    if loop.step != 1:
        words.append(f"step {loop.step}")
    if loop.kind is not LoopKind.SERIAL:
        words.append(loop.kind.value + (f"({loop.lanes})" if loop.lanes else ""))
    if loop.unroll:
        words.append(f"unroll({loop.unroll})")
    return " ".join(words)


def _bound_text(index: Index) -> str:
    text = str(index)
    return f"({text})" if " " in text else text


def _line(statement: Statement) -> str:
    match statement:
        case Allocate(buffer):
            return f"{buffer.space.value} {_buffer_text(buffer)}"
        case Let(name, value):
            return f"let {name} = {expression_text(value)}"
        case Store(buffer, indices, value, guard):
            line = f"{_element(buffer, indices)} = {expression_text(value)}{_where(guard)}"
            return f"stream {line}" if statement.streams else line
        case Reduce(op, buffer, indices, value, guard):
            target = _element(buffer, indices)
            line = f"{target} {_ASSIGNMENTS[op]} {expression_text(value)}{_where(guard)}"
            return f"atomic {line}" if statement.atomic else line
        case Prefetch(buffer, indices, writes):
            return f"prefetch {_element(buffer, indices)}{' to write' if writes else ''}"
        case Barrier():
            return "barrier"
        case AsyncCopy(buffer, indices, source, count):
            return f"copy {count} to {_element(buffer, indices)} from {expression_text(source)}"
        case CommitCopies():
            return "commit copies"
        case WaitCopies(pending):
            return f"wait for copies but {pending}" if pending else "wait for copies"
        case LoadMatrix(buffer, indices, source, source_indices, transposed):
            how = " transposed" if transposed else ""
            return f"{_element(buffer, indices)} = matrix {_element(source, source_indices)}{how}"
        case MatrixMultiply(sums, at, left, left_at, right, right_at, (m, n, k)):
            product = f"{_element(left, left_at)} @ {_element(right, right_at)}"
            return f"{_element(sums, at)} += {product} # {m} x {n} x {k}"
        case Comment(text):
            return f"# {text}"
    raise TypeError(f"not a statement: {statement!r}")


def _where(guard: Expression | None) -> str:
    return "" if guard is None else f" where {expression_text(guard)}"


def _element(buffer: Buffer, indices: tuple[Index, ...]) -> str:
    return f"{buffer.name}[{', '.join(map(str, indices))}]"


# ---- expressions


def expression_text(expression: Expression) -> str:
    """A scalar expression as text."""
    match expression:
        case Constant(value):
            return str(value).lower() if isinstance(value, bool) else repr(value)
        case Ref(name):
            return name
        case IndexValue(index, dtype):
            return str(index) if dtype is DType.I64 else f"{dtype}({index})"
        case Load():
            return _load_text(expression)
        case Shuffle(value, lane, across):
            sign = "lane ^ " if across else ""
            return f"shuffle({expression_text(value)}, {sign}{lane})"
        case Apply():
            return _apply_text(expression)
    raise TypeError(f"not a scalar expression: {expression!r}")


def _load_text(load: Load) -> str:
    element = _element(load.buffer, load.indices)
    if load.guard is None:
        return element
    return f"({element} if {expression_text(load.guard)} else {load.otherwise!r})"


def _apply_text(expression: Apply) -> str:
    operands = [expression_text(operand) for operand in expression.operands]
    if expression.op == "cast":
        return f"{expression.dtype}({operands[0]})"
    if expression.op == "bitcast":
        return f"bitcast<{expression.dtype}>({operands[0]})"
    if expression.op == "neg":
        return f"-{_operand_text(expression.operands[0])}"
    if expression.op not in _INFIX:
        return f"{expression.op}({', '.join(operands)})"
    left, right = (_operand_text(operand) for operand in expression.operands)
    return f"{left} {_INFIX[expression.op]} {right}"


def _operand_text(expression: Expression) -> str:
    text = expression_text(expression)
    infix = isinstance(expression, Apply) and (expression.op in _INFIX or expression.op == "neg")
    return f"({text})" if infix or (isinstance(expression, IndexValue) and " " in text) else text
