"""Control flow: loops with a number of steps, loops with a condition, branches.

Their regions are closed: a region's block has an argument for every value that it uses.  `scan`,
`while_loop` and `branch` build the ops from Python functions that may use any value in sight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

from mapsto.ir.builder import Builder
from mapsto.ir.core import Array, Block, Operation, Trait, Value
from mapsto.ir.dims import Dim, DimExpression, as_dim
from mapsto.ir.errors import MissingDerivative, TypeRuleError
from mapsto.ir.ops.shaping import static_shape
from mapsto.ir.regions import build_block, closed_over
from mapsto.ir.types import DType, TensorType, scalar

__all__ = ["Flow", "If", "Scan", "While", "branch", "scan", "while_loop"]

Derived = tuple[Sequence[Value], Sequence[Value | None]]
"""Results and their tangents."""
Run = Callable[[Block, Sequence[Array]], Sequence[Array]]
"""Evaluates a block on arguments."""

UNBOUNDED = "reverse mode goes back over the steps, whose number has to have a bound"


class Flow(Operation):
    """An op that decides which of its regions run, and how often."""

    traits = Trait.APART

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        from mapsto.ir.evaluator import evaluate_block

        return self.evaluate_with(evaluate_block, operands)

    def evaluate_with(self, run: Run, operands: Sequence[Array]) -> Sequence[Array]:
        """The results, where `run` evaluates a region's block."""
        raise NotImplementedError(f"{self.name} has no reference evaluation")

    def count(self, name: str) -> int:
        """An attribute that is a number of operands."""
        count = self.attributes[name]
        assert isinstance(count, int)
        return count

    def check_regions(self) -> None:
        """Raises TypeRuleError where there are not as many regions as have names."""
        found = len(self.regions)
        if found != len(self.region_names):
            names = " and a ".join(self.region_names)
            raise TypeRuleError(f"{self.name} has a {names}, found {found} regions")

    def check_counts(self, *names: str) -> None:
        """Raises TypeRuleError where these attributes count more operands than there are."""
        counts = [self.count(name) for name in names]
        if min(counts) < 0 or sum(counts) > len(self.operands):
            text = " and ".join(f"{n} {c}" for n, c in zip(names, counts, strict=True))
            raise TypeRuleError(f"{self.name} of {len(self.operands)} operands with {text}")

    def check_arguments(self, expected: Sequence[TensorType]) -> None:
        """Raises TypeRuleError where a region takes other arguments."""
        for name, region in zip(self.region_names, self.regions, strict=True):
            self.check_types(f"the {name} takes", region.block.arguments, expected)

    def check_types(
        self, what: str, found: Sequence[Value], expected: Sequence[TensorType]
    ) -> None:
        """Raises TypeRuleError where the values are not of these types."""
        if [value.type for value in found] != list(expected):
            given = ", ".join(str(value.type) for value in found)
            wanted = ", ".join(map(str, expected))
            raise TypeRuleError(f"{self.name}: {what} ({given}), not ({wanted})")


