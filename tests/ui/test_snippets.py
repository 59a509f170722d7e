"""The settings as programs. That they do the same is tested with the page's."""

from __future__ import annotations

import ast
import json
import shlex

import pytest

from afterdetail.ui.snippets import Settings, as_curl, as_python


def settings(picture: str = "a.png", token: bool = False, **options: object) -> Settings:
    return Settings("http://h:1/", picture, "png", options, token)


def test_defaults_need_no_options() -> None:
    assert "options={}" in as_curl(settings())
    assert "options = {}" in as_python(settings())


@pytest.mark.parametrize("prompt", ["it's", 'a "b" $HOME `x` \\ !', "ü 猫", "{x}", "line\nline"])
def test_any_text_survives_the_shell_and_python(prompt: str) -> None:
    words = shlex.split(as_curl(settings(prompt=prompt)).replace("\\\n", ""))
    (options,) = (word for word in words if word.startswith("options="))
    assert json.loads(options.removeprefix("options=")) == {"prompt": prompt}
    program = ast.parse(as_python(settings(prompt=prompt)))
    (given,) = (
        node.value
        for node in program.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
    )
    assert ast.literal_eval(given) == {"prompt": prompt}


@pytest.mark.parametrize(
    ("picture", "sent"), [("a-b_1.png", "a-b_1.png"), ("a;type=x.png", "picture.png")]
)
def test_a_name_with_a_meaning_for_curl_is_not_used(picture: str, sent: str) -> None:
    assert f"image=@{sent}" in as_curl(settings(picture))


@pytest.mark.parametrize("write", [as_curl, as_python])
def test_a_token_is_named_and_never_shown(write: object) -> None:
    assert callable(write)
    assert "AFTERDETAIL_TOKEN" in write(settings(token=True))
    assert "AFTERDETAIL_TOKEN" not in write(settings())
