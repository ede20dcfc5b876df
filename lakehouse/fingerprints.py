"""Fingerprints of code and parameters: equal as long as a step would do the same again."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import json
import threading
from collections.abc import Callable, Mapping
from datetime import date
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from lakehouse.declare import Changes, table_of
from lakehouse.steps import Step

_RUN_ONLY = frozenset({"run_id", "started_at", "previous", "is_full", "settings", "hold"})
_OURS = ("pipelines", "features", "models", "segments", "connectors")


def step_fingerprint(
    step: Step,
    function: Callable[..., object],
    params: Mapping[str, Any],
    settings: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """`<code, declaration and settings>.<parameters>`: the first half changing means a full pass, the second a new run.

    Code is the producer's module and every module of ours it imports, so a mended helper counts as a change. Of the
    platform underneath (`lakehouse`) only the declarations of the step's tables count, and of the settings those that
    the function asks for by name.
    """
    code = hashlib.sha256(code_fingerprint(step.producer.split(":")[0]).encode())
    for t in (*step.outputs, *(table_of(str(r)) for r in step.reads)):
        code.update(repr((t.name, t.kind, t.key, t.columns, [c.spec for c in t.columns])).encode())
    followed = [(str(r), r.also_before, table_of(str(r)).change_feed) for r in step.reads if isinstance(r, Changes)]
    code.update(repr(followed).encode())
    asked = keyword_only(function) - _RUN_ONLY
    code.update(repr(sorted((n, v) for n, v in settings.items() if n in asked)).encode())
    values = {n: _plain(params[n]) for n in sorted(asked) if n in params}
    said = hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode())
    return f"{code.hexdigest()[:16]}.{said.hexdigest()[:16]}"


def code_fingerprint(module: str) -> str:
    """Hash of a module of ours and of every module of ours that it imports."""
    code = hashlib.sha256()
    for path in sorted(_sources_of(module)):
        code.update(path.read_bytes())
    return code.hexdigest()


def keyword_only(function: Callable[..., object]) -> set[str]:
    """Names of the parameters a producer asks for beside its frames."""
    return {n for n, p in inspect.signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY}


def _plain(value: Any) -> Any:
    said = getattr(value, "fingerprint", None)
    if isinstance(said, str):
        return said
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value.isoformat() if isinstance(value, date) else repr(value)


def _sources_of(module: str, seen: set[str] | None = None) -> set[Path]:
    seen = seen if seen is not None else set()
    if module in seen or module.split(".")[0] not in _OURS:
        return set()
    seen.add(module)
    with _PARSING:
        path, names = _imports_of(module)
    found = {path} if path else set()
    for name in names:
        found |= _sources_of(name, seen)
    return found


_PARSING = threading.Lock()
"""CPython 3.11 counts the depth of syntax trees per process, so two threads that parse at once can fail."""


@cache
def _imports_of(module: str) -> tuple[Path | None, tuple[str, ...]]:
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None, ()
    if spec is None or not spec.origin:
        return None, ()
    path = Path(spec.origin)
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
        elif isinstance(node, ast.Import):
            names += [a.name for a in node.names]
    return path, tuple(names)
