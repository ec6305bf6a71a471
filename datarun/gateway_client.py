"""What a runner asks of the gateway: JSON over HTTP with its token; safe to use from several threads."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import requests

from datarun.errors import DatarunError, Retryable
from datarun.settings import Settings

ANSWER_SECONDS = 10.0
_TRY_AGAIN = 500


class GatewayUnavailable(Retryable):
    """The gateway does not answer, or says that it cannot now."""


class GatewayRefused(DatarunError):
    """The gateway refuses the request; the same one will be refused again."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"the gateway answers {status}: {text}")
        self.status = status


class GatewayClient:
    """A gateway by its URL, and the token by which it knows us."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._local = threading.local()

    @classmethod
    def of(cls, settings: Settings) -> GatewayClient:
        """Return the client of an installation's gateway; raises DatarunError when it has none to name."""
        if settings.gateway_url is None or settings.token is None:
            raise DatarunError("no gateway given: pass --gateway URL and --token-file FILE (`datarun token add`)")
        return cls(settings.gateway_url, settings.token.get_secret_value())

    def get_json(self, path: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """Return what a path answers; raises GatewayUnavailable or GatewayRefused."""
        return self.request("GET", path, params=parameters).json()

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """Return the answer to a request, whose status is below 400; raises GatewayUnavailable or GatewayRefused."""
        options = {"timeout": ANSWER_SECONDS, "allow_redirects": False} | options
        try:
            answer = self._session().request(method, f"{self._url}{path}", **options)
        except requests.RequestException as error:
            raise GatewayUnavailable(f"the gateway at {self._url} does not answer: {error}") from error
        if answer.status_code >= _TRY_AGAIN:
            raise GatewayUnavailable(f"the gateway at {self._url} answers {answer.status_code}")
        if not answer.ok:
            raise GatewayRefused(answer.status_code, answer.text[:300])
        return answer

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            # Proxies and .netrc of the environment are for other servers, and would replace the token.
            session.trust_env = False
            session.headers["Authorization"] = f"Bearer {self._token}"
        return session
