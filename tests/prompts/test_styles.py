"""Style presets: every name the hosted endpoint's SDK knew, in wording that suits a small crop."""

from __future__ import annotations

import unicodedata

import pytest

from afterdetail.errors import UnknownName
from afterdetail.prompts import styles
from afterdetail.prompts.weights import parse

# The names of the SDK (octoai 1.11.0, image_gen/types/sdxl_styles.py), in its order.
SDK_NAMES = """
base|3d-model|analog-film|anime|cinematic|comic-book|Craft Clay|modeling-compound|digital-art
|enhance|fantasy-art|isometric|line-art|low-poly|neon-punk|origami|photographic|pixel-art
|tile-texture|Advertising|Food Photography|Real Estate|Abstract|Cubist|Graffiti|Hyperrealism
|Impressionist|Pointillism|Pop Art|Psychedelic|Renaissance|Steampunk|Surrealist|Typography
|Watercolor|Fighting Game|GTA|Super Mario|Minecraft|Pokémon|Retro Arcade|Retro Game
|RPG Fantasy Game|Strategy Game|Street Fighter|Legend of Zelda|Architectural|Disco|Dreamscape
|Dystopian|Fairy Tale|Gothic|Grunge|Horror|Minimalist|Monochrome|Nautical|Space|Stained Glass
|Techwear Fashion|Tribal|Zentangle|Collage|Flat Papercut|Kirigami|Paper Mache|Paper Quilling
|Papercut Collage|Papercut Shadow Box|Stacked Papercut|Thick Layered Papercut|Alien|Film Noir
|HDR|Long Exposure|Neon Noir|Silhouette|Tilt-Shift
"""
NAMES = tuple(name.strip() for name in SDK_NAMES.split("|"))
OTHERS = [name for name in NAMES if name != "base"]


def test_the_names_are_those_of_the_sdk() -> None:
    assert styles.names() == NAMES
    assert len(NAMES) == 78


@pytest.mark.parametrize("prompt", ["", "  ", "a (face", "a face, "])
def test_base_changes_nothing(prompt: str) -> None:
    assert styles.apply("base", prompt, prompt) == (prompt, prompt)


@pytest.mark.parametrize("name", OTHERS)
def test_a_style_keeps_the_prompts_and_adds_to_both(name: str) -> None:
    prompt, negative = styles.apply(name, "a (smiling:1.2) face", "blurry")
    assert prompt.split(", ").count("a (smiling:1.2) face") == 1
    assert negative.startswith("blurry, ")
    assert len(prompt.split(", ")) >= 4


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("empty", ["", " ", ", "])
def test_an_empty_prompt_leaves_no_dangling_comma(name: str, empty: str) -> None:
    for text in styles.apply(name, empty, empty):
        assert all(part == part.strip() != "" for part in text.split(", "))
        assert "{" not in text
        assert not text.startswith(",")
        assert not text.endswith(",")


@pytest.mark.parametrize("name", OTHERS)
def test_no_style_has_brackets_a_users_lone_bracket_could_pair_with(name: str) -> None:
    style = styles.find(name)
    words = style.prompt.replace("{prompt}", "") + style.negative
    assert [fragment.weight for fragment in parse(words)] == [1.0]
    assert not set("()[]{}\\:") & set(words)


def test_every_wording_is_its_own() -> None:
    wordings = {styles.find(name).prompt for name in NAMES}
    assert len(wordings) == len(NAMES)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("BASE", "base"),
        ("Anime", "anime"),
        ("craft clay", "Craft Clay"),
        ("hdr", "HDR"),
        ("POKÉMON", "Pokémon"),
        (unicodedata.normalize("NFD", "pokémon"), "Pokémon"),
        (unicodedata.normalize("NFD", "POKÉMON"), "Pokémon"),
    ],
)
def test_case_and_unicode_form_do_not_matter(given: str, name: str) -> None:
    assert styles.find(given).name == name


@pytest.mark.parametrize(
    ("given", "closest"), [("", "3d-model"), ("animee", "anime"), ("Pokemon", "Pokémon")]
)
def test_an_unknown_name_is_answered_with_the_closest(given: str, closest: str) -> None:
    with pytest.raises(UnknownName, match=closest) as caught:
        styles.apply(given, "a face", "")
    assert caught.value.field == "style_preset"


def test_braces_of_the_user_are_text() -> None:
    prompt, _ = styles.apply("anime", "{prompt} {x}", "")
    assert "{prompt} {x}" in prompt
