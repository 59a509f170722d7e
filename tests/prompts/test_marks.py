"""Marks of other tools in prompts."""

from __future__ import annotations

import pytest

from afterdetail.errors import InvalidInput
from afterdetail.options import MAX_PROMPT
from afterdetail.prompts.marks import MAX_PARTS, PROMPT, Part, parts


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", [Part("main")]),
        ("  ", [Part("main")]),
        (" a face ", [Part(" a face ")]),
        ("a [SEP] b", [Part("a"), Part("b")]),
        ("a[SEP]b\n[SEP]\tc", [Part("a"), Part("b"), Part("c")]),
        ("a [SEP]", [Part("a"), Part("main")]),
        ("[SEP] b", [Part("main"), Part("b")]),
        ("[SKIP]", [Part("", skip=True)]),
        ("a [SEP] [SKIP] [SEP] b", [Part("a"), Part("", skip=True), Part("b")]),
        ("no [SKIP] here", [Part("no [SKIP] here")]),
        ("[PROMPT], sharp", [Part(" main , sharp")]),
        ("[sep] [skip] [prompt]", [Part("[sep] [skip] [prompt]")]),
        ("a <lora:x:0.5> b", [Part("a  b", loras={"x": 0.5})]),
        ("<lora:x>", [Part("", loras={"x": 1.0})]),
        (
            "<lora:x:-1><lora:my lora.v2:.5> [SEP] b",
            [Part("", loras={"x": -1.0, "my lora.v2": 0.5}), Part("b")],
        ),
        ("a < b <lora x>", [Part("a < b <lora x>")]),
    ],
)
def test_parts(prompt: str, expected: list[Part]) -> None:
    assert list(parts(prompt, "main")) == expected


def test_loras_of_the_main_prompt_come_with_it() -> None:
    assert parts("[PROMPT]", "woman <lora:x:0.5>") == (Part(" woman  ", loras={"x": 0.5}),)


@pytest.mark.parametrize("mark", ["", "x:y", "x:1:2", "x:", ":1", "x:nan", "x:1e9"])
def test_a_lora_that_is_written_wrong_is_refused(mark: str) -> None:
    with pytest.raises(InvalidInput, match="lora"):
        parts(f"a <lora:{mark}>", "")


def test_more_parts_than_objects_are_refused() -> None:
    assert len(parts("[SEP]" * (MAX_PARTS - 1), "")) == MAX_PARTS
    with pytest.raises(InvalidInput, match="64"):
        parts("[SEP]" * MAX_PARTS, "")


def test_long_prompts_take_linear_time() -> None:
    assert parts(" " * 10_000 + "<lora:" * 1_000, "")


@pytest.mark.parametrize(("marks", "length"), [(1, MAX_PROMPT), (1_000, 20)])
def test_a_main_prompt_put_in_is_part_of_the_length(marks: int, length: int) -> None:
    with pytest.raises(InvalidInput, match=f"{MAX_PROMPT} are allowed"):
        parts(PROMPT * marks, "x" * length)
