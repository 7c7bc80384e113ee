"""`mapsto check` and `mapsto fmt`: commands on source texts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from mapsto.dsl.diagnostics import Diagnostic, DiagnosticError
from mapsto.dsl.files import read_source
from mapsto.dsl.formatter import SyntaxErrors, format_source
from mapsto.dsl.source import Source
from mapsto.errors import MapstoError, diagnostics_text
from mapsto.ir.plugins import load_plugins
from mapsto.runtime.files import write_atomically

__all__ = ["check", "fmt", "read"]

STANDARD_INPUT = Path("-")


def check(options: argparse.Namespace) -> int:
    """Reports the mistakes of all files."""
    load_plugins(options.plugin)
    found = [_mistakes(path) for path in options.files]
    _report(diagnostic for diagnostics in found for diagnostic in diagnostics)
    errors, wrong = sum(map(len, found)), sum(map(bool, found))
    if errors:
        print(f"\n{_count(errors, 'error')} in {_count(wrong, 'file')}", file=sys.stderr)
        return 1
    print(f"no errors in {_count(len(found), 'file')}")
    return 0


def fmt(options: argparse.Namespace) -> int:
    """Lays out the files; one with syntax errors stays as it is."""
    codes = [_format(path, options.check) for path in options.files]
    return max(codes)


def read(path: Path) -> Source:
    """The text of a file, or of the standard input for `-`.  Raises DiagnosticError."""
    if path == STANDARD_INPUT:
        return read_source(Path("/dev/stdin"), "<stdin>")
    return read_source(path)


def _mistakes(path: Path) -> Sequence[Diagnostic]:
    from mapsto.dsl.checking import check as check_source

    try:
        source = read(path)
    except DiagnosticError as error:
        return [error.diagnostic]
    return check_source(source, str(path.parent))


def _format(path: Path, check_only: bool) -> int:
    try:
        source = read(path)
        text = format_source(source.text, source.name)
    except (DiagnosticError, SyntaxErrors) as error:
        single = isinstance(error, DiagnosticError)
        _report([error.diagnostic] if single else error.diagnostics)  # type: ignore[union-attr]
        return 1
    changed = text != source.text
    if check_only:
        if changed:
            print(f"{source.name} would be laid out anew")
        return int(changed)
    if path == STANDARD_INPUT:
        sys.stdout.write(text)
    elif changed:
        _replace(path, text)
    return 0


def _replace(path: Path, text: str) -> None:
    """Rewrites the file that the path leads to, with the permissions that it had."""
    target = path.resolve()
    try:
        write_atomically(target, [text.encode()], target.stat().st_mode & 0o777)
    except OSError as error:
        raise MapstoError(f"{path}: cannot be written: {error.strerror or error}") from error
    print(f"laid out {path}")


def _report(diagnostics: Iterable[Diagnostic]) -> None:
    found = list(diagnostics)
    if found:
        print(diagnostics_text(found, sys.stderr), file=sys.stderr)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
