"""The C header of a library: plain C99, and `extern "C"` for C++."""

from __future__ import annotations

import textwrap

from mapsto.runtime.library import (
    CParameter,
    Library,
    LibraryEntry,
    entry_parameters,
    size_parameters,
)

__all__ = ["header_text"]


def header_text(library: Library) -> str:
    """The header's text."""
    guard = f"{library.name.upper()}_H"
    parts = [
        f"#ifndef {guard}\n#define {guard}\n\n#include <stdint.h>\n",
        '#ifdef __cplusplus\nextern "C" {\n#endif\n',
        _introduction(library),
        *([_handle(library)] if library.has_handle else []),
        *(_entry(library, entry) for entry in library.entries),
        f"#ifdef __cplusplus\n}}\n#endif\n\n#endif /* {guard} */\n",
    ]
    return "\n".join(parts)


def _introduction(library: Library) -> str:
    codes = library.error_messages.items()
    table = "\n".join(f"     {code:4d}  {_safe(message)}" for code, message in codes)
    name = library.name
    return (
        "/* Tensors are dense, in row-major order; a number of elements follows each pointer.\n"
        "   A named size lies in [1, 2147483647].  Inputs and results must not overlap.\n"
        "   All functions may be called from several threads at once.\n"
        "   A workspace is memory that a call uses and leaves; NULL lets the library allocate it.\n"
        "\n"
        f"   Error codes:\n{table} */\n"
        "\n"
        "/* A sentence for an error code; never NULL. */\n"
        f"const char *{name}_error_message(int32_t code);\n"
        "\n"
        "/* How many threads the library uses.  The default is the environment variable\n"
        "   MAPSTO_NUM_THREADS, else one a processor.  Results do not depend on it. */\n"
        f"void {name}_set_threads(int64_t threads);\n"
    )


def _handle(library: Library) -> str:
    name = library.name
    arrays = "\n".join(f"     {_safe(str(spec))}" for spec in library.bound.values())
    waits = "\n   Calls with one model wait for each other." if library.has_lock else ""
    create = (
        "/* Makes a model with the values that it was built with. */\n"
        f"int32_t {name}_create({name}_model **model);\n"
        "\n"
    )
    return (
        f"/* The parameters and the state that the functions below work with.{waits} */\n"
        f"typedef struct {name}_model {name}_model;\n"
        "\n"
        f"{'' if library.external_weights else create}"
        "/* Makes a model with the values of a safetensors file. */\n"
        f"int32_t {name}_load(const char *path, {name}_model **model);\n"
        "\n"
        f"void {name}_destroy({name}_model *model);\n"
        "\n"
        "/* An array of the model, to be read or written while no function runs with the model;\n"
        "   NULL if there is none of this name.  `elements` (or NULL) receives its size.\n"
        f"{arrays} */\n"
        f"void *{name}_array({name}_model *model, const char *name, int64_t *elements);\n"
    )


def _entry(library: Library, entry: LibraryEntry) -> str:
    name = library.c_name(entry)
    parameters = entry_parameters(library, entry)
    text = textwrap.indent(textwrap.fill(entry.documentation, 90), "   ").strip()
    about = _safe(text) + ("\n" if text else "")
    sizes = ", ".join(map(_declaration, size_parameters(entry))) or "void"
    first = "  The first call also lays out the weights." * (entry.signature.prepared_bytes > 0)
    return (
        f"/* {about}{'   ' if about else ''}Returns 0 or an error code.{first} */\n"
        f"{_prototype('int32_t ' + name, parameters)}\n"
        "\n"
        f"/* The bytes of workspace for {name}, or -1 if a size is not valid. */\n"
        f"int64_t {name}_workspace_bytes({sizes});\n"
    )


def _prototype(head: str, parameters: list[CParameter]) -> str:
    """A declaration, a line for each tensor with its type."""
    lines, comment = [f"{head}("], ""
    for parameter in parameters:
        if parameter.spec is not None or parameter.name == "workspace":
            lines.append("")
        lines[-1] += f"{_declaration(parameter)}, {comment}"
        comment = "" if parameter.spec is None else f"/* {parameter.spec.type} */"
    text = "\n        ".join(line.rstrip() for line in lines)
    return text.rstrip(", ") + ");"


def _declaration(parameter: CParameter) -> str:
    space = "" if parameter.c_type.endswith("*") else " "
    return f"{parameter.c_type}{space}{parameter.name}"


def _safe(text: str) -> str:
    """Text that cannot end the comment around it."""
    return text.replace("*/", "* /").replace("/*", "/ *")
