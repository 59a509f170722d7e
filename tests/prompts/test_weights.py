"""The attention grammar, as a table."""

from __future__ import annotations

import math
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterdetail.prompts.weights import MAX_WEIGHT, Fragment, parse

UP, DOWN = 1.1, 1 / 1.1


@pytest.mark.parametrize(
    ("prompt", "pieces"),
    [
        ("", []),
        ("()", []),
        ("a cat", [("a cat", 1)]),
        ("(x)", [("x", UP)]),
        ("[x]", [("x", DOWN)]),
        ("(x:1.3)", [("x", 1.3)]),
        ("(x: .5 )", [("x", 0.5)]),
        ("(x:2.)", [("x", 2)]),
        ("(x:0)", [("x", 0)]),
        ("(x:-1)", [("x", -1)]),
        ("(x:+1.5)", [("x", 1.5)]),
        ("a (b) c", [("a ", 1), ("b", UP), (" c", 1)]),
        ("((x))", [("x", UP**2)]),
        ("[[x]]", [("x", DOWN**2)]),
        ("((x:2):3)", [("x", 6)]),
        ("((a) b:2)", [("a", 2 * UP), (" b", 2)]),
        ("([x])", [("x", 1)]),
        ("(a [b) c]", [("a ", UP), ("b", 1), (" c", DOWN)]),
        ("(a)(b)", [("ab", UP)]),
        ("(a: b:1.5)", [("a: b", 1.5)]),
    ],
)
def test_brackets_weigh_what_they_hold(prompt: str, pieces: list[tuple[str, float]]) -> None:
    fragments = parse(prompt)
    assert [fragment.text for fragment in fragments] == [text for text, _ in pieces]
    assert [fragment.weight for fragment in fragments] == pytest.approx([w for _, w in pieces])


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        (r"\(x\)", "(x)"),
        (r"\[x\]", "[x]"),
        (r"\\", "\\"),
        (r"\\\(", r"\("),
        (r"\x", r"\x"),
        ("\\", "\\"),
        ("(", "("),
        (")", ")"),
        ("(x", "(x"),
        ("x]", "x]"),
        (")x(", ")x("),
        ("x:1.2)", "x:1.2)"),
        ("(x:1.2", "(x:1.2"),
        (r"(x\)", "(x)"),
        (":-)", ":-)"),
    ],
)
def test_escaped_and_unbalanced_brackets_are_text(prompt: str, text: str) -> None:
    assert parse(prompt) == (Fragment(text, 1.0),)


@pytest.mark.parametrize("number", ["abc", "", "1.2.3", "--1", "1e3", "nan", "inf", "١", "1,5"])
def test_what_is_no_number_is_text_in_a_plain_bracket(number: str) -> None:
    assert parse(f"(x:{number})") == (Fragment(f"x:{number}", UP),)


def test_square_brackets_take_no_number() -> None:
    assert parse("[x:2]") == (Fragment("x:2", DOWN),)


@pytest.mark.parametrize(
    ("prompt", "fragments"),
    [
        ("((x)", (Fragment("(", 1.0), Fragment("x", UP))),
        ("(x))", (Fragment("x", UP), Fragment(")", 1.0))),
        ("(x] y)", (Fragment("x] y", UP),)),
    ],
)
def test_a_lone_bracket_leaves_its_neighbours_alone(
    prompt: str, fragments: tuple[Fragment, ...]
) -> None:
    assert parse(prompt) == fragments


@given(st.text(alphabet="ab ,:.1-()[]\\"))
def test_fragments_are_not_empty_differ_from_their_neighbours_and_weigh_a_number(
    prompt: str,
) -> None:
    fragments = parse(prompt)
    assert all(fragment.text and math.isfinite(fragment.weight) for fragment in fragments)
    weights = [fragment.weight for fragment in fragments]
    assert all(one != other for one, other in pairwise(weights))


@given(st.text(alphabet="ab:1.()[]\\"))
def test_escaping_every_bracket_gives_the_text_back(text: str) -> None:
    escaped = "".join(f"\\{char}" if char in "()[]\\" else char for char in text)
    assert "".join(fragment.text for fragment in parse(escaped)) == text
    assert {fragment.weight for fragment in parse(escaped)} <= {1.0}


@pytest.mark.parametrize(
    "hostile",
    [
        "(" * 100_000,
        "([" * 50_000,
        "(" * 50_000 + "x" + ")" * 50_000,
        "(x:" * 50_000 + "1" + ":2)" * 50_000,
        ":1" * 50_000,
        "(x:" + "1" * 100_000,
        ":" + " " * 100_000,
        "\\" * 100_001,
    ],
    ids=lambda text: text[:6],
)
def test_hostile_prompts_take_linear_time_and_weigh_a_number(hostile: str) -> None:
    start = time.process_time()
    fragments = parse(hostile)
    assert time.process_time() - start < 3  # a quadratic parser takes minutes
    assert all(abs(fragment.weight) <= MAX_WEIGHT for fragment in fragments)