class Scan(Flow):
    """Repeats its body a number of times; step t reads element t of each sequence.

    Operands: constants.., carried.., sequences.. (counts in the attributes `constants` and
    `carried`).  The body, block(constants.., carried.., slices..) -> (carried.., outputs..), gives
    what the next step carries, and outputs.  Results: the carried values after the last step, and
    the outputs of all steps, stacked along a new first axis.  The number of steps is `extent`, the
    size of the first axis of sequences and stacked outputs.  With `reverse` the steps run from the
    last to the first; slices and outputs keep their positions.
    """

    name = "scan"
    attribute_types: ClassVar = {
        "constants": int,
        "carried": int,
        "extent": (int, DimExpression),
        "reverse": bool,
    }
    defaults: ClassVar = {"reverse": False}
    region_names = ("body",)

    @property
    def body(self) -> Block:
        """The block that runs at each step."""
        return self.regions[0].block

    @property
    def extent(self) -> Dim:
        """The number of steps."""
        extent = self.attributes["extent"]
        assert isinstance(extent, int | DimExpression)
        return as_dim(extent)

    @property
    def is_reverse(self) -> bool:
        """Whether the steps run from the last to the first."""
        return bool(self.attributes["reverse"])

    @property
    def constants(self) -> tuple[Value, ...]:
        """The operands that every step sees."""
        return self.operands[: self.count("constants")]

    @property
    def carried(self) -> tuple[Value, ...]:
        """The operands that the first step sees."""
        start = self.count("constants")
        return self.operands[start : start + self.count("carried")]

    @property
    def sequences(self) -> tuple[Value, ...]:
        """The operands of which each step sees an element."""
        return self.operands[self.count("constants") + self.count("carried") :]

    @property
    def finals(self) -> tuple[Value, ...]:
        """The results that are carried out of the last step."""
        return self.results[: self.count("carried")]

    @property
    def outputs(self) -> tuple[Value, ...]:
        """The results that have an element for each step."""
        return self.results[self.count("carried") :]

    def region_aliases(self, number: int) -> tuple[tuple[int, int], ...]:
        return tuple((i, len(self.constants) + i) for i in range(len(self.carried)))

    def region_constants(self, number: int) -> int:
        return 0 if self.extent in (0, 1) else len(self.constants)

    def infer(self) -> tuple[TensorType, ...]:
        self.check_regions()
        self.check_counts("constants", "carried")
        extent, carried = self.extent, self.count("carried")
        if isinstance(extent, int) and extent < 0:
            raise TypeRuleError(f"scan of {extent} steps")
        for number, sequence in enumerate(self.sequences):
            if sequence.shape[:1] != (extent,):
                raise TypeRuleError(
                    f"scan of {extent} steps over sequence {number}, {sequence.type}"
                )
        slices = [s.type.with_shape(s.shape[1:]) for s in self.sequences]
        states = [value.type for value in self.carried]
        self.check_arguments([*(value.type for value in self.constants), *states, *slices])
        returned = self.body.returned
        self.check_types("the body carries", returned[:carried], states)
        stacked = [v.type.with_shape((extent, *v.shape)) for v in returned[carried:]]
        return (*states, *stacked)

    def evaluate_with(self, run: Run, operands: Sequence[Array]) -> Sequence[Array]:
        constants, states = self.count("constants"), self.count("carried")
        (steps,) = static_shape((self.extent,))
        fixed, carried = operands[:constants], operands[constants : constants + states]
        stacked = [np.zeros(static_shape(v.shape), v.dtype.numpy) for v in self.outputs]
        for step in reversed(range(steps)) if self.is_reverse else range(steps):
            slices = [sequence[step] for sequence in operands[constants + states :]]
            results = run(self.body, (*fixed, *carried, *slices))
            carried = results[:states]
            for output, element in zip(stacked, results[states:], strict=True):
                output[step] = element
        return (*carried, *stacked)

    def pushed(self, build: Builder, tangents: Sequence[Value | None]) -> Derived:
        from mapsto.ir.scan_derivative import push_scan

        return push_scan(self, build, tangents)

    def linearized(self, build: Builder, tangents: Sequence[Value | None]) -> Derived:
        from mapsto.ir.scan_derivative import linearize_scan

        return linearize_scan(self, build, tangents)

    def pulled_back(
        self, build: Builder, cotangents: Sequence[Value | None], linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        from mapsto.ir.scan_derivative import pull_back_scan

        return pull_back_scan(self, build, cotangents, linear)


class While(Flow):
    """Repeats its body as long as its condition holds.

    Operands: constants.. (as many as the attribute `constants` says), carried...  The condition,
    block(constants.., carried..) -> bool[], is asked before each step; the body, block(constants..,
    carried..) -> carried.., gives what the next step carries.  Results: what is carried when the
    condition fails.
    """

    name = "while"
    traits = Trait.APART | Trait.FALLIBLE
    attribute_types: ClassVar = {"constants": int}
    region_names = ("condition", "body")

    @property
    def condition(self) -> Block:
        """The block that decides whether there is a next step."""
        return self.regions[0].block

    @property
    def body(self) -> Block:
        """The block that runs at each step."""
        return self.regions[1].block

    @property
    def constants(self) -> tuple[Value, ...]:
        """The operands that every step sees."""
        return self.operands[: self.count("constants")]

    @property
    def carried(self) -> tuple[Value, ...]:
        """The operands that the first step sees."""
        return self.operands[self.count("constants") :]

    def region_aliases(self, number: int) -> tuple[tuple[int, int], ...]:
        is_body = self.region_names[number] == "body"
        return tuple((i, len(self.constants) + i) for i in range(len(self.carried) * is_body))

    def region_constants(self, number: int) -> int:
        return len(self.constants)

    def infer(self) -> tuple[TensorType, ...]:
        self.check_regions()
        self.check_counts("constants")
        self.check_arguments([value.type for value in self.operands])
        carried = [value.type for value in self.carried]
        self.check_types("the condition gives", self.condition.returned, [scalar(DType.BOOL)])
        self.check_types("the body carries", self.body.returned, carried)
        return tuple(carried)

    def evaluate_with(self, run: Run, operands: Sequence[Array]) -> Sequence[Array]:
        constants = self.count("constants")
        fixed, carried = operands[:constants], operands[constants:]
        while run(self.condition, (*fixed, *carried))[0]:
            carried = tuple(run(self.body, (*fixed, *carried)))
        return carried

    def pushed(self, build: Builder, tangents: Sequence[Value | None]) -> Derived:
        from mapsto.ir.while_derivative import push_while

        return push_while(self, build, tangents)

    def linearized(self, build: Builder, tangents: Sequence[Value | None]) -> Derived:
        raise MissingDerivative(self, UNBOUNDED)


class If(Flow):
    """Runs one of two regions.

    Operands: a condition of type bool[], then arguments.  The first region, block(arguments..) ->
    results.., runs where the condition holds, else the second, of the same type.
    """

    name = "if"
    region_names = ("first branch", "second branch")

    @property
    def condition(self) -> Value:
        """What decides."""
        return self.operands[0]

    @property
    def arguments(self) -> tuple[Value, ...]:
        """What the branches see."""
        return self.operands[1:]

    @property
    def branches(self) -> tuple[Block, Block]:
        """What runs where the condition holds, and where it does not."""
        return self.regions[0].block, self.regions[1].block

    def region_aliases(self, number: int) -> tuple[tuple[int, int], ...]:
        """A result for which a branch gives an argument as it is takes the argument's place: such a
        branch has nothing to do, the other one updates it."""
        pairs: dict[int, int] = {}
        for block in self.branches:
            for result, value in enumerate(block.returned):
                is_argument = value.defining_op is None
                if is_argument and result not in pairs and value.index not in pairs.values():
                    pairs[result] = value.index
        return tuple(pairs.items())

    def infer(self) -> tuple[TensorType, ...]:
        self.check_regions()
        if not self.operands or self.operands[0].type != scalar(DType.BOOL):
            found = self.operands[0].type if self.operands else "nothing"
            raise TypeRuleError(f"if: the condition is {found}, not bool[]")
        self.check_arguments([value.type for value in self.arguments])
        first, second = self.branches
        results = [value.type for value in first.returned]
        self.check_types("the second branch gives", second.returned, results)
        return tuple(results)

    def evaluate_with(self, run: Run, operands: Sequence[Array]) -> Sequence[Array]:
        first, second = self.branches
        return run(first if operands[0] else second, operands[1:])

    def pushed(self, build: Builder, tangents: Sequence[Value | None]) -> Derived:
        from mapsto.ir.if_derivative import push_if

        return push_if(self, build, tangents)

    def linearized(self, build: Builder, tangents: Sequence[Value | None]) -> Derived:
        from mapsto.ir.if_derivative import linearize_if

        return linearize_if(self, build, tangents)

    def pulled_back(
        self, build: Builder, cotangents: Sequence[Value | None], linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        from mapsto.ir.if_derivative import pull_back_if

        return pull_back_if(self, build, cotangents, linear)


# ---- building them

Values = Sequence[Value]
StepBody = Callable[[Builder, Values, Values], tuple[Values, Values]]
"""(carried, slices) -> (carried, outputs)"""
StateBody = Callable[[Builder, Values], Values]
"""(carried) -> carried, or -> the condition alone"""
BranchBody = Callable[[Builder], Values]
"""() -> results"""


def scan(
    build: Builder,
    body: StepBody,
    carried: Values,
    sequences: Values = (),
    extent: Dim | None = None,
    reverse: bool = False,
) -> tuple[Values, Values]:
    """Emits a `scan`; gives the carried values after the last step and the stacked outputs.

    `body(build, carried, slices)` emits a step into the builder that it gets and gives (carried,
    outputs); values from outside that it uses become constants of the op.  `extent`, the number of
    steps, may be left out where there is a sequence.
    """
    size = sequences[0].shape[0] if extent is None else extent
    slices = [s.type.with_shape(s.shape[1:]) for s in sequences]

    def step(inner: Builder, arguments: Values) -> Values:
        states, outputs = body(inner, arguments[: len(carried)], arguments[len(carried) :])
        return (*states, *outputs)

    types = [*(value.type for value in carried), *slices]
    hints = [value.hint for value in (*carried, *sequences)]
    block = build_block(types, step, hints, build.location)
    constants, regions = closed_over([block])
    op = build.op(
        Scan,
        *(*constants, *carried, *sequences),
        regions=regions,
        constants=len(constants),
        carried=len(carried),
        extent=size,
        reverse=reverse,
    )
    return op.results[: len(carried)], op.results[len(carried) :]


def while_loop(
    build: Builder, condition: StateBody, body: StateBody, carried: Values
) -> tuple[Value, ...]:
    """Emits a `while`; gives what is carried when the condition fails.

    `condition(build, carried)` and `body(build, carried)` emit into the builder that they get;
    values from outside that they use become constants of the op.
    """
    types, hints = [value.type for value in carried], [value.hint for value in carried]
    blocks = [build_block(types, part, hints, build.location) for part in (condition, body)]
    constants, regions = closed_over(blocks)
    operands = (*constants, *carried)
    return build.op(While, *operands, regions=regions, constants=len(constants)).results


def branch(
    build: Builder, condition: Value, first: BranchBody, second: BranchBody
) -> tuple[Value, ...]:
    """Emits an `if`: the results of `first(build)` where the condition holds, else of `second`.

    Both emit into the builder that they get and may use any value from outside.
    """
    bodies = (_without_arguments(first), _without_arguments(second))
    blocks = [build_block([], body, location=build.location) for body in bodies]
    arguments, regions = closed_over(blocks)
    return build.op(If, condition, *arguments, regions=regions).results


def _without_arguments(body: BranchBody) -> StateBody:
    return lambda build, _: body(build)
