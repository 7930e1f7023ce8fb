"""What is behind the colon of `module:create_app("x", debug=True)`, taken apart."""

from __future__ import annotations

import ast
from typing import Any

#: The arguments of a call by position, and by name.
Arguments = tuple[list[Any], dict[str, Any]]


def parse_expression(expression: str) -> tuple[list[str], Arguments | None]:
    """The parts of the dotted name, and the arguments if it is a call. It runs no code.

    Raises `ValueError` with a message for the user.
    """
    problem = f"{expression!r} is neither a name nor a call such as create_app(debug=True)"
    try:
        node = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        raise ValueError(problem) from None
    arguments: Arguments | None = None
    if isinstance(node, ast.Call):
        arguments = _literals(node, expression)
        node = node.func
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        raise ValueError(problem)
    return [node.id, *names], arguments


def _literals(call: ast.Call, expression: str) -> Arguments:
    try:
        if any(keyword.arg is None for keyword in call.keywords):
            raise ValueError(expression)
        return (
            [ast.literal_eval(value) for value in call.args],
            {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords},
        )
    except (ValueError, TypeError):
        raise ValueError(
            f"the arguments in {expression!r} must be literals: texts in quotes, numbers, True,"
            " None, lists and dicts of them"
        ) from None
