"""Settings come from the environment, and a wrong one is named."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from afterdetail.config import Settings, Token, load_settings, parse_tokens, settings_table
from afterdetail.errors import InvalidInput


def token(name: str, secret: str) -> Token:
    return Token(name, sha256(secret.encode()).digest())


def test_an_empty_environment_has_the_limits_of_the_contract(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AFTERDETAIL_TOKENS", raising=False)
    settings = load_settings()
    assert settings.tokens == ()
    assert settings.resolutions == "listed"
    assert settings.max_body_bytes == 32_000_000
    assert settings.max_pixels == 50_000_000
    assert settings.request_timeout == 300
    assert settings.max_objects == 64
    assert settings.url_timeout == 10
    assert settings.allow_private_urls is False
    assert (settings.safety, settings.safety_threshold) == ("on", 0.8)
    assert settings.async_hours == 24


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", ()),
        (" , \n", ()),
        ("anna:12345678", (token("anna", "12345678"),)),
        ("a:12345678, b:a:b:c:d:e", (token("a", "12345678"), token("b", "a:b:c:d:e"))),
        ("# a comment, with a comma\na:12345678\n\n", (token("a", "12345678"),)),
    ],
)
def test_tokens_are_read(text: str, tokens: tuple[Token, ...]) -> None:
    assert parse_tokens(text) == tokens


@pytest.mark.parametrize("text", ["12345678", ":12345678", "a:short", "a b:12345678", "a:1234567é"])
def test_a_wrong_token_is_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="token number 1") as caught:
        parse_tokens(text)
    assert text not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("TOKENS", "a:12345678", "tokens", (token("a", "12345678"),)),
        ("RESOLUTIONS", "any", "resolutions", "any"),
        ("URL_PORTS", "80, 8080", "url_ports", (80, 8080)),
        ("URL_DENY_HOSTS", "A.example, .b.example", "url_deny_hosts", ("a.example", ".b.example")),
        ("MAX_BODY_BYTES", "1000", "max_body_bytes", 1000),
        ("ALLOW_PRIVATE_URLS", "true", "allow_private_urls", True),
    ],
)
def test_variables(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, field: str, value: object
) -> None:
    monkeypatch.setenv(f"AFTERDETAIL_{name}", text)
    assert getattr(load_settings(), field) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("TOKENS", "very-secret"),
        ("RESOLUTIONS", "some"),
        ("URL_PORTS", "http"),
        ("MAX_PIXELS", "0"),
        ("REQUEST_TIMEOUT", "nan seconds"),
    ],
)
def test_a_wrong_variable_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(f"AFTERDETAIL_{name}", text)
    with pytest.raises(InvalidInput, match=f"^AFTERDETAIL_{name}: ") as caught:
        load_settings()
    assert "\n" not in str(caught.value)
    assert "very-secret" not in str(caught.value)


def test_tokens_of_a_file_join_those_of_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("b:87654321\n")
    settings = Settings(tokens=parse_tokens("a:12345678"), tokens_file=file)
    assert [item.name for item in settings.all_tokens()] == ["a", "b"]


@pytest.mark.parametrize("content", [None, b"nonsense", b"\xff\xfe"])
def test_a_tokens_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "tokens"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidInput, match="tokens_file"):
        Settings(tokens_file=file).all_tokens()


def test_no_token_is_shown_with_the_settings() -> None:
    digest = parse_tokens("a:12345678")[0].digest
    assert repr(digest) not in repr(Settings(tokens=parse_tokens("a:12345678")))


def test_the_table_in_the_documentation_is_of_this_code() -> None:
    page = Path(__file__).parents[1] / "docs" / "operations.md"
    print_it = "python -c 'from afterdetail import config; print(config.settings_table())'"
    assert settings_table() in page.read_text(encoding="utf-8"), print_it


def test_every_setting_says_what_it_means() -> None:
    for line in settings_table().splitlines()[2:]:
        variable, _, meaning = (cell.strip() for cell in line.strip("|").split("|"))
        assert variable.startswith("`AFTERDETAIL_")
        assert len(meaning) > 10, variable
