"""Client libraries that not everybody needs, and what to say where one is missing."""

from __future__ import annotations

from importlib import import_module

from lakehouse.errors import MachineError


def need_extra(module: str, extra: str) -> None:
    """Check that a client library is there before it is imported.

    Raises:
        MachineError: naming the extra that brings it.
    """
    try:
        import_module(module)
    except ImportError as e:
        msg = f"Sending there needs the extra `{extra}`: uv sync --extra {extra}"
        raise MachineError(msg) from e
