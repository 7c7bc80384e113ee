"""Programs in LLVM text, entries as the compiler writes them, for the runtime's tests."""

from mapsto.ir.dims import Dim, symbol
from mapsto.ir.types import DType
from mapsto.runtime.signature import Argument, Signature, TensorSpec

N = symbol("n")


def spec(name: str, *shape: Dim, dtype: DType = DType.F32) -> TensorSpec:
    return TensorSpec(name, dtype, shape)


RELU_SCALE = """
declare void @mapsto_parallel_for(ptr, ptr, i64)

define i64 @forward.arena_bytes(ptr %dims) {
  %n = load i64, ptr %dims
  %bytes = mul i64 %n, 16
  ret i64 %bytes
}

define internal void @row(ptr %buffers, i64 %i, i64 %worker) {
  %w = load ptr, ptr %buffers
  %x.ptr = getelementptr ptr, ptr %buffers, i64 1
  %x = load ptr, ptr %x.ptr
  %y.ptr = getelementptr ptr, ptr %buffers, i64 2
  %y = load ptr, ptr %y.ptr
  %weights = load <4 x float>, ptr %w, align 4
  %row = getelementptr <4 x float>, ptr %x, i64 %i
  %values = load <4 x float>, ptr %row, align 4
  %positive = fcmp ogt <4 x float> %values, zeroinitializer
  %relu = select <4 x i1> %positive, <4 x float> %values, <4 x float> zeroinitializer
  %result = fmul <4 x float> %relu, %weights
  %target = getelementptr <4 x float>, ptr %y, i64 %i
  store <4 x float> %result, ptr %target, align 4
  ret void
}

define i32 @forward(ptr %buffers, ptr %dims, ptr %arena) {
  %n = load i64, ptr %dims
  %last = sub i64 %n, 1
  %end = getelementptr <4 x float>, ptr %arena, i64 %last
  store <4 x float> zeroinitializer, ptr %end, align 16
  call void @mapsto_parallel_for(ptr @row, ptr %buffers, i64 %n)
  ret i32 0
}
"""
"""`forward(w: f32[4] bound, x: f32[n, 4]) -> y: f32[n, 4]` = relu(x) * w, a row a task."""

RELU_SCALE_SIGNATURE = Signature(
    (Argument(spec("w", 4), bound=True), Argument(spec("x", N, 4))), (spec("y", N, 4),)
)

STEP = """
define i64 @step.arena_bytes(ptr %dims) {
  ret i64 0
}

; w <- w + x;  returns the old w[0], or error 3 where x[0] is not a number
define i32 @step(ptr %buffers, ptr %dims, ptr %arena) {
  %w = load ptr, ptr %buffers
  %x.ptr = getelementptr ptr, ptr %buffers, i64 1
  %x = load ptr, ptr %x.ptr
  %old.ptr = getelementptr ptr, ptr %buffers, i64 2
  %old = load ptr, ptr %old.ptr
  %first = load float, ptr %x, align 4
  %bad = fcmp uno float %first, 0.0
  br i1 %bad, label %fail, label %go
fail:
  ret i32 3
go:
  %weights = load <4 x float>, ptr %w, align 4
  %gradient = load <4 x float>, ptr %x, align 4
  %before = extractelement <4 x float> %weights, i32 0
  store float %before, ptr %old, align 4
  %after = fadd <4 x float> %weights, %gradient
  store <4 x float> %after, ptr %w, align 4
  ret i32 0
}
"""
"""`step(w: f32[4] bound and updated, x: f32[4]) -> old: f32[]`."""

STEP_SIGNATURE = Signature(
    (Argument(spec("w", 4), bound=True), Argument(spec("x", 4))), (spec("old"),), exclusive=True
)

WINDOWS = """
define i64 @windows.arena_bytes(ptr %dims) {
  ret i64 0
}

define i32 @windows(ptr %buffers, ptr %dims, ptr %arena) {
  %out.ptr = getelementptr ptr, ptr %buffers, i64 2
  %out = load ptr, ptr %out.ptr
  %h = load i64, ptr %dims
  %r.ptr = getelementptr i64, ptr %dims, i64 1
  %r = load i64, ptr %r.ptr
  %empty = icmp slt i64 %h, %r
  br i1 %empty, label %done, label %write
write:
  store i64 %h, ptr %out, align 8
  br label %done
done:
  ret i32 0
}
"""
"""`windows(x: i64[h], k: i64[r]) -> (i64[h - r + 1], i64[h / r, 2])`: composite result shapes."""


def windows_signature() -> Signature:
    h, r = symbol("h"), symbol("r")
    arguments = (Argument(spec("x", h, dtype=DType.I64)), Argument(spec("k", r, dtype=DType.I64)))
    results = (spec("y", h - r + 1, dtype=DType.I64), spec("z", h // r, 2, dtype=DType.I64))
    return Signature(arguments, results)
