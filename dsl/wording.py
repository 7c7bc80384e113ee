"""The sentences of diagnostics: the one place that turns kinds and facts into words.

A sentence is a template; `{name}` stands for a fact.  `{names:or}` lists the items of a tuple as
alternatives, `{names:and}` as a sequence; `{count:things}` is a number of things.  A sentence is
lower case and has no final period.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

from mapsto.dsl.diagnostics import Diagnostic, Fact, Help, Kind, Note, NoteKind

__all__ = ["HELPS", "LABELS", "MESSAGES", "NOTES", "describe", "help_text", "label", "note_text"]

MESSAGES: dict[Kind, str] = {
    Kind.SOURCE_TOO_LONG: "the file has more than {limit} characters",
    Kind.UNREADABLE_FILE: "cannot read `{path}`: {reason}",
    Kind.UNEXPECTED_CHARACTER: "unexpected character {character}",
    Kind.UNTERMINATED_STRING: "the string is not closed",
    Kind.BAD_ESCAPE: "unknown escape `{text}` in a string",
    Kind.BAD_NUMBER: "`{text}` is not a number",
    Kind.NUMBER_TOO_LARGE: "the number is too large for {type}",
    Kind.TAB_INDENTATION: "tab in the indentation",
    Kind.UNEXPECTED_INDENT: "unexpected indentation",
    Kind.INCONSISTENT_DEDENT: "the indentation matches no line above",
    Kind.MISSING_BLOCK: "expected an indented block after `:`",
    Kind.UNCLOSED_BRACKET: "`{bracket}` is never closed",
    Kind.UNMATCHED_BRACKET: "`{bracket}` closes nothing",
    Kind.MISMATCHED_BRACKET: "expected `{closing}`, found `{bracket}`",
    Kind.NESTED_TOO_DEEPLY: "too deeply nested",
    Kind.TOO_MANY_ERRORS: "{limit} errors; the rest of the file was not checked",
    Kind.UNEXPECTED_TOKEN: "unexpected {found}",
    Kind.UNKNOWN_STATEMENT: "unknown statement `{word}`",
    Kind.MISPLACED_STATEMENT: "`{word}` cannot stand here",
    Kind.MISSING_COLON: "expected `:` before the indented block",
    Kind.KEYWORD_AS_NAME: "`{word}` is a keyword and cannot be a name",
    Kind.CHAINED_COMPARISON: "comparisons cannot be chained",
    Kind.ASSIGNMENT_WITHOUT_LET: "`{name}` is assigned without `let`",
    Kind.ASSIGNMENT_TO_PART: "`{text}` cannot be assigned: values do not change",
    Kind.FOREIGN_SPELLING: "the language has no `{text}`",
    Kind.BAD_BINDER: "expected the name of an index before `|->`",
    Kind.MISPLACED_SPREAD: "`...` in a list does not say what of",
    Kind.BAD_UPDATE_TARGET: "only a state can be updated with `<-`",
    Kind.POSITIONAL_AFTER_NAMED: "positional argument after a named one",
    Kind.UNTYPED_PARAMETER: "parameter `{name}` has no type",
    Kind.MISPLACED_DOCSTRING: "a string here has no effect",
    Kind.UNNAMED_IMPORT: "the imported file `{path}` gets no name",
    Kind.TWO_FIRST_VALUES: "state `{name}` has a first value and an initializer",
    Kind.UNKNOWN_NAME: "unknown name `{name}`",
    Kind.REPEATED_NAME: "`{name}` is defined twice",
    Kind.NO_MEMBER: "{found} has no member `{name}`",
    Kind.NOT_CALLABLE: "{found} cannot be called",
    Kind.MISSING_ARGUMENT: "missing argument `{name}` of `{owner}`",
    Kind.TOO_MANY_ARGUMENTS: "`{owner}` takes {expected:positional arguments}, found {found}",
    Kind.UNKNOWN_ARGUMENT: "`{owner}` has no argument `{name}`",
    Kind.REPEATED_ARGUMENT: "argument `{name}` of `{owner}` is given twice",
    Kind.WRONG_KIND: "`{name}` takes {expected}, found {found}",
    Kind.WRONG_VALUE: "wrong value of {what}: expected {expected}, found {found}",
    Kind.RECURSION: "`{name}` is used inside itself: more than {limit} calls deep",
    Kind.CYCLIC_DEFINITION: "the value of `{name}` depends on itself",
    Kind.PROGRAM_TOO_LARGE: "the program is too large: more than {limit} steps to elaborate",
    Kind.UNKNOWN_MODULE: "there is no file or package `{path}` to import",
    Kind.UNKNOWN_TYPE: "unknown type `{name}`",
    Kind.NOT_A_TENSOR_TYPE: "expected the type of a tensor, found `{name}`",
    Kind.UNKNOWN_DIMENSION: "the size of `{name}` is not known here",
    Kind.CANNOT_INFER: "the size of `{name}` does not follow from the arguments",
    Kind.NOT_A_GROUP: "`...{name}` needs dimensions, indices or a list, found {found}",
    Kind.AMBIGUOUS_SPREAD: "a second `...` of unknown length",
    Kind.NOT_A_SIZE: "the dimension `{name}` is no size: it is {found}",
    Kind.NEGATIVE_DIMENSION: "the dimension is {value}, which is negative",
    Kind.DIMENSION_TOO_LARGE: "the dimension {value} is larger than {limit}",
    Kind.WRONG_SHAPE: "wrong shape of {what}: expected {expected}, found {found}",
    Kind.WRONG_DTYPE: "wrong dtype of {what}: expected {expected}, found {found}",
    Kind.SHAPES_DIFFER: "shapes do not fit together: {left} and {right}",
    Kind.PRODUCT_SHAPES_DIFFER: "the inner dimensions of the product differ: {left} and {right}",
    Kind.DTYPES_DIFFER: "the operands have different dtypes: {left} and {right}",
    Kind.DTYPE_NOT_ACCEPTED: "`{operation}` is not defined on {dtype}",
    Kind.BAD_OPERAND: "`{operator}` cannot be applied to {found}",
    Kind.NOT_A_TRUTH_VALUE: "`{operator}` takes truth values, found {found}",
    Kind.NOT_A_TENSOR: "expected a tensor, found {found}",
    Kind.NUMBER_OF_DTYPE: "{value} is not a number of type {dtype}",
    Kind.CANNOT_SELECT: "a condition on a tensor cannot choose {found}",
    Kind.CONDITION_NOT_SCALAR: ("the condition of {construct} is one truth value, found {found}"),
    Kind.CARRY_CHANGES: "the step carries {found} on where it got {expected}",
    Kind.STEP_WITHOUT_PAIR: (
        "a step gives a pair of what it carries on and an output, found {found}"
    ),
    Kind.CONDITION_UNKNOWN: "the condition of a list has to be known before it runs, found {found}",
    Kind.NOT_A_SEQUENCE: "`scan` runs along the first axis of a tensor, found {found}",
    Kind.LENGTHS_DIFFER: "{type} has {found} elements where {other} has {expected}",
    Kind.LENGTH_UNKNOWN: "nothing says how many steps `scan` makes",
    Kind.STATE_IN_CONDITION: "the condition of `while` cannot update `{name}`",
    Kind.ILL_TYPED_OPERATION: "ill-typed operation: {reason}",
    Kind.NOT_A_WHOLE_NUMBER: "expected a whole number known before it runs, found {found}",
    Kind.SYMBOLIC_NUMBER: "the value of `{value}` is not known before it runs",
    Kind.DIVISION_BY_ZERO: "division by zero",
    Kind.DIVISION_VANISHES: "`{text}` is 0: whole numbers divide to a whole number",
    Kind.BAD_EXPONENT: "a whole number to the power {value}",
    Kind.NUMBER_OVERFLOWS: "the number does not fit into 64 bits",
    Kind.UNBOUND_EXTENT: "nothing says how far the index `{name}` runs",
    Kind.EXTENTS_DIFFER: (
        "index `{name}` runs over {extent}, but axis {axis} of {type} has size {size}"
    ),
    Kind.WRONG_INDEX_COUNT: "{type} takes {expected:index|indices}, found {found}",
    Kind.INDEX_OUT_OF_RANGE: "index {index} is outside an axis of size {size}",
    Kind.BAD_INDEX: "an index is a whole number or an integer tensor, found {found}",
    Kind.NOT_INDEXABLE: "{found} cannot be indexed",
    Kind.BAD_SLICE: "`{text}` is not a slice",
    Kind.REPEATED_INDEX: "index `{name}` is bound twice",
    Kind.UNNAMED_GROUP: "a group of indices needs a name: `...s`",
    Kind.NOT_AN_INDEX_NAME: "expected the name of an index, found `{text}`",
    Kind.BAD_REDUCTION: "a reduction over indices is written `{name}[k](e)`",
    Kind.ONE_INDEX: "`{name}` searches along one index",
    Kind.INDEX_OF_DTYPE: "an index is not a value of type {dtype}",
    Kind.STATE_IN_INDEX: "`{name}` cannot get a value that depends on an index",
    Kind.AXIS_OUT_OF_RANGE: "there is no axis {axis} in a tensor of rank {rank}",
    Kind.REPEATED_AXIS: "an axis is given twice",
    Kind.CANNOT_RESHAPE: "{found} cannot be reshaped to {shape}",
    Kind.CANNOT_BROADCAST: "{found} cannot be broadcast to {shape}",
    Kind.CANNOT_CONCAT: "cannot concatenate {left} and {right} along axis {axis}",
    Kind.CANNOT_SPLIT: "{found} cannot be split along axis {axis} into {parts}",
    Kind.CANNOT_PAD: "{found} cannot be padded by {text}",
    Kind.TOO_MANY_ELEMENTS: "{count} elements of an axis of size {size}",
    Kind.BAD_PERMUTATION: "this is no order of the axes of {found}",
    Kind.UNKNOWN_RESULT_SHAPE: "the context does not say which shape `{name}` gives",
    Kind.NOT_DIFFERENTIABLE: "cannot differentiate by {found}",
    Kind.LOSS_NOT_SCALAR: "only a map to one floating-point number has a gradient, found {found}",
    Kind.NO_SUCH_ARGUMENT: "`{name}` by argument {number} of a call with {count}",
    Kind.NO_NAMED_ARGUMENT: "`{owner}` by an argument `{name}` of a call that has none",
    Kind.NO_DIRECTION: (
        "`jvp(f)` takes the arguments of f, then {count:directions}, found {found} in all"
    ),
    Kind.AXES_COUNT: "`in_axes` is for {found} arguments where the call has {expected}",
    Kind.RESULT_IS_MAPPED: "`out_axes` is `none` for {found}, which differs between elements",
    Kind.GRADIENT_COUNT: (
        "the gradient of `{name}` is a tuple of {count} cotangents, by {names}, found {found}"
    ),
    Kind.GRADIENT_DIFFERS: (
        "the gradient of `{name}` by `{argument}` is {found} where the derivative is {expected}"
    ),
    Kind.GRADIENT_NOT_COMPARED: "the gradient of `{name}` cannot be compared: {reason}",
    Kind.STATE_IN_GRADIENT: "a gradient cannot update `{name}`",
    Kind.GRADIENT_IN_INDEX: "a module's gradient cannot be taken inside index notation or `vmap`",
    Kind.NOTHING_TO_MAP: "`vmap` needs an argument with a first axis",
    Kind.TREES_DIFFER: "the trees have different parameters",
    Kind.NO_VALUE: "the body of `{owner}` ends without a value",
    Kind.UNUSED_VALUE: "this value is not used",
    Kind.NO_VALUE_OF_STATEMENT: "`{name}` gives no value: it stands on a line of its own",
    Kind.PLACEHOLDERS: "the text has {places} places `{{}}`, but the number of values is {found}",
    Kind.ASSERTION_FALSE: "this never holds: {message}",
    Kind.NOT_ONE_TRUTH: "an assertion is about one truth value, found {found}",
    Kind.TOO_SMALL: "{what} is {found}, expected at least {least}",
    Kind.CANNOT_UNPACK: "expected {expected} values, found {count} in {found}",
    Kind.NOT_ITERABLE: "expected a list, found {found}",
    Kind.TOO_MANY_ITERATIONS: "more than {limit} rounds",
    Kind.NOT_A_STATE: "`{name}` is not a state",
    Kind.PARAMETER_SIZE_UNKNOWN: "`{name}` is used before the size of `{dimension}` is known",
    Kind.MISSING_INITIALIZER: "parameter `{name}` has no initializer",
    Kind.MISSING_VALUE: "state `{name}` has no first value",
    Kind.MISSING_LOSS: "the `train` block `{name}` has no loss",
    Kind.MISSING_NET: "the `train` block `{name}` has no parameter `{parameter}`",
    Kind.MODULE_BY_MODE: "the modules in `{name}` cannot depend on `training`",
    Kind.NOT_AN_OPTIMIZER: "{name} cannot optimize: {reason}",
    Kind.NO_OPTIMIZER_FOR: "no optimizer of the list is for the parameter `{name}`",
    Kind.UNUSED_PATTERN: "`{pattern}` is the name of no parameter",
    Kind.NOT_TRAINABLE: "a loss trains modules of its `train` block, found {found}",
    Kind.NOTHING_TRAINED: "the loss `{name}` depends on no parameter that it could train",
    Kind.SYMBOLIC_PARAMETER: "parameter `{name}` has type {type}, but its size has to be a number",
}

LABELS: dict[Kind, str] = {
    Kind.UNEXPECTED_TOKEN: "expected {expected:or}",
    Kind.NESTED_TOO_DEEPLY: "more than {limit} levels",
}
"""What stands beside the underline; nothing if a fact is missing or an empty tuple."""

NOTES: dict[NoteKind, str] = {
    NoteKind.OPENED_HERE: "`{bracket}` was opened here",
    NoteKind.DIMENSION_FROM: "`{name}` is {value} here",
    NoteKind.VALUE_HAS_TYPE: "this has type `{type}`",
    NoteKind.DEFINED_HERE: "`{name}` is defined here",
    NoteKind.CALLED_HERE: "in this call of `{name}`",
    NoteKind.DIMENSION_ANY: "`{name}` stands for any size here",
    NoteKind.CARRY_STARTS: "before the first step it is {type}",
    NoteKind.DECLARED_HERE: "the type is declared here",
    NoteKind.INDEX_RUNS: "index `{name}` runs over {value} because of this",
}

HELPS: dict[Help, str] = {
    Help.DID_YOU_MEAN: "did you mean `{suggestion}`?",
    Help.USE_SPACES: "indent with four spaces",
    Help.CLOSE_STRING: "end it with `{quotes}`",
    Help.DOUBLE_QUOTES: 'write strings with double quotes: "text"',
    Help.DOUBLE_BACKSLASH: "for a backslash write `\\\\`",
    Help.ALIGN: "give it the indentation of the statement that it follows",
    Help.ADD_BLOCK: "indent the lines that belong to it, or write one expression after the `:`",
    Help.ADD_COLON: "end the header with `:`",
    Help.ADD_ALIAS: 'write `import "{path}" as name`, or `from "{path}" import name`',
    Help.OTHER_NAME: "choose another name, such as `{word}_`",
    Help.SPLIT_EXPRESSION: "name parts of it with `let`",
    Help.SPLIT_COMPARISON: "write `a < b and b < c`",
    Help.WRITE_LET: "write `let {name} = ...` for a new value, `{name} <- ...` to update a state",
    Help.NEW_VALUE: (
        "make a new one: a tensor with `where`, `scatter` or `[i] |-> ...`, a record with all its "
        "fields"
    ),
    Help.DROP_RETURN: "the last expression of a body is its value",
    Help.ONE_STATEMENT_A_LINE: "write each statement on a line of its own",
    Help.BELONGS: "`{word}` belongs {place}",
    Help.WRITE_INSTEAD: "write `{replacement}`",
    Help.WRITE_BINDERS: "an index lambda is written `[...s, i] |-> x[...s, i]`",
    Help.NAME_GROUP: "name dimensions or a list, `[...s, n]`",
    Help.UPDATE_STATE: "write the name of a state before `<-`, for a comparison `a < -b`",
    Help.POSITIONAL_FIRST: "write positional arguments first",
    Help.LEAVE_UNCHECKED: "where it should differ write `gradient unchecked ({names}):`",
    Help.GIVE_LENGTH: "give it sequences, or their length: `length=n`",
    Help.ADD_TYPE: "write `{name}: f32[n]`, or a kind such as `int` or `map`",
    Help.MASKS: (
        "how many are true is known only when it runs: choose with `where(mask, x, 0)`, or reduce "
        "with a condition inside"
    ),
    Help.GREATER_OF_TWO: "for two tensors, element by element, write `{name}imum(x, y)`",
    Help.COMPUTED_START: (
        "the size of a part has to be known; for a computed start write "
        "`dynamic_slice(x, [start], [size])`"
    ),
    Help.CAST: "convert with the name of a dtype, such as `f32(x)`",
    Help.DECLARE_STATE: "declare it in a module: `state {name}: f32[...s] = 0`",
    Help.INSTANTIATE: "make an instance: `{module}()`",
    Help.STATE_EXTENT: (
        "say it in the brackets, such as `{name} < n`, use it alone in an access, such as "
        "`x[{name}]`, or declare the type of the result"
    ),
    Help.WRITE_ALL: "write `all(...)` around it",
    Help.WRITE_FLOAT: "write one of them as a float, such as `1.0`",
    Help.ADD_INITIALIZER: "write `~ zeros` or another initializer after its type",
    Help.ADD_VALUE: "write `= 0` or another value after its type, or an initializer after `~`",
    Help.GIVE_SHAPE: "declare the type of the value, or give `shape=[...]`",
    Help.DECIDE_IN_MAP: "look at `training` in a map, where the module is used",
    Help.ADD_PATTERN: 'end the list with `("*", Frozen())`, or another optimizer',
    Help.NAME_HERE: "here it is `{suggestion}`",
    Help.NO_PREFIX: "write names of the library, and of a module in it, without `{name}.`",
    Help.NO_METHODS: "write `{suggestion}`",
    Help.NEW_AXIS: "for a new axis of size 1 write `expand_dims(x, axis)`",
    Help.STACK: "make a tensor of it: `stack([1.0, 2.0])`",
    Help.TAKE_APART: "take it apart with `let ({names}) = ...`",
    Help.OPTIMIZER_PAIR: 'write pairs such as `("*.bias", SGD())` or `(net.head, SGD())`',
    Help.ADD_LOSS: "write `loss(x: f32[n, d], y: i32[n]) = ...`",
}


def describe(diagnostic: Diagnostic) -> str:
    """The sentence that says what is wrong."""
    return _fill(MESSAGES[diagnostic.kind], diagnostic.facts)


def label(diagnostic: Diagnostic) -> str:
    """The words beside the underlined span; empty if the message says it all."""
    return _fill_if_known(LABELS.get(diagnostic.kind, ""), diagnostic.facts)


def note_text(note: Note) -> str:
    """The words beside a note's span."""
    return _fill(NOTES[note.kind], note.facts)


