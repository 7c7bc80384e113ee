"""The canonical layout of one logical line: spaces between tokens, and where a long line breaks.

A line is a sequence of words and bracketed groups.  It is written on one line if it fits.  If not,
a header breaks before its `->`, or else the widest group opens, indices only where there is nothing
else: one element on each line, indented by a step, the bracket closing below.  Inside brackets a
long element breaks before its loosest operators.  The result depends only on the tokens, so that
layout of laid out text changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from mapsto.dsl.lalr import Token

__all__ = ["STEP", "WIDTH", "Comment", "lay_out_line"]

WIDTH = 100
STEP = 4

_CONTINUATION = 8
_HEADERS = {"map", "module", "train", "_LOSS", "_METRIC", "_GRADIENT"}
_OPERAND_ENDS = {"NAME", "INTEGER", "FLOAT", "STRING", "true", "false", ")", "]", "_LOSS"}
_CLOSING = {"(": ")", "[": "]"}
_LOOSEST_FIRST = (
    {"for"},
    {"then", "else"},
    {"or"},
    {"and"},
    {"==", "!=", "<", "<=", ">", ">="},
    {"+", "-"},
    {"*", "/", "%", "@"},
)


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment inside a line; `own_line` if nothing stands before it on its line."""

    text: str
    start: int
    own_line: bool


@dataclass(slots=True)
class _Word:
    """A token, with the space that stands before it; a binary operator knows that it is one."""

    text: str
    type: str
    start: int
    space: bool
    infix: bool = False


@dataclass(slots=True)
class _Element:
    """What stands between commas, with the comments above and behind it."""

    pieces: list[_Piece] = field(default_factory=list)
    above: list[str] = field(default_factory=list)
    behind: str = ""


@dataclass(slots=True)
class _Group:
    """A bracketed list of elements; `lasting_comma` is the comma that makes `(a,)` a tuple."""

    opening: _Word
    elements: list[_Element] = field(default_factory=list)
    below: list[str] = field(default_factory=list)
    lasting_comma: bool = False
    flat: str = ""
    commented: bool = False


_Piece = _Word | _Group


def lay_out_line(
    tokens: Sequence[Token], texts: Sequence[str], comments: Sequence[Comment], indent: int
) -> tuple[list[str], list[str]]:
    """The lines for a logical line, and the comments in it that have to stand above it."""
    words = _space(tokens, texts)
    above: list[str] = []
    pieces = _group(words, comments, above)
    return _lay_out_statement(pieces, indent), above


# Spaces


def _space(tokens: Sequence[Token], texts: Sequence[str]) -> list[_Word]:
    words: list[_Word] = []
    brackets: list[str] = []
    header = tokens[0].type in _HEADERS
    for token, text in zip(tokens, texts, strict=True):
        previous = words[-1] if words else None
        word = _Word(text, token.type, token.start, False)
        word.infix = previous is not None and previous.type in _OPERAND_ENDS
        word.space = previous is not None and _needs_space(previous, word, brackets)
        words.append(word)
        if token.type in _CLOSING:
            is_header = header and token.type == "(" and not brackets
            brackets.append("header" if is_header else _role(word, brackets))
        elif token.type in _CLOSING.values():
            role = brackets.pop()
            header = header and role != "header"
    return words


def _role(bracket: _Word, brackets: Sequence[str]) -> str:
    """What an opening bracket is for.  In an index or a type, `(` leaves it as it is."""
    if bracket.type == "[":
        return "index" if bracket.infix else "list"
    if bracket.infix:
        return "call"
    return "index" if brackets and brackets[-1] == "index" else "group"


def _needs_space(previous: _Word, word: _Word, brackets: Sequence[str]) -> bool:
    inner = brackets[-1] if brackets else ""
    types = (previous.type, word.type)
    if previous.type in ("(", "[", "...") or word.type in (")", "]", ","):
        return False
    if word.type == ".":
        return previous.type in ("INTEGER", "FLOAT")
    if ":" in types:
        return word.type != ":" and inner != "index"
    tight = {"header": "", "call": "=", "index": "*"}.get(inner, "")
    if "." in types or "^" in types or tight in types:
        return False
    if previous.type == "-" and not previous.infix:
        return False
    return word.type not in _CLOSING or previous.type not in _OPERAND_ENDS


