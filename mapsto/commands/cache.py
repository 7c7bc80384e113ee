"""`mapsto cache`: what is kept on disk between runs."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from mapsto.ir.disk_cache import GRAMMAR, cache_folder, compiled, schedules

__all__ = ["cache"]


def cache(options: argparse.Namespace) -> int:
    """Prints the folder and what is in it; with --clear it is removed."""
    kept = {each.name: each for each in (GRAMMAR, compiled(), schedules())}
    usage = {n: each.clear() if options.clear else each.usage() for n, each in kept.items()}
    if options.json:
        found = {name: asdict(used) for name, used in usage.items()}
        print(json.dumps({"folder": str(cache_folder()), "cleared": options.clear, **found}))
        return 0
    print(cache_folder())
    verb = "removed " if options.clear else ""
    for name, used in usage.items():
        files = f"{used.files} file{'' if used.files == 1 else 's'}"
        print(f"{name:10} {verb}{files}, {used.bytes / 1e6:.1f} MB")
    return 0
