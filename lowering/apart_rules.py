"""The lowering of each op that is lowered on its own."""

from __future__ import annotations

from mapsto.ir.core import Operation
from mapsto.ir.errors import MissingLowering
from mapsto.ir.ops.effects import Assert, Print
from mapsto.ir.ops.flow import If, Scan, While
from mapsto.ir.ops.partition import Partition
from mapsto.lowering.apart import ApartLowering
from mapsto.lowering.control_flow import IfLowering, ScanLowering, WhileLowering
from mapsto.lowering.effects import AssertLowering, PrintLowering
from mapsto.lowering.extended import EXTENDED
from mapsto.lowering.partition import PartitionLowering

__all__ = ["APART_RULES", "apart_rule", "register_apart_rule"]

APART_RULES: dict[type[Operation], ApartLowering] = {
    Assert: AssertLowering(),
    If: IfLowering(),
    Partition: PartitionLowering(),
    Print: PrintLowering(),
    Scan: ScanLowering(),
    While: WhileLowering(),
}


def register_apart_rule(record: type[Operation], lowering: ApartLowering) -> None:
    """Adds a row to the table: how an op of an extension is lowered that has `Trait.APART`."""
    APART_RULES[record] = lowering
    EXTENDED.add(record)


def apart_rule(op: Operation) -> ApartLowering:
    """The lowering of an op.  Raises MissingLowering where it has none."""
    rule = APART_RULES.get(type(op))
    if rule is None:
        raise MissingLowering(op, "native code")
    return rule
