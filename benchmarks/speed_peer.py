"""A process of the speed table: one peer on one row.  `speed.py` starts it and talks to it.

    speed_peer.py reference ROW FOLDER [onnx]  weights, expected results and the ONNX model
    speed_peer.py PEER ROW FOLDER THREADS      answers a line of JSON for each line of JSON

It imports the peer and says which version it is.  Then it can be asked for the first call, for
timings, and for the memory that calls take at most beyond what there was after the import.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from peers import peer_class
from speed_rows import EVERY, Row

from mapsto.runtime.timing import samples_of

CHECKED_STEPS = 4
"""The losses of so many training steps are compared."""

LEAST_SAMPLES = 3


def row_of(key: str) -> Row:
    """The row of a name."""
    return next(row for row in EVERY if row.key == key)


def write_reference(row: Row, folder: Path, with_onnx: bool) -> None:
    """What all peers get, and what they have to give: by PyTorch on one thread."""
    import torch
    from models.torch_models import weights_by_path
    from peers.torch_peer import Peer, model_of, tensors

    model = model_of(row)
    weights = weights_by_path(model)
    np.savez(folder / "weights.npz", **weights)
    reference = Peer(row, weights, folder, 1)
    np.save(folder / "expected.npy", results(reference.call, row))
    if with_onnx and not row.has_labels:
        arguments = tuple(tensors(row).values())
        torch.onnx.export(model, arguments, str(folder / "model.onnx"), dynamo=True)


def results(call: Callable[[], Any], row: Row) -> Any:
    """What is compared: the losses of the first steps, or the scores."""
    if not row.training:
        return np.array(call())
    return np.array([call() for _ in range(CHECKED_STEPS)])


def own_bytes(field: str) -> int:
    """The memory of this process by VmRSS, or VmHWM, the most so far, but for pages of files: those
    of libraries, which processes share and the system takes back."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = dict(line.split(":", 1) for line in status.splitlines())
    whole, files = (int(found[name].split()[0]) for name in (field, "RssFile"))
    return (whole - files) * 1024


def serve(name: str, row: Row, folder: Path, threads: int, stream: Any) -> None:
    """Answers until the input ends."""
    with np.load(folder / "weights.npz") as file:
        weights = dict(file)
    record = peer_class(name)
    before = own_bytes("VmRSS")
    _answer(stream, {"version": record.version})
    peer = record(row, weights, folder, threads)
    answers: Mapping[str, Callable[[float], dict[str, Any]]] = {
        "first": lambda _: _first(peer, row, folder / f"{name}.npy"),
        "time": lambda s: {"samples": list(samples_of(peer.call, s, LEAST_SAMPLES))},
        "memory": lambda _: {"bytes": _memory(peer.call) - before},
        "details": lambda _: peer.details() if hasattr(peer, "details") else {},
    }
    for line in sys.stdin:
        request, seconds = json.loads(line)
        _answer(stream, answers[request](seconds))


def _first(peer: Any, row: Row, path: Path) -> dict[str, Any]:
    """The seconds of the first call; writes what is compared."""
    seconds: list[float] = []

    def call() -> Any:
        start = time.perf_counter()
        result = peer.call()
        seconds.append(time.perf_counter() - start)
        return result

    np.save(path, results(call, row))
    return {"seconds": seconds[0]}


def _memory(call: Callable[[], Any]) -> int:
    """The most memory of the process while it calls."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    for _ in range(3):
        call()
    return own_bytes("VmHWM")


def _answer(stream: Any, answer: Mapping[str, Any]) -> None:
    stream.write(json.dumps(answer) + "\n")
    stream.flush()


def main() -> None:
    """Answers on what was the standard output, which libraries now cannot write to."""
    name, key, folder, *more = sys.argv[1:]
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if name == "reference":
        write_reference(row_of(key), Path(folder), "onnx" in more)
    else:
        serve(name, row_of(key), Path(folder), int(more[0]), stream)


if __name__ == "__main__":
    main()
