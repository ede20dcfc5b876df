"""Entry points: arguments become settings, settings open the lakehouse, and producers run. No business rule here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobs.context import Job, open_lake

__all__ = ["Job", "open_lake"]


def __getattr__(name: str) -> Any:
    # Not before it is asked for: where Spark is missing, the command is still to say so.
    if name not in __all__:
        raise AttributeError(f"module 'jobs' has no attribute '{name}'")
    from jobs import context

    return getattr(context, name)
