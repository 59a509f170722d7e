"""Fetching ``init_image_url``: a picture from the internet, so much of it and within a time.

Redirects are followed, and go the whole way of the policy again.
"""

from __future__ import annotations

import asyncio
import ssl

import httpx

from afterdetail.errors import InvalidInput, SourceFailed, SourceTimeout
from afterdetail.server.outbound import (
    FORBIDDEN,
    Outbound,
    Resolver,
    UrlPolicy,
    invalid,
    system_resolver,
)

FIELD = "init_image_url"
MAX_REDIRECTS = 5
HEADERS = {"Accept": "image/png, image/jpeg, image/webp", "Accept-Encoding": "identity"}


class Fetcher:
    """Gets pictures by URL under a policy."""

    def __init__(self, policy: UrlPolicy, resolver: Resolver = system_resolver) -> None:
        self.policy = policy
        self.outbound = Outbound(policy, resolver)

    async def fetch(self, text: str) -> bytes:
        """The bytes behind a URL, whatever they are.

        Raises:
            InvalidInput: ``url_invalid``, ``url_blocked`` or ``url_too_large``.
            SourceFailed: no connection, no such host, or any answer but 200.
            SourceTimeout: not done in time.
        """
        try:
            async with asyncio.timeout(self.policy.timeout):
                return await self._follow(text)
        except InvalidInput as error:
            error.field = FIELD
            raise
        except SourceFailed as error:
            raise SourceFailed(f"{FIELD}: {error}") from None
        except (TimeoutError, httpx.TimeoutException):
            limit = f"{self.policy.timeout:g} seconds"
            raise SourceTimeout(f"{FIELD} could not be fetched within {limit}") from None
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError):
            raise SourceFailed(f"{FIELD} could not be fetched") from None

    async def _follow(self, text: str) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            async with self.outbound.request("GET", text, HEADERS) as response:
                if not response.has_redirect_location:
                    return await self._body(response)
                text = _join(self.policy.check_url(text), response.headers["location"])
        raise SourceFailed(f"redirected more than {MAX_REDIRECTS} times")

    async def _body(self, response: httpx.Response) -> bytes:
        if response.status_code != 200:
            raise SourceFailed(f"answered with status {response.status_code}")
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise SourceFailed("answered compressed")
        declared = response.headers.get("content-length", "0")
        if declared.isdecimal() and int(declared[:20]) > self.policy.max_bytes:
            raise self._too_large()
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > self.policy.max_bytes:
                raise self._too_large()
        return bytes(body)

    def _too_large(self) -> InvalidInput:
        limit = f"{self.policy.max_bytes:,} bytes"
        return InvalidInput("url_too_large", f"the picture is larger than the limit of {limit}")


def _join(url: httpx.URL, location: str) -> str:
    if FORBIDDEN.search(location):
        raise invalid("redirected to something that is not a URL")
    return str(url.join(location))
