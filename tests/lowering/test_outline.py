"""The steps of a program as text."""

from __future__ import annotations

from harness import build, machines

from mapsto import ir
from mapsto.ir.ops.flow import branch, scan
from mapsto.ir.types import DType
from mapsto.lowering.driver import lower
from mapsto.lowering.outline import outline_text

F32 = DType.F32


def test_steps_places_and_bodies() -> None:
    def body(b, condition, x, xs):
        def step(b, carried, slices):
            new = b.emit(ir.Add, carried[0], slices[0])
            b.op(ir.Print, new, text="{}")
            return [new], [b.emit(ir.Exp, new)]

        def looped(b):
            finals, outputs = scan(b, step, [x], [xs])
            return [*finals, *outputs]

        return list(branch(b, condition, looped, lambda b: [x, xs]))

    types = [(DType.BOOL, ()), (F32, (4,)), (F32, (3, 4))]
    function = build("f", types, body, aliases=((0, 1),))
    for argument in function.arguments:
        argument.hint = "x"
    compiled = lower(ir.Module.of(function), "f", machines()[0])
    assert (
        outline_text(compiled.functions["f"])
        == """\
entry f(x, x$1, x$2) -> (x$1, result0) {
  if (x, x$1, x$2) -> (x$1, result0) {
    first branch(x1, x2) -> (x1, x2) {
      scan {carried = 1, constants = 0, extent = 3} (x1, x2) -> (x1, arena+0) {
        body(x1, x2) -> (x1, result0) {
          f.if0.first_branch.scan0.body.kernel0(x1, x2, x1, result0)
          print {text = "{}"} (x1)
        }
      }
      copy arena+0 -> x2
    }
    second branch(x1, x2) -> (x1, x2) {
    }
  }
}
"""
    )
