"""How each kind of GPU target spells what differs: the one table of the emitter.

A `Dialect` says how kernels are declared, which call gives the number of a thread or a block, which
one is a barrier and which reads another thread's registers, and which of LLVM's intrinsics may be
used.  LLVM ends the process on an intrinsic that a
target cannot select, so the text is checked against that list first (`check_intrinsics`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["NVPTX", "SIMULATED", "SPIRV", "Dialect", "check_intrinsics"]

AXES = ("x", "y", "z")


@dataclass(frozen=True, slots=True)
class Call:
    """A call that LLVM text spells: the function, the type that it gives, its fixed arguments."""

    name: str
    result: str
    arguments: str = ""
    convention: str = ""
    attributes: str = ""


@dataclass(frozen=True, slots=True)
class Dialect:
    """A row: see the head of this file.

    `thread` and `block` give the number along each axis, as an i32 or i64.  `shuffle_across` and
    `shuffle_index` are for both kinds of `Shuffle`.  The simulated device needs none of these.
    The code generator is told the extents of a block by an attribute, in which they are put for
    `{block}`, or by metadata of that name; by `alone_attribute`, that a multiprocessor has one at a
    time, which may use all registers.  `intrinsics` are the names that may be used, without
    the types at their ends, `has_wide_integers` whether there are integers of 128 bits.
    """

    name: str
    intrinsics: frozenset[str]
    convention: str = ""
    block_attribute: str = ""
    alone_attribute: str = ""
    block_metadata: str = ""
    thread: tuple[Call, ...] = ()
    block: tuple[Call, ...] = ()
    barrier: Call | None = None
    shuffle_across: Call | None = None
    shuffle_index: Call | None = None
    has_wide_integers: bool = True


_ARITHMETIC = frozenset(
    f"llvm.{name}"
    for name in (
        *("fma", "sqrt", "fabs", "floor", "ceil", "trunc", "roundeven", "copysign"),
        *("minnum", "maxnum", "smin", "smax", "umin", "umax", "fshl", "fptosi.sat", "fptoui.sat"),
    )
)


def _special_registers(name: str) -> tuple[Call, ...]:
    return tuple(Call(f"llvm.nvvm.read.ptx.sreg.{name}.{axis}", "i32") for axis in AXES)


def _numbers(name: str) -> tuple[Call, ...]:
    return tuple(Call(name, "i64", f"i32 {axis}", "spir_func") for axis in range(3))


_FULL_WARP = "i32 -1"

_PIECES = ("ca.shared.global.4", "ca.shared.global.8", "cg.shared.global.16")

NVPTX = Dialect(
    name="nvptx64",
    convention="ptx_kernel",
    block_attribute='"nvvm.maxntid"="{block}"',
    alone_attribute='"nvvm.minctasm"="1"',
    thread=_special_registers("tid"),
    block=_special_registers("ctaid"),
    barrier=Call("llvm.nvvm.barrier.cta.sync.aligned.all", "void", "i32 0"),
    shuffle_across=Call("llvm.nvvm.shfl.sync.bfly.i32", "i32", _FULL_WARP),
    shuffle_index=Call("llvm.nvvm.shfl.sync.idx.i32", "i32", _FULL_WARP),
    intrinsics=_ARITHMETIC
    | frozenset(f"llvm.nvvm.read.ptx.sreg.{n}.{axis}" for n in ("tid", "ctaid") for axis in AXES)
    | {
        "llvm.nvvm.barrier.cta.sync.aligned.all",
        "llvm.nvvm.shfl.sync.bfly",
        "llvm.nvvm.shfl.sync.idx",
        "llvm.nvvm.cp.async.commit.group",
        "llvm.nvvm.cp.async.wait.group",
        *(f"llvm.nvvm.cp.async.{piece}{fill}" for piece in _PIECES for fill in ("", ".s")),
        *(f"llvm.nvvm.ldmatrix.sync.aligned.m8n8.x4{how}.b16" for how in ("", ".trans")),
        *(f"llvm.nvvm.mma.m16n8k16.row.col{kind}" for kind in ("", ".bf16")),
        *(f"llvm.nvvm.mma.m16n8k8.row.col{kind}" for kind in ("", ".tf32")),
        "llvm.nvvm.f2tf32.rna",
    },
)

_LOCAL_AND_GLOBAL = 3
"""The memory that a barrier of OpenCL puts in order."""

SPIRV = Dialect(
    name="spirv64",
    convention="spir_kernel",
    block_metadata="!reqd_work_group_size",
    has_wide_integers=False,
    thread=_numbers("_Z12get_local_idj"),
    block=_numbers("_Z12get_group_idj"),
    barrier=Call("_Z7barrierj", "void", f"i32 {_LOCAL_AND_GLOBAL}", "spir_func", "convergent"),
    intrinsics=_ARITHMETIC,
)

SIMULATED = Dialect(
    name="gpusim",
    intrinsics=_ARITHMETIC | frozenset({"llvm.coro"}),
)

_NAME = re.compile(r"@(llvm\.[\w.]+)\(")
_TYPES = re.compile(r"(\.(v\d+)?(p\d+|[if]\d+))+$")


def check_intrinsics(text: str, dialect: Dialect) -> None:
    """Raise ValueError if LLVM text uses an intrinsic that the target is not known to select."""
    for name in sorted(set(_NAME.findall(text))):
        base = _TYPES.sub("", name)
        listed = base in dialect.intrinsics or base.rsplit(".", 1)[0] == "llvm.coro"
        if not listed or (base.startswith("llvm.coro") and "llvm.coro" not in dialect.intrinsics):
            raise ValueError(f"`{name}` is not known to work on {dialect.name}")
