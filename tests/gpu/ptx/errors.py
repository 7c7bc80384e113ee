"""What can be wrong with a PTX program, or with what its threads do."""

from __future__ import annotations


class PtxError(Exception):
    """Any of the below."""


class InvalidProgram(PtxError):
    """The text does not parse, or uses names and types as PTX does not allow."""


class UnknownInstruction(InvalidProgram):
    """An instruction or a modifier that the interpreter has no meaning for."""


class Fault(PtxError):
    """A thread did something that PTX leaves undefined."""


class OutOfBounds(Fault):
    """An access outside of every allocation."""


class Misaligned(Fault):
    """An address that is no multiple of the size of the access."""


class Uninitialized(Fault):
    """A read of a register or of memory that nothing has written."""


class DataRace(Fault):
    """Two threads access a place, one of them writes, and no barrier lies between."""


class CopyInFlight(Fault):
    """An access to a place that an asynchronous copy still writes."""


class Divergence(Fault):
    """Threads wait for others that never come."""


class Endless(Fault):
    """The kernel executed more instructions than it was allowed to."""