# Groups


def _group(words: Iterable[_Word], comments: Sequence[Comment], above: list[str]) -> list[_Piece]:
    """Nest the words by their brackets and attach the comments."""
    root = _Element()
    open_groups: list[_Group] = []
    waiting = list(reversed(comments))
    for word in words:
        while waiting and waiting[-1].start < word.start:
            _attach(waiting.pop(), word, open_groups, above)
        if word.type in _CLOSING:
            open_groups.append(_Group(word, [_Element()]))
        elif word.type in _CLOSING.values():
            group = open_groups.pop()
            _close(group)
            (open_groups[-1].elements[-1] if open_groups else root).pieces.append(group)
        elif word.type == "," and open_groups:
            open_groups[-1].elements.append(_Element())
        else:
            (open_groups[-1].elements[-1] if open_groups else root).pieces.append(word)
    return root.pieces


def _attach(
    comment: Comment, following: _Word, open_groups: Sequence[_Group], above: list[str]
) -> None:
    """Give a comment to the element that it describes, or to the end of its group."""
    if not open_groups:
        above.append(comment.text)
        return
    group = open_groups[-1]
    last = group.elements[-1]
    ends_element = bool(last.pieces) and following.type in (",", ")", "]")
    if comment.own_line and ends_element and following.type != ",":
        group.below.append(comment.text)
    elif not comment.own_line and ends_element:
        _put_behind(last, comment.text)
    elif not comment.own_line and len(group.elements) > 1 and not (last.pieces or last.above):
        _put_behind(group.elements[-2], comment.text)
    else:
        last.above.append(comment.text)


def _put_behind(element: _Element, text: str) -> None:
    if element.behind:
        element.above.append(element.behind)
    element.behind = text


def _close(group: _Group) -> None:
    """Settle what depends on all elements: the last comma, the flat text, the comments."""
    last = group.elements[-1]
    if not last.pieces:
        group.elements.pop()
        group.below += last.above
        is_tuple = group.opening.type == "(" and not group.opening.infix
        group.lasting_comma = len(group.elements) == 1 and is_tuple
    group.commented = bool(group.below) or any(map(_is_commented, group.elements))
    inside = ", ".join(_flat(element.pieces) for element in group.elements)
    comma = "," if group.lasting_comma else ""
    opening = group.opening.text
    group.flat = f"{opening}{inside}{comma}{_CLOSING[opening]}"


def _is_commented(element: _Element) -> bool:
    nested = any(isinstance(piece, _Group) and piece.commented for piece in element.pieces)
    return nested or bool(element.above) or bool(element.behind)


def _flat(pieces: Sequence[_Piece]) -> str:
    parts: list[str] = []
    for piece in pieces:
        word = piece.opening if isinstance(piece, _Group) else piece
        text = piece.flat if isinstance(piece, _Group) else piece.text
        parts.append(f" {text}" if word.space and parts else text)
    return "".join(parts)


# Breaks


def _fits(pieces: Sequence[_Piece], indent: int, suffix: str = "") -> bool:
    if any(isinstance(piece, _Group) and piece.commented for piece in pieces):
        return False
    return indent + len(_flat(pieces)) + len(suffix) <= WIDTH


def _lay_out_statement(pieces: Sequence[_Piece], indent: int) -> list[str]:
    arrow = next((i for i, piece in enumerate(pieces) if _is_type(piece, {"->"})), None)
    if arrow is not None and not _fits(pieces, indent):
        head, tail = pieces[:arrow], pieces[arrow:]
        if _fits(head, indent) and _fits(tail, indent + _CONTINUATION):
            return [" " * indent + _flat(head), " " * (indent + _CONTINUATION) + _flat(tail)]
    return _lay_out(pieces, indent, "")


