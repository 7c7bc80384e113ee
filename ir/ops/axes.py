"""What ops that work along one axis have in common."""

from __future__ import annotations

from typing import ClassVar

from mapsto.ir.core import Operation
from mapsto.ir.errors import TypeRuleError
from mapsto.ir.types import TensorType

__all__ = ["AlongAxis"]


class AlongAxis(Operation):
    """Works along `axis`, for each place along the others on its own."""

    attribute_types: ClassVar = {"axis": int}

    @property
    def axis(self) -> int:
        """The axis along which the op works."""
        axis = self.attributes["axis"]
        assert isinstance(axis, int)
        return axis

    def check_axis(self, type_: TensorType) -> None:
        """Raises TypeRuleError where the tensor has no such axis."""
        if not 0 <= self.axis < type_.rank:
            raise TypeRuleError(f"{self.name} along axis {self.axis} of {type_}")
