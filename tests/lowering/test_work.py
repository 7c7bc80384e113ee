"""Work is counted from the IR, and times are taken inside of the program."""

from __future__ import annotations

from mapsto.ir.parser import parse_module
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.driver import lower
from mapsto.lowering.lowered import KernelCall
from mapsto.lowering.work import Work, work_of


def works(text: str, sizes: dict[str, int] | None = None) -> list[Work]:
    """The work of the kernels of the function @f."""
    compiled = lower(parse_module(text), "f", Machine.baseline(), timed=True)
    return [
        work_of(step.call, step.op, sizes or {})  # type: ignore[arg-type]
        for step in compiled.steps
        if isinstance(step.call, KernelCall) and step.op is not None
    ]


MAPS = "(d0, d1, d2) -> (d0, d2), (d0, d1, d2) -> (d2, d1)"
PRODUCT = f"""
func @f(%x: f32[n, 64], %w: f32[64, 32]) -> (f32[n, 32]) {{
  %0 = contract %x, %w {{extents = [n, 32, 64], maps = [{MAPS}], rank = 2}} : f32[n, 32]
  %1 = exp %0 : f32[n, 32]
  return %1
}}
"""


def test_product() -> None:
    n = 16
    operations = 2 * n * 32 * 64 + n * 32
    read = 4 * (n * 64 + 64 * 32)
    assert works(PRODUCT, {"n": n}) == [Work(operations, read, 4 * n * 32, 4)]


def test_elements_of_another_width() -> None:
    text = """
    func @f(%x: f64[100], %y: f64[100]) -> (f64[100]) {
      %0 = mul %x, %y : f64[100]
      %1 = le %0, %y : bool[100]
      %2 = select %1, %0, %x : f64[100]
      return %2
    }
    """
    assert works(text) == [Work(100, 1600, 800, 8)]


def test_parts_of_tensors() -> None:
    text = """
    func @f(%table: f32[10000, 16], %ids: i32[8], %y: f32[50]) -> (f32[8, 16], f32[3]) {
      %0 = gather %table, %ids {axes = [0]} : f32[8, 16]
      %1 = slice %y {sizes = [3], starts = [2], steps = [1]} : f32[3]
      %2 = neg %1 : f32[3]
      return %0, %2
    }
    """
    total = sum(works(text), start=Work())
    assert (total.operations, total.written) == (3, 4 * (8 * 16 + 3))
    assert total.read == 4 * (8 * 16 + 8 + 3)


def test_work_adds_up() -> None:
    assert Work(10, 4, 8, 8) + Work(3, 1, 1, 4) == Work(13, 5, 9, 8)
    assert Work(10, 4, 8, 8) * 3 == Work(30, 12, 24, 8)