def help_text(diagnostic: Diagnostic) -> str:
    """How to repair it; empty if there is no good guess."""
    if diagnostic.help is None:
        return ""
    return _fill_if_known(HELPS[diagnostic.help], diagnostic.facts)


class _Formatter(string.Formatter):
    """Joins tuples by a word, `{names:or}`, and counts things, `{found:index|indices}`."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if "|" in format_spec:
            one, several = format_spec.split("|")
            return f"{value} {one if value == 1 else several}"
        if isinstance(value, tuple):
            return _list(value, format_spec or "and")
        if isinstance(value, int) and format_spec:
            return f"{value} {format_spec.removesuffix('s') if value == 1 else format_spec}"
        return str(value)


def _fill(template: str, facts: Mapping[str, Fact]) -> str:
    return _Formatter().vformat(template, (), facts)


def _fill_if_known(template: str, facts: Mapping[str, Fact]) -> str:
    names = [name for _, name, _, _ in _Formatter().parse(template) if name]
    known = all(facts.get(name) not in (None, ()) for name in names)
    return _fill(template, facts) if known else ""


def _list(items: Sequence[Any], word: str) -> str:
    """`a, b or c`."""
    if len(items) < 2:
        return "".join(map(str, items))
    return f"{', '.join(map(str, items[:-1]))} {word} {items[-1]}"
