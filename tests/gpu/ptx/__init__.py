"""An interpreter of PTX that checks what a GPU does not tell.

It executes what the compiler emits for NVIDIA's GPUs on a machine without one, all threads of
some blocks at once, by NumPy.  Wrong results are found by comparison; besides, it reports
accesses out of bounds or misaligned, reads of what nothing wrote, data races in shared and
global memory, barriers that not all threads reach, and data of asynchronous copies that is used
before it has arrived.  An instruction or modifier that it does not know is an error.

    program = ptx.parse(text)
    memory = ptx.GlobalMemory()
    x = memory.allocate(np.arange(8, dtype=np.float32), "x")
    ptx.launch(ptx.prepare(program, "kernel"), (1, 1, 1), (8, 1, 1), [x, 8], memory)
    memory.read(x, np.float32, (8,))

`parser` makes records of the text (`syntax`); `decoding` makes functions of instructions, a
family in each of `arithmetic`, `bits`, `accesses`, `copies`, `warps` and `matrices`; `preparing`
does so for a kernel, `machine` runs it on the threads of `state`; `memory` and `races` check.
What is approximate on hardware (`ex2.approx`) is exact here, and what fences order between
blocks is not modelled.
"""

from ptx.errors import (
    CopyInFlight,
    DataRace,
    Divergence,
    Endless,
    Fault,
    InvalidProgram,
    Misaligned,
    OutOfBounds,
    PtxError,
    Uninitialized,
    UnknownInstruction,
)
from ptx.machine import launch
from ptx.memory import GlobalMemory
from ptx.parser import parse
from ptx.preparing import Launchable, prepare

__all__ = [
    "CopyInFlight",
    "DataRace",
    "Divergence",
    "Endless",
    "Fault",
    "GlobalMemory",
    "InvalidProgram",
    "Launchable",
    "Misaligned",
    "OutOfBounds",
    "PtxError",
    "Uninitialized",
    "UnknownInstruction",
    "launch",
    "parse",
    "prepare",
]
