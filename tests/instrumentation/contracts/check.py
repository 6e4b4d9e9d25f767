"""Whether a source tree has what a row of a hook table names, by its syntax alone."""

from __future__ import annotations

import ast
from collections.abc import Callable

from kat_otel.instrumentation.engines.hooks import Hook

Read = Callable[[str], str | None]


def applies(hook: Hook, version: str) -> bool:
    """Whether a row is meant for a version of its engine."""
    at = _numbers(version)
    return not (
        (hook.since and at < _numbers(hook.since)) or (hook.until and at >= _numbers(hook.until))
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def broken(hook: Hook, read: Read) -> str:
    """What is wrong with a row; empty if the tree has what it names."""
    path = hook.module.replace(".", "/")
    source = read(f"{path}.py") or read(f"{path}/__init__.py")
    if source is None:
        return f"no module {hook.module}"
    body: list[ast.stmt] = ast.parse(source).body
    found: ast.stmt | None = None
    for name in hook.name.split("."):
        found = next((one for one in _all(body) if name in _names(one)), None)
        if found is None:
            return f"no {name} in {hook.module}"
        body = found.body if isinstance(found, ast.ClassDef) else []
    if not hook.uses:
        return ""
    if not isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef):
        return f"{hook.where} is no function"
    names = [one.arg for one in (*found.args.posonlyargs, *found.args.args)]
    if names and names[0] in ("self", "cls"):
        names = names[1:]
    if tuple(names[: len(hook.uses)]) != hook.uses:
        return f"{hook.where} takes {names}, we use {hook.uses}"
    return ""


def _all(body: list[ast.stmt]) -> list[ast.stmt]:
    """Statements, those under an `if` or `try` at the top among them."""
    found: list[ast.stmt] = []
    for one in body:
        found.append(one)
        if isinstance(one, ast.If | ast.Try):
            found += _all([*one.body, *one.orelse])
    return found


def _names(one: ast.stmt) -> set[str]:
    if isinstance(one, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return {one.name}
    if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
        return {one.target.id}
    if isinstance(one, ast.Assign):
        return {target.id for target in one.targets if isinstance(target, ast.Name)}
    return set()
