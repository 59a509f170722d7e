"""Tokens, and what may be served without them."""

from __future__ import annotations

import pytest

from afterdetail.config import Settings, parse_tokens
from afterdetail.errors import InvalidInput
from afterdetail.server.auth import check_exposure, client_of, is_loopback

TOKENS = parse_tokens("anna:12345678,bert:abcdefgh")


@pytest.mark.parametrize(
    ("header", "client"),
    [
        ("", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("12345678", None),
        ("Basic 12345678", None),
        ("Bearer 1234567", None),
        ("Bearer 123456789", None),
        ("Bearer anna:12345678", None),
        ("Bearer \xff\u20ac", None),
        ("Bearer 12345678", "anna"),
        ("bearer 12345678", "anna"),
        ("Bearer  abcdefgh ", "bert"),
    ],
)
def test_who_a_header_belongs_to(header: str, client: str | None) -> None:
    assert client_of(header, TOKENS) == client
    assert client_of(header, ()) is None


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("", False),
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.2", False),
        ("myhost", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_others_are_not_served_without_tokens() -> None:
    with pytest.raises(InvalidInput, match="AFTERDETAIL_TOKENS") as caught:
        check_exposure("0.0.0.0", Settings(tokens=()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "settings"),
    [
        ("127.0.0.1", Settings(tokens=())),
        ("0.0.0.0", Settings(tokens=TOKENS)),
        ("0.0.0.0", Settings(tokens=(), allow_anonymous=True)),
    ],
)
def test_what_may_be_served(host: str, settings: Settings) -> None:
    check_exposure(host, settings)