def _lay_out(pieces: Sequence[_Piece], indent: int, suffix: str) -> list[str]:
    """Lines for pieces: on one line if they fit, else with as few groups open as possible."""
    if _fits(pieces, indent, suffix):
        return [" " * indent + _flat(pieces) + suffix]
    groups = [i for i, p in enumerate(pieces) if isinstance(p, _Group) and (p.elements or p.below)]
    opened = {i for i in groups if _group_at(pieces, i).commented}
    while True:
        rows = _rows(pieces, opened, indent, suffix)
        closed = [
            (not _is_index(pieces, i), len(_group_at(pieces, i).flat), i)
            for row in rows
            if row.width > WIDTH
            for i in row.members
            if i in groups and i not in opened
        ]
        if not closed:
            return [line for row in rows for line in row.lines]
        opened.add(max(closed)[-1])


def _group_at(pieces: Sequence[_Piece], index: int) -> _Group:
    piece = pieces[index]
    assert isinstance(piece, _Group)
    return piece


def _is_index(pieces: Sequence[_Piece], index: int) -> bool:
    """Whether a group holds indices: those of an element, or those that an index lambda binds."""
    opening = _group_at(pieces, index).opening
    binds = index + 1 < len(pieces) and _is_type(pieces[index + 1], {"|->"})
    return opening.type == "[" and (opening.infix or binds)


@dataclass(slots=True)
class _Row:
    """Lines that stand together; `width` is that of the line made here, of pieces `members`."""

    lines: list[str]
    width: int = 0
    members: list[int] = field(default_factory=list)


def _rows(pieces: Sequence[_Piece], opened: set[int], indent: int, suffix: str) -> Sequence[_Row]:
    rows: list[_Row] = []
    text, members = "", list[int]()
    for index, piece in enumerate(pieces):
        word = piece.opening if isinstance(piece, _Group) else piece
        text += " " if word.space and text else ""
        if isinstance(piece, _Group) and index in opened:
            text += piece.opening.text
            rows.append(_row(text, members, indent))
            rows.append(_Row(list(_open_group(piece, indent + STEP))))
            text, members = _CLOSING[piece.opening.text], []
        else:
            text += piece.flat if isinstance(piece, _Group) else piece.text
            members.append(index)
    rows.append(_row(text + suffix, members, indent))
    return rows


def _row(text: str, members: list[int], indent: int) -> _Row:
    return _Row([" " * indent + text], indent + len(text), members)


def _open_group(group: _Group, indent: int) -> Iterator[str]:
    """The lines between the brackets of a group."""
    several = len(group.elements) > 1 or group.lasting_comma
    for element in group.elements:
        yield from (" " * indent + comment for comment in element.above)
        *lines, last = _lay_out_element(element.pieces, indent, "," if several else "")
        yield from lines
        yield f"{last}  {element.behind}" if element.behind else last
    yield from (" " * indent + comment for comment in group.below)


def _lay_out_element(pieces: Sequence[_Piece], indent: int, suffix: str) -> list[str]:
    """Lines for an element, which stands in brackets and may break before an operator."""
    parts = [] if _fits(pieces, indent, suffix) else _split(pieces)
    if len(parts) < 2:
        return _lay_out(pieces, indent, suffix)
    lines: list[str] = []
    for part in parts[:-1]:
        lines += _lay_out_element(part, indent, "")
    return lines + _lay_out_element(parts[-1], indent, suffix)


def _split(pieces: Sequence[_Piece]) -> list[Sequence[_Piece]]:
    """The parts of an element, each but the first starting with one of its loosest operators."""
    if any(_is_type(piece, {"|->"}) for piece in pieces):
        return []
    for operators in _LOOSEST_FIRST:
        cuts = [i for i, p in enumerate(pieces) if i and _is_type(p, operators) and _infix(p)]
        if cuts:
            bounds = [0, *cuts, len(pieces)]
            return [pieces[a:b] for a, b in pairwise(bounds)]
    return []


def _is_type(piece: _Piece, types: set[str]) -> bool:
    return isinstance(piece, _Word) and piece.type in types


def _infix(piece: _Piece) -> bool:
    return isinstance(piece, _Word) and piece.infix
