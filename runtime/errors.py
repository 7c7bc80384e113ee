"""What can go wrong while a compiled program is made, called, stored or loaded.

Native code reports an error as a positive number.  Numbers below 100 come from the program itself,
those from 100 on from the wrapper of a C library (`library.py`), and those from 1000 on from the
assertions in a program.
"""

from __future__ import annotations

__all__ = [
    "LIBRARY_ERRORS",
    "PROGRAM_ERRORS",
    "ArgumentError",
    "ArtifactError",
    "CheckpointError",
    "DataError",
    "DeviceError",
    "ExecutionError",
    "LinkerNotFound",
    "TrainingError",
    "TrainingInterrupted",
    "error_message",
]


class ExecutionError(RuntimeError):
    """A compiled program stopped with an error; `code` is its number."""

    def __init__(self, code: int) -> None:
        super().__init__(error_message(code))
        self.code = code


class ArgumentError(TypeError):
    """An argument has not the type or the shape that the program was compiled for."""


class ArtifactError(OSError):
    """A native artefact could not be written or linked."""


class LinkerNotFound(ArtifactError):
    """There is neither a C compiler nor the `ziglang` package."""


class CheckpointError(ValueError):
    """A file of tensors is not what it should be, or could not be written."""


class DataError(Exception):
    """Data cannot be read or does not fit the program; the message says which array and why."""


class DeviceError(RuntimeError):
    """A device is not there, or does not do what it is asked to."""


class TrainingError(Exception):
    """The training cannot go on; the message says at which step and why."""


class TrainingInterrupted(TrainingError):
    """The user stopped the training; what was reached has been saved where a file was named."""


PROGRAM_ERRORS = {
    1: "an index is outside of the tensor that it reads",
    2: "out of memory",
    3: "a check for NaN or infinity failed",
}
"""Errors that a program's entry may return."""

LIBRARY_ERRORS = {
    100: "a required pointer is null",
    101: "a dimension is negative, zero or too large",
    102: "a buffer has not the number of elements that the dimensions call for",
    103: "the workspace is smaller than the workspace function says",
    104: "a pointer is not aligned for its element type",
    105: "the file cannot be opened or read",
    106: "the file is not a valid safetensors file",
    107: "the file lacks a tensor of the model, or has it with another type or shape",
}
"""Errors that the C functions of a library return before or after the program runs."""


def error_message(code: int) -> str:
    """The sentence for a number that native code returned."""
    message = PROGRAM_ERRORS.get(code) or LIBRARY_ERRORS.get(code)
    return message or f"the program stopped with the unknown error {code}"
