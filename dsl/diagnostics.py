"""Diagnostics as data: what is wrong, where, and the facts that a message needs.

Nothing here is a sentence.  `mapsto.dsl.wording` turns a kind and its facts into words and
`mapsto.dsl.render` draws them under the source line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from mapsto.dsl.source import Span

__all__ = [
    "MAXIMUM_ERRORS",
    "Collector",
    "Diagnostic",
    "DiagnosticError",
    "Fact",
    "Help",
    "Kind",
    "Note",
    "NoteKind",
    "nearest",
    "report",
]

MAXIMUM_ERRORS = 20
"""After so many errors in a file the rest is not looked at."""

_LONGEST_MISSPELLING = 40

Fact = object
"""A fact of a message: shown by `str`, or as a list of alternatives if it is a tuple."""


class Kind(Enum):
    """What is wrong.  `mapsto.dsl.wording.MESSAGES` has one sentence for each."""

    # The text
    SOURCE_TOO_LONG = auto()
    UNREADABLE_FILE = auto()
    UNEXPECTED_CHARACTER = auto()
    UNTERMINATED_STRING = auto()
    BAD_ESCAPE = auto()
    BAD_NUMBER = auto()
    NUMBER_TOO_LARGE = auto()
    TAB_INDENTATION = auto()
    UNEXPECTED_INDENT = auto()
    INCONSISTENT_DEDENT = auto()
    MISSING_BLOCK = auto()
    UNCLOSED_BRACKET = auto()
    UNMATCHED_BRACKET = auto()
    MISMATCHED_BRACKET = auto()
    NESTED_TOO_DEEPLY = auto()
    TOO_MANY_ERRORS = auto()

    # The grammar
    UNEXPECTED_TOKEN = auto()
    UNKNOWN_STATEMENT = auto()
    MISPLACED_STATEMENT = auto()
    MISSING_COLON = auto()
    KEYWORD_AS_NAME = auto()
    CHAINED_COMPARISON = auto()
    ASSIGNMENT_WITHOUT_LET = auto()
    ASSIGNMENT_TO_PART = auto()
    FOREIGN_SPELLING = auto()
    BAD_BINDER = auto()
    MISPLACED_SPREAD = auto()
    BAD_UPDATE_TARGET = auto()
    POSITIONAL_AFTER_NAMED = auto()
    UNTYPED_PARAMETER = auto()
    MISPLACED_DOCSTRING = auto()
    UNNAMED_IMPORT = auto()
    TWO_FIRST_VALUES = auto()

    # Names and arguments
    UNKNOWN_NAME = auto()
    REPEATED_NAME = auto()
    NO_MEMBER = auto()
    NOT_CALLABLE = auto()
    MISSING_ARGUMENT = auto()
    TOO_MANY_ARGUMENTS = auto()
    UNKNOWN_ARGUMENT = auto()
    REPEATED_ARGUMENT = auto()
    WRONG_KIND = auto()
    WRONG_VALUE = auto()
    RECURSION = auto()
    CYCLIC_DEFINITION = auto()
    PROGRAM_TOO_LARGE = auto()
    UNKNOWN_MODULE = auto()

    # Types and shapes
    UNKNOWN_TYPE = auto()
    NOT_A_TENSOR_TYPE = auto()
    UNKNOWN_DIMENSION = auto()
    CANNOT_INFER = auto()
    NOT_A_GROUP = auto()
    AMBIGUOUS_SPREAD = auto()
    NOT_A_SIZE = auto()
    NEGATIVE_DIMENSION = auto()
    DIMENSION_TOO_LARGE = auto()
    WRONG_SHAPE = auto()
    WRONG_DTYPE = auto()
    SHAPES_DIFFER = auto()
    PRODUCT_SHAPES_DIFFER = auto()
    DTYPES_DIFFER = auto()
    DTYPE_NOT_ACCEPTED = auto()
    BAD_OPERAND = auto()
    NOT_A_TRUTH_VALUE = auto()
    NOT_A_TENSOR = auto()
    NUMBER_OF_DTYPE = auto()
    CANNOT_SELECT = auto()
    CONDITION_NOT_SCALAR = auto()
    CONDITION_UNKNOWN = auto()
    ILL_TYPED_OPERATION = auto()

    # Numbers
    NOT_A_WHOLE_NUMBER = auto()
    SYMBOLIC_NUMBER = auto()
    DIVISION_BY_ZERO = auto()
    DIVISION_VANISHES = auto()
    BAD_EXPONENT = auto()
    NUMBER_OVERFLOWS = auto()

    # Index notation
    UNBOUND_EXTENT = auto()
    EXTENTS_DIFFER = auto()
    WRONG_INDEX_COUNT = auto()
    INDEX_OUT_OF_RANGE = auto()
    BAD_INDEX = auto()
    NOT_INDEXABLE = auto()
    BAD_SLICE = auto()
    REPEATED_INDEX = auto()
    UNNAMED_GROUP = auto()
    NOT_AN_INDEX_NAME = auto()
    BAD_REDUCTION = auto()
    ONE_INDEX = auto()
    INDEX_OF_DTYPE = auto()
    STATE_IN_INDEX = auto()

    # Functions
    AXIS_OUT_OF_RANGE = auto()
    REPEATED_AXIS = auto()
    CANNOT_RESHAPE = auto()
    CANNOT_BROADCAST = auto()
    CANNOT_CONCAT = auto()
    CANNOT_SPLIT = auto()
    CANNOT_PAD = auto()
    TOO_MANY_ELEMENTS = auto()
    BAD_PERMUTATION = auto()
    UNKNOWN_RESULT_SHAPE = auto()
    NOT_DIFFERENTIABLE = auto()
    LOSS_NOT_SCALAR = auto()
    NO_SUCH_ARGUMENT = auto()
    NO_DIRECTION = auto()
    NO_NAMED_ARGUMENT = auto()
    GRADIENT_IN_INDEX = auto()
    NOTHING_TO_MAP = auto()
    AXES_COUNT = auto()
    RESULT_IS_MAPPED = auto()
    TREES_DIFFER = auto()

    # Gradients written by hand
    GRADIENT_COUNT = auto()
    GRADIENT_DIFFERS = auto()
    GRADIENT_NOT_COMPARED = auto()
    STATE_IN_GRADIENT = auto()

    # Loops that run
    CARRY_CHANGES = auto()
    STEP_WITHOUT_PAIR = auto()
    NOT_A_SEQUENCE = auto()
    LENGTHS_DIFFER = auto()
    LENGTH_UNKNOWN = auto()
    STATE_IN_CONDITION = auto()

    # Statements and members
    NO_VALUE = auto()
    UNUSED_VALUE = auto()
    NO_VALUE_OF_STATEMENT = auto()
    PLACEHOLDERS = auto()
    ASSERTION_FALSE = auto()
    NOT_ONE_TRUTH = auto()
    CANNOT_UNPACK = auto()
    TOO_SMALL = auto()
    NOT_ITERABLE = auto()
    TOO_MANY_ITERATIONS = auto()
    NOT_A_STATE = auto()
    PARAMETER_SIZE_UNKNOWN = auto()
    MISSING_INITIALIZER = auto()
    MISSING_VALUE = auto()
    MISSING_LOSS = auto()
    MISSING_NET = auto()
    MODULE_BY_MODE = auto()
    NOT_AN_OPTIMIZER = auto()
    NO_OPTIMIZER_FOR = auto()
    UNUSED_PATTERN = auto()
    NOT_TRAINABLE = auto()
    NOTHING_TRAINED = auto()
    SYMBOLIC_PARAMETER = auto()


class NoteKind(Enum):
    """A second place that explains a diagnostic; `wording.NOTES` has the words."""

    OPENED_HERE = auto()
    DIMENSION_FROM = auto()
    VALUE_HAS_TYPE = auto()
    DEFINED_HERE = auto()
    CALLED_HERE = auto()
    INDEX_RUNS = auto()
    DIMENSION_ANY = auto()
    DECLARED_HERE = auto()
    CARRY_STARTS = auto()


class Help(Enum):
    """A way to repair a mistake; `wording.HELPS` has the words."""

    DID_YOU_MEAN = auto()
    USE_SPACES = auto()
    CLOSE_STRING = auto()
    DOUBLE_QUOTES = auto()
    DOUBLE_BACKSLASH = auto()
    ADD_ALIAS = auto()
    ALIGN = auto()
    ADD_BLOCK = auto()
    ADD_COLON = auto()
    OTHER_NAME = auto()
    SPLIT_EXPRESSION = auto()
    SPLIT_COMPARISON = auto()
    WRITE_LET = auto()
    NEW_VALUE = auto()
    DROP_RETURN = auto()
    ONE_STATEMENT_A_LINE = auto()
    BELONGS = auto()
    WRITE_INSTEAD = auto()
    WRITE_BINDERS = auto()
    NAME_GROUP = auto()
    UPDATE_STATE = auto()
    POSITIONAL_FIRST = auto()
    CAST = auto()
    DECLARE_STATE = auto()
    INSTANTIATE = auto()
    STATE_EXTENT = auto()
    WRITE_FLOAT = auto()
    WRITE_ALL = auto()
    ADD_INITIALIZER = auto()
    ADD_VALUE = auto()
    ADD_LOSS = auto()
    ADD_PATTERN = auto()
    OPTIMIZER_PAIR = auto()
    ADD_TYPE = auto()
    MASKS = auto()
    GREATER_OF_TWO = auto()
    COMPUTED_START = auto()
    GIVE_LENGTH = auto()
    LEAVE_UNCHECKED = auto()
    DECIDE_IN_MAP = auto()
    GIVE_SHAPE = auto()
    NAME_HERE = auto()
    NO_PREFIX = auto()
    NO_METHODS = auto()
    TAKE_APART = auto()
    NEW_AXIS = auto()
    STACK = auto()


@dataclass(frozen=True, slots=True)
class Note:
    """A place that explains a diagnostic, such as where a dimension got its value."""

    kind: NoteKind
    span: Span | None
    facts: Mapping[str, Fact] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """A mistake in a program: its kind, the smallest span that has it, and the facts about it."""

    kind: Kind
    span: Span
    facts: Mapping[str, Fact] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    help: Help | None = None


class DiagnosticError(Exception):
    """Carries a diagnostic to whoever collects them."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.kind.name)
        self.diagnostic = diagnostic


