"""Add the docstrings of a class's fields to that of the class, so that ``help`` shows the same texts as ``--help``."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path
from typing import get_args

Fields = dict[str, tuple[str, str, str]]
"""Name → (annotation, default value, docstring), as in the source; empty if absent."""


def with_fields(kind: type) -> str:
    """Return the docstring of a class with a section "Parameters": its fields, their types, defaults and docstrings.

    The docstring of a field is the string after it. A field without one, whose type is a class of the module, takes
    the first line of the docstring of that class.
    """
    lines = [*(kind.__doc__ or "").splitlines(), "", "Parameters", "----------"]
    known = vars(sys.modules[kind.__module__])
    fields = _fields_of(kind.__module__).get(kind.__name__, {})
    for name, (annotation, default, text) in fields.items():
        parts = [known.get(part, part) for part in annotation.split(" | ")]
        shown = " | ".join(_name_of(part) for part in parts)
        lines.append(f"{name} : {shown}{f', default {default}' if default else ''}")
        if not text and isinstance(parts[0], type):
            text = (parts[0].__doc__ or "").partition("\n")[0]
        lines += [f"    {line.strip()}" for line in text.splitlines()]
    return "\n".join(lines) if fields else kind.__doc__ or ""


def _name_of(part: object) -> str:
    """Return the name of a type; of an alias such as ``Count``, that of the aliased type, "int"."""
    base = get_args(part)[0] if hasattr(part, "__metadata__") else part
    name = base.__name__ if isinstance(base, type) and not get_args(base) else str(base)
    return name.replace("typing.", "").replace("pathlib.", "")


@cache
def _fields_of(module: str) -> dict[str, Fields]:
    """Return class → fields, from the source of a module; empty if there is no source."""
    try:
        tree = ast.parse(Path(sys.modules[module].__file__ or "").read_text(encoding="utf-8"))
    except (OSError, AttributeError):
        return {}
    return {node.name: _fields(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _fields(node: ast.ClassDef) -> Fields:
    fields: Fields = {}
    for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            text = ""
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                text = str(following.value.value)
            fields[statement.target.id] = (ast.unparse(statement.annotation), _default(statement.value), text)
    return fields


def _default(value: ast.expr | None) -> str:
    """Return the source of a default value; of ``field(default_factory=...)``, that of the factory's result."""
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "field":
        factory = next(keyword.value for keyword in value.keywords if keyword.arg == "default_factory")
        return ast.unparse(factory.body) if isinstance(factory, ast.Lambda) else f"{ast.unparse(factory)}()"
    return "" if value is None else ast.unparse(value)
