"""The passes, one file a pass; importing this package registers all of them."""

from mapsto.ir.passes import (
    canonicalize,
    contractions,
    cse,
    dce,
    differentiate,
    fold,
    fuse,
    inline,
)

__all__ = [
    "canonicalize",
    "contractions",
    "cse",
    "dce",
    "differentiate",
    "fold",
    "fuse",
    "inline",
]