class Collector:
    """Gathers diagnostics, up to a number that a reader can use."""

    def __init__(self, limit: int = MAXIMUM_ERRORS) -> None:
        self.diagnostics: list[Diagnostic] = []
        self._limit = limit

    def add(self, diagnostic: Diagnostic) -> None:
        """Take a diagnostic.

        Raises:
            DiagnosticError: there are too many; the last one says so.
        """
        self.diagnostics.append(diagnostic)
        if len(self.diagnostics) == self._limit:
            last = report(Kind.TOO_MANY_ERRORS, diagnostic.span, limit=self._limit)
            self.diagnostics.append(last)
            raise DiagnosticError(last)


def report(
    kind: Kind,
    span: Span,
    *,
    notes: Iterable[Note] = (),
    help: Help | None = None,
    **facts: Fact,
) -> Diagnostic:
    """A diagnostic with its facts given by name: `report(Kind.BAD_NUMBER, span, text="1x")`."""
    return Diagnostic(kind, span, facts, tuple(notes), help)


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `name` is most likely a misspelling of, or None if none is close.

    Close is at most a third of the letters inserted, deleted, replaced or swapped with their
    neighbour; of very short names only the case may differ.
    """
    if len(name) > _LONGEST_MISSPELLING:
        return None
    limit = len(name) // 3
    near = [other for other in candidates if other != name and abs(len(other) - len(name)) <= limit]
    ranked = sorted((_distance(name.casefold(), other.casefold()), other) for other in near)
    return ranked[0][1] if ranked and ranked[0][0] <= limit else None


def _distance(first: str, second: str) -> int:
    """Optimal string alignment distance (Damerau 1964, restricted edits)."""
    rows = [list(range(len(second) + 1))]
    for i, letter in enumerate(first, 1):
        row = [i]
        for j, other in enumerate(second, 1):
            cost = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == second[j - 2] and other == first[i - 2]:
                cost = min(cost, rows[-2][j - 2] + 1)
            row.append(cost)
        rows.append(row)
    return rows[-1][-1]
