"""Access tokens got with a refresh token or client credentials, renewed when they expire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from connectors.exchange import Halted, RetryLater
from connectors.http import check_url, json_of, trusted
from connectors.pace import Clock

_EARLY_SECONDS = 60.0


class AccessToken:
    """A token that is fetched when first needed and again before it expires.

    Source: RFC 6749, sections 4.4 and 6.
    """

    def __init__(self, url: str, form: Mapping[str, Any], clock: Clock, *, as_json: bool = False) -> None:
        """Nothing is fetched yet.

        Args:
            url: Token endpoint.
            form: Grant; values that are `Secret`s are revealed when it is sent.
            clock: Tells when the token expires.
            as_json: Send the grant as JSON rather than as a form.
        """
        self._url = check_url(url)
        self._form = form
        self._clock = clock
        self._as_json = as_json
        self._token = ""
        self._until = 0.0

    def __call__(self) -> str:
        """Return a token that holds for a minute at least."""
        if not self._token or self._clock.now() >= self._until:
            self.renew()
        return self._token

    def renew(self) -> None:
        """Fetch a new token.

        Raises:
            Halted: the grant was refused.
            RetryLater: the endpoint cannot be reached or fails.
        """
        form = {k: v.reveal() if hasattr(v, "reveal") else str(v) for k, v in self._form.items()}
        try:
            with httpx.Client(follow_redirects=False, verify=trusted(), timeout=30) as client:
                body: dict[str, Any] = {"json": form} if self._as_json else {"data": form}
                answer = client.post(self._url, **body)
        except httpx.RequestError as e:
            raise RetryLater(type(e).__name__, may_be_applied=False) from None
        if answer.status_code >= 500 or answer.status_code == 429:
            raise RetryLater(f"token_{answer.status_code}", may_be_applied=False)
        said = json_of(answer)
        if not answer.is_success or not said.get("access_token"):
            raise Halted(f"token_{answer.status_code}")
        self._token = str(said["access_token"])
        self._until = self._clock.now() + float(said.get("expires_in") or 3600) - _EARLY_SECONDS
