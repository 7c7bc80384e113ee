"""A matrix product in Triton, compiled without a GPU, to set beside the compiler's own."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

BLOCK = (128, 128, 32)
WARPS = 4
STAGES = 3


@triton.jit
def product(a, b, c, m, n, k, rows: tl.constexpr, columns: tl.constexpr, depth: tl.constexpr):
    """c = a @ b by tiles, as in Triton's tutorial."""
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    column = tl.program_id(1) * columns + tl.arange(0, columns)
    step = tl.arange(0, depth)
    left = a + row[:, None] * k + step[None, :]
    right = b + step[:, None] * n + column[None, :]
    total = tl.zeros((rows, columns), tl.float32)
    for _ in range(0, k, depth):
        total += tl.dot(tl.load(left), tl.load(right), input_precision="ieee")
        left += depth
        right += depth * n
    tl.store(c + row[:, None] * n + column[None, :], total)


def compile_product(dtype: str, capability: int) -> tuple[str, int, int]:
    """PTX, bytes of shared memory and threads of a block; `dtype` is fp16 or fp32."""
    types = {"a": f"*{dtype}", "b": f"*{dtype}", "c": "*fp32", "m": "i32", "n": "i32", "k": "i32"}
    constants = dict(zip(("rows", "columns", "depth"), BLOCK, strict=True))
    aligned = {(i,): [["tt.divisibility", 16]] for i in range(6)}
    source = ASTSource(
        product, types | dict.fromkeys(constants, "constexpr"), constants, attrs=aligned
    )
    options = {"num_warps": WARPS, "num_stages": STAGES}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return compiled.asm["ptx"], compiled.metadata.shared, 32 * WARPS
