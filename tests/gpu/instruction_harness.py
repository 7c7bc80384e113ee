"""Runs a few instructions of PTX on a thread for each element of some arrays."""

from __future__ import annotations

import numpy as np
import ptx

Array = np.ndarray
COUNT = 256

HEADER = """
.version 7.0
.target sm_80
.address_size 64
.visible .entry k(.param .u64 out{parameters}) {{
.reg .b64 %a<16>; .reg .b64 %o; .reg .b32 %t; .reg .pred %p; .reg .pred %q; .reg .b64 %offset;
{registers}
mov.u32 %t, %tid.x;
{declarations}
"""

WIDTHS = {"f16": 16, "bf16": 16, "f16x2": 32, "bf16x2": 32, "tf32": 32, "f32x2": 64}


def bits_of(kind: str) -> int:
    return WIDTHS.get(kind) or int(kind[1:])


def execute(
    code: str, result: str, kinds: list[str], operands: list[Array], declarations: str = ""
) -> Array:
    """The results of code that computes `%d` from `%x0`, `%x1`, ..., a thread for each element.
    `%t` is the thread's number, `%p` and `%q` are predicates."""
    widths = [bits_of(kind) for kind in kinds]
    parameters = "".join(f", .param .u64 in{i}" for i in range(len(kinds)))
    registers = "".join(f".reg .b{w} %x{i};\n" for i, w in enumerate(widths))
    registers += f".reg .b{bits_of(result)} %d;"
    text = HEADER.format(parameters=parameters, registers=registers, declarations=declarations)
    for i, width in enumerate(widths):
        text += f"ld.param.u64 %a{i}, [in{i}]; mul.wide.u32 %offset, %t, {width // 8};\n"
        text += f"add.s64 %a{i}, %a{i}, %offset; ld.global.b{width} %x{i}, [%a{i}];\n"
    size = bits_of(result) // 8
    text += f"{code}\nld.param.u64 %o, [out]; mul.wide.u32 %offset, %t, {size};\n"
    text += f"add.s64 %o, %o, %offset; st.global.b{8 * size} [%o], %d; ret;\n}}\n"
    memory = ptx.GlobalMemory()
    out = memory.allocate(size * COUNT)
    inputs = [memory.allocate(x) for x in operands]
    ptx.launch(ptx.prepare(ptx.parse(text), "k"), (1, 1, 1), (COUNT, 1, 1), [out, *inputs], memory)
    return memory.read(out, f"u{size}", (COUNT,))


def random_bits(bits: int, seed: int) -> Array:
    """All kinds of bit patterns, those near the ends among them."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 1 << 63, COUNT, np.uint64) * np.uint64(2) + rng.integers(
        0, 2, COUNT, np.uint64
    )
    x[::5] &= np.uint64(7)
    x[1::7] |= np.uint64((1 << bits) - 8)
    return (x & np.uint64((1 << bits) - 1)).astype(f"u{bits // 8}")
