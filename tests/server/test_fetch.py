"""The policy of init_image_url, against a real web server on loopback."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from afterdetail.errors import AfterdetailError, InvalidInput, SourceFailed, SourceTimeout
from afterdetail.server.fetch import Fetcher
from afterdetail.server.outbound import Resolver, UrlPolicy, system_resolver

if TYPE_CHECKING:
    from tests.server.conftest import Source

STRICT = UrlPolicy(timeout=5, max_bytes=1_000_000, ports=(80, 443))


def policy_for(source: Source, **changes: object) -> UrlPolicy:
    """One under which the source can be reached."""
    return replace(STRICT, ports=(source.port,), allow_private=True, **changes)  # type: ignore[arg-type]


def fetch(url: str, policy: UrlPolicy = STRICT, resolver: Resolver = system_resolver) -> bytes:
    return asyncio.run(Fetcher(policy, resolver).fetch(url))


def refused(url: str, policy: UrlPolicy = STRICT, resolver: Resolver = system_resolver) -> str:
    """The code of the error a URL is answered with."""
    with pytest.raises(AfterdetailError) as caught:
        fetch(url, policy, resolver)
    assert "127.0" not in caught.value.public
    if isinstance(caught.value, InvalidInput):
        assert caught.value.field == "init_image_url"
    return caught.value.code


@pytest.mark.parametrize(
    "url",
    [
        "",
        "picture.png",
        "//example.org/a.png",
        "file:///etc/hostname",
        "ftp://example.org/a.png",
        "data:image/png;base64,AA==",
        "gopher://example.org/",
        "javascript:alert(1)",
        "http:",
        "http://",
        "http:///a.png",
        "http:example.org/a.png",
        "http://user@example.org/a.png",
        "http://user:password@example.org/a.png",
        "http://@example.org/a.png",
        "http://example.org@127.0.0.1/",
        "http://example.org\\@127.0.0.1/",
        "http:\\\\example.org/a.png",
        "http://exam ple.org/",
        " http://example.org/",
        "http://example.org/\n",
        "http://example.org/\x00",
        "http://127%2e0.0.1/",
        "http://[fe80::1%25eth0]/",
        "http://[::1/",
        "http://1.2.3.4.5/",
        "http://256.1.1.1/",
        "http://example.0x/",
        "http://example.org:port/",
        "http://" + "a" * 10_000,
    ],
)
def test_urls_that_are_none(url: str) -> None:
    assert refused(url) == "url_invalid"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.0.0.1.", "localhost", "LOCALHOST", "localhost.",
        "2130706433", "0x7f000001", "0x7F.1", "0177.0.0.1", "017700000001", "127.1", "127.0.1",
        "0", "0.0.0.0", "127。0。0。1",
        "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]",
        "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
        "169.254.169.254", "0xa9fea9fe", "100.64.0.1", "10.0.0.1", "192.168.1.1", "224.0.0.1",
        "255.255.255.255", "[fe80::1]", "[fd00:ec2::254]", "[ff02::1]",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public_get_no_packet(host: str, source: Source) -> None:
    policy = replace(STRICT, ports=(source.port,))
    assert refused(source.url("/picture", host), policy) == "url_blocked"
    assert source.seen == []


def test_a_host_is_refused_if_any_of_its_addresses_is_not_public() -> None:
    async def resolver(host: str, port: int) -> list[str]:  # noqa: ARG001
        return ["8.8.8.8", "10.0.0.1"]

    assert refused("http://photos.example/", resolver=resolver) == "url_blocked"


def test_the_checked_address_is_the_one_connected_to(source: Source) -> None:
    """Resolved once; the connection and its Host header are for that answer and that name."""
    asked: list[str] = []

    async def resolver(host: str, port: int) -> list[str]:  # noqa: ARG001
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    url = source.url("/picture", "photos.invalid")
    assert fetch(url, policy_for(source), resolver) == source.picture
    assert asked == ["photos.invalid"]
    assert source.hosts == [f"photos.invalid:{source.port}"]


def test_a_redirect_is_checked_again(source: Source) -> None:
    """The name is good at first, and private when the redirect comes back to it."""
    answers = [["127.0.0.1"], ["169.254.169.254"]]

    async def resolver(host: str, port: int) -> list[str]:  # noqa: ARG001
        return answers.pop(0)

    class OnlyLoopback(UrlPolicy):
        def check_addresses(self, found: list[str]) -> tuple[str, ...]:
            return tuple(found) if found == ["127.0.0.1"] else super().check_addresses(found)

    policy = OnlyLoopback(timeout=5, max_bytes=1_000_000, ports=(source.port,))
    url = source.url("/redirect?/picture", "photos.invalid")
    assert refused(url, policy, resolver) == "url_blocked"
    assert source.seen == ["/redirect?/picture"]


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("http://user@example.org/", "url_invalid"),
        ("file:///etc/hostname", "url_invalid"),
        ("http://example.org:22/", "url_blocked"),
        ("/loop", "url_failed"),
    ],
)
def test_redirects_that_are_not_followed(source: Source, target: str, code: str) -> None:
    assert refused(source.url(f"/redirect?{target}"), policy_for(source)) == code


def test_redirects_are_followed(source: Source) -> None:
    url = source.url("/redirect?/redirect?/picture")
    assert fetch(url, policy_for(source)) == source.picture
    assert len(source.seen) == 3


def test_too_many_redirects_end(source: Source) -> None:
    refused(source.url("/loop"), policy_for(source))
    assert len(source.seen) == 6


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/404", "url_failed"),
        ("/500", "url_failed"),
        ("/503", "url_failed"),
        ("/204", "url_failed"),
        ("/304", "url_failed"),
        ("/compressed", "url_failed"),
        ("/cut", "url_failed"),
        ("/declared", "url_too_large"),
        ("/endless", "url_too_large"),
    ],
)
def test_sources_that_fail(source: Source, path: str, code: str) -> None:
    assert refused(source.url(path), policy_for(source)) == code


@pytest.mark.parametrize("path", ["/hang", "/drip"])
def test_a_slow_source_is_left(source: Source, path: str) -> None:
    began = time.monotonic()
    assert refused(source.url(path), policy_for(source, timeout=0.3)) == "url_timeout"
    assert time.monotonic() - began < 1.5


def test_nothing_listens(source: Source) -> None:
    policy = replace(policy_for(source), ports=(1,))
    assert refused("http://127.0.0.1:1/", policy) == "url_failed"


def test_the_next_address_is_tried(source: Source) -> None:
    async def resolver(host: str, port: int) -> list[str]:  # noqa: ARG001
        return ["::1", "127.0.0.1"]

    url = source.url("/picture", "photos.invalid")
    assert fetch(url, policy_for(source), resolver) == source.picture


@pytest.mark.parametrize(
    ("error", "code"), [(OSError("no such host"), "url_failed"), (UnicodeError(), "url_failed")]
)
def test_a_host_that_does_not_resolve(error: Exception, code: str) -> None:
    async def resolver(host: str, port: int) -> list[str]:  # noqa: ARG001
        raise error

    assert refused("http://photos.invalid/", resolver=resolver) == code


def test_slow_names_keep_no_other_thread_of_the_server_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = threading.Event()

    def slow(*_: object, **__: object) -> list[object]:
        answered.wait(30)
        return []

    async def poll_meanwhile() -> str:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        lookups = [asyncio.create_task(system_resolver("slow.example", 80)) for _ in range(3)]
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(10):
                return await asyncio.to_thread(lambda: "from the store")
        finally:
            answered.set()
            await asyncio.gather(*lookups)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    assert asyncio.run(poll_meanwhile()) == "from the store"


def test_the_environments_proxy_is_not_used(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert fetch(source.url("/picture"), policy_for(source)) == source.picture


@pytest.mark.parametrize(
    ("allow", "deny", "host", "allowed"),
    [
        ((), (), "example.org", True),
        ((), ("example.org",), "example.org", False),
        ((), ("example.org",), "EXAMPLE.org.", False),
        ((), ("example.org",), "a.example.org", True),
        ((), (".example.org",), "a.example.org", False),
        ((), (".example.org",), "example.org", False),
        ((), (".example.org",), "notexample.org", True),
        (("example.org",), (), "example.org", True),
        (("example.org",), (), "example.com", False),
        (("example.org",), ("example.org",), "example.org", False),
    ],
)
def test_host_lists(
    allow: tuple[str, ...], deny: tuple[str, ...], host: str, allowed: bool
) -> None:
    policy = replace(STRICT, allow_hosts=allow, deny_hosts=deny)
    try:
        policy.check_url(f"https://{host}/a.png")
    except InvalidInput as error:
        assert (allowed, error.code) == (False, "url_blocked")
    else:
        assert allowed


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://example.org/", True),
        ("https://example.org/", True),
        ("https://example.org:80/", True),
        ("http://example.org:22/", False),
        ("http://example.org:0/", False),
        ("http://example.org:8080/", False),
    ],
)
def test_ports(url: str, allowed: bool) -> None:
    try:
        STRICT.check_url(url)
    except InvalidInput as error:
        assert (allowed, error.code) == (False, "url_blocked")
    else:
        assert allowed


def test_statuses() -> None:
    assert (SourceFailed.status, SourceTimeout.status) == (502, 504)
