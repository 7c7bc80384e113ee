"""Extensions: passes, patterns and ops of users' files and of installed packages.

A plugin is Python code; what it defines registers itself when the code runs.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from mapsto.ir.errors import PluginError

__all__ = ["ENTRY_POINT_GROUPS", "load_installed_plugins", "load_plugin", "load_plugins"]

ENTRY_POINT_GROUPS = ("mapsto.ops", "mapsto.passes", "mapsto.targets")
"""Groups of entry points by which an installed package names modules to import."""


def load_plugins(paths: Iterable[str | Path]) -> None:
    """Loads what is installed, then the files.  Raises PluginError."""
    load_installed_plugins()
    for path in paths:
        load_plugin(path)


def load_plugin(path: str | Path) -> ModuleType:
    """Runs a Python file, so that the passes, patterns and ops in it register themselves.

    Raises PluginError with file and line where the file is missing or an exception leaves it.
    """
    file = Path(path)
    if not file.is_file():
        raise PluginError(f"{file}: no such file")
    name = f"mapsto_plugin_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise PluginError(f"{file}: not a Python file (its name ends in .py)")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and type hints look their module up by its name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise PluginError(f"{_place(file, error)}: {_message(error)}") from error
    return module


def load_installed_plugins() -> list[str]:
    """Imports what installed packages offer; gives the names of the entry points.

    Raises PluginError, which names the entry point, where one cannot be imported.
    """
    loaded = []
    for group in ENTRY_POINT_GROUPS:
        for entry in importlib.metadata.entry_points(group=group):
            try:
                entry.load()
            except (Exception, SystemExit) as error:
                text = f"entry point {entry.name} ({entry.value}) of {group}"
                raise PluginError(f"{text}: {_message(error)}") from error
            loaded.append(entry.name)
    return loaded


def _message(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _place(file: Path, error: BaseException) -> str:
    """The file, with the line in it where the error came up, as far as there is one."""
    names = {str(file), str(file.absolute())}
    if isinstance(error, SyntaxError) and error.filename in names and error.lineno:
        return f"{file}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename in names]
    return f"{file}:{lines[-1]}" if lines else str(file)
