"""Schedules of contractions that were measured on a machine, kept on disk for all programs."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import cached_property

from mapsto.ir.disk_cache import key_of, schedules
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.cpu.schedule_choice import Choice, Choose, measured

__all__ = ["KeptSchedules"]

_FORMAT = "schedule 1"


class KeptSchedules:
    """What was measured on one machine, with any number of cores."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._cache = schedules()
        self._new: dict[str, Choice] = {}

    def choose(self) -> Choose | None:
        """What was measured decides, else the cost model; None where nothing was measured."""
        is_any = self._new or self._cache.keys()
        return measured(self.find, self.machine) if is_any else None

    def find(self, key: str) -> Choice | None:
        """The quickest schedule of the contractions of a key, if it is known."""
        if key in self._new:
            return self._new[key]
        data = self._cache.load(self._name(key))
        try:
            return None if data is None else Choice(**json.loads(data))
        except TypeError:  # Another version of the compiler kept other choices.
            return None

    def keep(self, key: str, choice: Choice) -> None:
        """Keeps the quickest schedule of the contractions of a key: here at least, where nothing
        can be written."""
        self._new[key] = choice
        self._cache.save(self._name(key), json.dumps(asdict(choice)).encode())

    @property
    def fingerprint(self) -> str:
        """Another text whenever there is another schedule for any machine."""
        return key_of(*self._cache.keys())

    def _name(self, key: str) -> str:
        return key_of(_FORMAT, self._machine_text, key)

    @cached_property
    def _machine_text(self) -> str:
        return repr(replace(self.machine, cores=0))
