"""Imports every module that registers evaluators or callables, so that elaboration is complete."""

from mapsto.dsl import calls, expressions, indexing, instances, transforms

__all__ = ["calls", "expressions", "indexing", "instances", "transforms"]
