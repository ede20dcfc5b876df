"""Libraries that not everybody needs, and what to say where one is missing."""

from __future__ import annotations

from importlib import import_module

from lakehouse.errors import MachineError


def need_extra(module: str, extra: str, what: str) -> None:
    """Check that a library is there before it is imported.

    Args:
        module: What would be imported.
        extra: The extra of this package that brings it.
        what: What needs it, as the beginning of a sentence.

    Raises:
        MachineError: naming the extra and how to get it.
    """
    try:
        import_module(module)
    except ImportError as e:
        # Not `uv sync --extra`, which takes every other extra away.
        how = f"`make setup` in a checkout, else `pip install 'retail-segmentation[{extra}]'`"
        raise MachineError(f"{what} needs {module}, which the extra `{extra}` brings: {how}.") from e
