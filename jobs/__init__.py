"""Entry points: arguments become settings, settings open the lakehouse, and producers run. No business rule here."""

from __future__ import annotations

from jobs.context import Job, open_lake

__all__ = ["Job", "open_lake"]
