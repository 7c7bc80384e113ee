"""Compares many random programs: `python tests/programs/campaign.py --count 50000 --processes 2`.

Seeds count up from --seed.  Programs that differ are written to the folder --failures, one file
each with what was found in front, and counted; the exit status tells whether there were any.  With
--resume STATE the campaign goes on where the one that wrote the file was stopped.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / folder) for folder in ("programs", "lowering", "ir")]

from agreement import Disagreement, agree  # noqa: E402
from programs import write_program  # noqa: E402

gc.set_threshold(500_000, 20, 50)
"""Programs are many small objects, few of them in cycles: to look for these less often saves a
third of the time."""
CHUNK = 20
Outcome = tuple[int, str]


@dataclass
class Tally:
    """How far a campaign is; `next` is the first seed that has not been tried."""

    next: int
    tried: int = 0
    unstable: int = 0
    failed: list[int] = field(default_factory=list)
    seconds: float = 0.0


def outcome(seed: int) -> Outcome:
    """A seed with "", "unstable" or the text of what went wrong."""
    try:
        return seed, "" if agree(write_program(seed)) else "unstable"
    except Disagreement as found:
        return seed, str(found)
    except Exception as error:
        text = f"seed {seed}: {type(error).__name__}: {error}\n\n"
        return seed, text + _text(seed)


def _text(seed: int) -> str:
    try:
        return write_program(seed).text
    except Exception as error:
        return f"the program could not be written: {error!r}"


def outcomes(first: int, count: int, processes: int) -> Iterator[Outcome]:
    """The outcomes of seeds in order."""
    seeds = range(first, first + count)
    if processes == 1:
        yield from map(outcome, seeds)
        return
    # Programs that are compiled stay in memory: processes are replaced now and then.
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, maxtasksperchild=25) as pool:
        yield from pool.imap(outcome, seeds, chunksize=CHUNK)


def run(arguments: argparse.Namespace) -> Tally:
    """The campaign from where it stands to its end."""
    state = arguments.resume
    tally = Tally(arguments.seed)
    if state is not None and state.exists():
        tally = Tally(**json.loads(state.read_text()))
    start, before = time.monotonic(), tally.seconds
    for seed, found in outcomes(tally.next, arguments.count - tally.tried, arguments.processes):
        tally.next, tally.tried = seed + 1, tally.tried + 1
        tally.seconds = before + time.monotonic() - start
        tally.unstable += found == "unstable"
        if found not in ("", "unstable"):
            _keep(tally, seed, found, arguments.failures)
        if tally.tried % CHUNK == 0 or tally.tried == arguments.count:
            _report(tally, arguments.count, state)
    return tally


def _keep(tally: Tally, seed: int, found: str, folder: Path) -> None:
    tally.failed.append(seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{seed}.txt").write_text(found)
    print(f"\n{found[:4000]}", flush=True)


def _report(tally: Tally, count: int, state: Path | None) -> None:
    rate = tally.tried / max(tally.seconds, 1e-9)
    line = f"{tally.tried} of {count}: {len(tally.failed)} differ, {tally.unstable} unstable"
    print(f"\r{line}, {rate:.1f} a second", end="", flush=True)
    if state is not None:
        partial = state.with_name(f"{state.name}.partial")
        partial.write_text(json.dumps(asdict(tally)))
        os.replace(partial, state)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--failures", type=Path, default=Path("failures"))
    parser.add_argument("--resume", type=Path, default=None)
    tally = run(parser.parse_args())
    print(f"\nfailed: {tally.failed or 'none'}")
    return bool(tally.failed)


if __name__ == "__main__":
    sys.exit(main())
