"""What REST connectors share: their HTTP core, the audience's id there, and what a dry run may show of a body."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from connectors.base import BatchDestination
from connectors.engine import Connector
from connectors.exchange import Halted, Place
from connectors.http import Http, Throttle, standard_throttle
from connectors.pace import Clock, Pace
from lakehouse.logs import redact as masked

JOINT: Final = "\x1f"
"""Between the parts of a key made of several values, such as an address."""


class RestConnector(Connector):
    """A connector over `Http`; a destination adds `send`, and `settle` when it works by jobs."""

    def __init__(
        self,
        config: BatchDestination,
        clock: Clock,
        *,
        headers: Callable[[], Mapping[str, str]],
        throttle: Throttle = standard_throttle,
        renew: Callable[[], None] | None = None,
    ) -> None:
        self.config = config
        self.clock = clock
        self.http = Http(
            config.base_url,
            headers=headers,
            clock=clock,
            pace=Pace(self.limits.rates, clock),
            throttle=throttle,
            max_bytes=self.limits.bytes,
            renew=renew,
        )

    @property
    def requests(self) -> int:
        """Requests made so far."""
        return self.http.requests

    def audience_id(self, place: Place) -> str:
        """Returns the id of an audience there.

        Raises:
            Halted: the settings name none for the segment.
        """
        found = self.config.audiences.get(place.segment_id)
        if found is None:
            raise Halted("no_audience_id", whole=False)
        return found


def reason_in(words: object) -> str:
    """Returns the words of a refusal as a code; they may name the person, and a code is kept for a year."""
    return "_".join(masked(str(words)).lower().split())[:60]


def redact(body: Any, rows: int = 2) -> Any:
    """Returns a body fit for a screen: lists cut short, and of what could be a person's no more than six digits."""
    if isinstance(body, Mapping):
        return {str(k): redact(v, rows) for k, v in body.items()}
    if isinstance(body, list | tuple):
        shown = [redact(v, rows) for v in body[:rows]]
        return [*shown, f"... {len(body) - rows} more"] if len(body) > rows else shown
    if isinstance(body, str) and (re.search(r"[@+]", body) or len(body) > 20 or re.fullmatch(r"[0-9a-f]{32,}", body)):
        return f"{body[:6]}***" if re.fullmatch(r"[0-9a-f]{32,}", body) else "***"
    return body
