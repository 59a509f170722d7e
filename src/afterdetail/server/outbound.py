"""Requests that this server makes for its clients, all under one policy.

A URL is checked by its text, its host is resolved once, every address it has must be public, and
the connection goes to the checked address itself; a name that means something else a moment later
changes nothing. Proxies of the environment are not used, since they would resolve the name a second
time.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Self
from urllib.parse import SplitResult, urlsplit, urlunsplit

import httpx

from afterdetail.config import Settings
from afterdetail.errors import InvalidInput, SourceFailed
from afterdetail.server import addresses

MAX_URL_LENGTH = 8192
MAX_ADDRESSES = 4
"""Of a host: the next is tried where one does not take connections."""
PORTS = {"http": 80, "https": 443}
FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\]")
NUMERIC_HOST = re.compile(r"(?:[^:]*\.)?(?:\d+|0[xX][0-9a-fA-F]*)\.?")
"""A host whose last label is a number is an IPv4 address, however it is written (WHATWG URL)."""

LOOKUPS = 32
"""Names looked up at a time; a slow one may take half a minute, and more of them wait."""
_LOOKUPS = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="resolve")
"""Threads of their own: in the event loop's few, slow names would keep polls from the store."""

Resolver = Callable[[str, int], Awaitable[list[str]]]


async def system_resolver(host: str, port: int) -> list[str]:
    """Every address of a host, best first, as the operating system knows them."""
    look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_LOOKUPS, look_up)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@dataclass(frozen=True, slots=True)
class UrlPolicy:
    """What may be asked for; :class:`~afterdetail.config.Settings` says what each field means."""

    timeout: float
    max_bytes: int
    ports: tuple[int, ...]
    allow_hosts: tuple[str, ...] = ()
    deny_hosts: tuple[str, ...] = ()
    allow_private: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(
            timeout=settings.url_timeout,
            max_bytes=settings.max_url_bytes,
            ports=settings.url_ports,
            allow_hosts=settings.url_allow_hosts,
            deny_hosts=settings.url_deny_hosts,
            allow_private=settings.allow_private_urls,
        )

    def check_url(self, text: str) -> httpx.URL:
        """The URL, if its text is allowed.

        Raises:
            InvalidInput: ``url_invalid`` if it is no plain http(s) URL, ``url_blocked`` if its port
                or host is not allowed.
        """
        url = _plain_url(text)
        if port_of(url) not in self.ports:
            allowed = ", ".join(map(str, self.ports))
            raise _blocked(f"port {port_of(url)} is not allowed; allowed: {allowed}")
        host = host_of(url)
        if _matches(host, self.deny_hosts):
            raise _blocked("this host is not allowed")
        if self.allow_hosts and not _matches(host, self.allow_hosts):
            raise _blocked("only some hosts are allowed here, and this is none of them")
        return url

    def check_addresses(self, found: list[str]) -> tuple[str, ...]:
        """The addresses of a host, if all of them are allowed.

        Raises:
            InvalidInput: as ``url_blocked``.
        """
        if not self.allow_private and not all(
            addresses.is_public(addresses.parse(text)) for text in found
        ):
            raise _blocked("this host is not on the public internet")
        return tuple(found[:MAX_ADDRESSES])


@dataclass(frozen=True, slots=True)
class Outbound:
    """Makes requests under a policy. One for the whole process; holds no connections."""

    policy: UrlPolicy
    resolver: Resolver = system_resolver

    @asynccontextmanager
    async def request(
        self,
        method: str,
        text: str,
        headers: Mapping[str, str],
        content: bytes | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """The answer to one request, its body not read yet. Redirects are not followed.

        Raises:
            InvalidInput: ``url_invalid`` or ``url_blocked``.
            SourceFailed: no such host, or it takes no connections.
            httpx.HTTPError, ssl.SSLError, OSError: it went wrong on the way.
        """
        url = self.policy.check_url(text)
        found = self.policy.check_addresses(await self._resolve(url))
        # In the name of the URL's host: Host, TLS name and the check of its certificate.
        named = {"Host": url.netloc.decode("ascii"), "User-Agent": "afterdetail"} | dict(headers)
        # A client of its own: no cookies and no connections are carried from one host to another.
        async with (
            httpx.AsyncClient(
                verify=_tls(), trust_env=False, timeout=self.policy.timeout
            ) as client,
            AsyncExitStack() as stack,
        ):
            for address in found:
                pinned = url.copy_with(host=address, fragment=None)
                extensions = {"sni_hostname": host_of(url)}
                asked = client.stream(
                    method, pinned, headers=named, content=content, extensions=extensions
                )
                try:
                    response = await stack.enter_async_context(asked)
                except httpx.ConnectError:
                    continue
                yield response
                return
        raise SourceFailed("its host takes no connections")

    async def _resolve(self, url: httpx.URL) -> list[str]:
        try:
            return await self.resolver(host_of(url), port_of(url))
        except (OSError, UnicodeError):
            raise SourceFailed("there is no such host") from None


@cache  # of one entry: slow to make, safe to share
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


def host_of(url: httpx.URL) -> str:
    """The host as TLS writes it: lower case, IDNA, no dot at the end."""
    return url.raw_host.decode("ascii").lower().rstrip(".")


def port_of(url: httpx.URL) -> int:
    return PORTS[url.scheme] if url.port is None else url.port


def _plain_url(text: str) -> httpx.URL:
    if len(text) > MAX_URL_LENGTH or FORBIDDEN.search(text):
        raise invalid("not a URL: too long, or with spaces, backslashes or control characters")
    try:
        parts = urlsplit(text)
        numeric = NUMERIC_HOST.fullmatch(parts.hostname or "")
        url = httpx.URL(_with_usual_ipv4(parts) if numeric else text)
    except (httpx.InvalidURL, ValueError):
        raise invalid("not a URL") from None
    if url.scheme not in PORTS:
        raise invalid("not an http:// or https:// URL, which alone are asked")
    if "@" in parts.netloc:
        raise invalid("a URL with a user name or password is not asked")
    if not url.host or "%" in url.host:
        raise invalid("a URL needs a plain host")
    return url


def _with_usual_ipv4(parts: SplitResult) -> str:
    """The URL with its IPv4 address as four decimal numbers, not octal, hexadecimal or fewer.

    Raises:
        ValueError: the host only looked like an address.
    """
    try:
        address = socket.inet_ntoa(socket.inet_aton((parts.hostname or "").rstrip(".")))
    except OSError:
        raise ValueError("not an IPv4 address") from None
    port = "" if parts.port is None else f":{parts.port}"
    return urlunsplit(parts._replace(netloc=address + port))


def _matches(host: str, patterns: tuple[str, ...]) -> bool:
    return any(
        host == pattern.lstrip(".") or (pattern.startswith(".") and host.endswith(pattern))
        for pattern in patterns
    )


def invalid(message: str) -> InvalidInput:
    return InvalidInput("url_invalid", message)


def _blocked(message: str) -> InvalidInput:
    return InvalidInput("url_blocked", message)
