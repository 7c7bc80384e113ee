"""Passes: mappings from modules to modules.

A pass is a small frozen dataclass.  Its fields are its options, its docstring is its description
(what it does, before and after, its limits), and defining the class registers it under `name`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from mapsto.ir.core import Block, Function, Module
from mapsto.ir.regions import with_regions

__all__ = ["BlockPass", "Pass", "registered_passes"]

_REGISTRY: dict[str, type[Pass]] = {}


@dataclass(frozen=True)
class Pass:
    """Base of all passes."""

    name: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        if "name" not in cls.__dict__:
            return
        known = _REGISTRY.get(cls.name)
        if known is not None and known.__qualname__ != cls.__qualname__:
            raise ValueError(f"a pass named {cls.name!r} exists already: {known!r}")
        _REGISTRY[cls.name] = cls

    def run(self, module: Module) -> Module:
        """The module after the pass; the one given is left as it is."""
        raise NotImplementedError


class BlockPass(Pass):
    """A pass that rebuilds each block on its own: bodies of functions, and regions before the block
    that they stand in."""

    def run(self, module: Module) -> Module:
        return Module({name: self.run_on(f) for name, f in module.functions.items()})

    def run_on(self, function: Function) -> Function:
        """The function after the pass."""
        return replace(function, block=self._run_inside_out(function.block))

    def run_on_block(self, block: Block) -> Block:
        """The block after the pass; its regions have been through it."""
        raise NotImplementedError

    def _run_inside_out(self, block: Block) -> Block:
        return self.run_on_block(with_regions(block, self._run_inside_out))


def registered_passes() -> Mapping[str, type[Pass]]:
    """Every pass known to the process, by name."""
    return _REGISTRY
