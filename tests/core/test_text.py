"""Text for people stays on one printable line."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from abair.text import (
    describe_error,
    describe_fields,
    error_text,
    escape_markdown,
    format_measured,
    near_misses,
    one_line,
    quote_foreign,
)

ANY = st.text(st.characters(exclude_categories=())) | st.text("ab \t\n\x1b\x00\u2028\udcff", max_size=60)
held = settings(deadline=None, max_examples=150, derandomize=True)


def is_one_printable_line(text: str) -> bool:
    return text.isprintable() and len(text.splitlines()) <= 1


@given(ANY)
@held
def test_one_line_is_one_printable_line_and_idempotent(text: str) -> None:
    line = one_line(text)
    assert is_one_printable_line(line)
    assert one_line(line) == line
    assert line.encode().decode() == line  # no undecodable byte is left


@given(st.text(st.characters(categories=["L", "N", "P"]), min_size=1))
@held
def test_one_line_leaves_a_printable_word_as_it_is(word: str) -> None:
    assert one_line(word) == word


@given(ANY, st.integers(4, 40))
@held
def test_foreign_text_is_one_printable_line_within_its_length_and_idempotent(text: str, longest: int) -> None:
    line = quote_foreign(text, longest)
    assert is_one_printable_line(line)
    assert len(line) <= longest
    assert quote_foreign(line, longest) == line


@given(ANY)
@held
def test_errors_are_described_on_one_line_and_never_by_nothing(text: str) -> None:
    error = ValueError(text)
    for line in (error_text(error), describe_error(error)):
        assert line
        assert len(line.splitlines()) == 1
    assert describe_error(error).startswith("ValueError")


@pytest.mark.slow
@given(st.text("abc-", max_size=8), st.lists(st.text("abc-", max_size=8), max_size=6), st.integers(1, 5))
@settings(deadline=None, max_examples=80, derandomize=True)
def test_near_misses_are_known_names_and_an_exact_one_comes_first(name: str, known: list[str], count: int) -> None:
    found = near_misses(name, known, count)
    assert len(found) <= count
    assert set(found) <= set(known)
    assert near_misses(name, [*known, name], count)[0] == name


def test_a_wrong_field_is_told_with_its_name_what_was_found_and_what_was_expected() -> None:
    class Sizes(BaseModel):
        model_config = ConfigDict(extra="forbid")
        steps: int = Field(ge=1)
        crop: int

        @field_validator("crop")
        @classmethod
        def _even(cls, crop: int) -> int:
            if crop % 2:
                raise ValueError("expected an even number")
            return crop

    with pytest.raises(ValidationError) as caught:
        Sizes.model_validate({"steps": "many", "crop": 3, "rank": 4})
    assert describe_fields(caught.value, lambda place: f"--{place[0]}") == (
        "--steps: found 'many', expected a valid integer; --crop: found 3, expected an even number; "
        "--rank: found 4; there is no such setting"
    )


@given(st.text(st.sampled_from("ab *_`[]()<>&~!\\#:/;="), max_size=40))
def test_escaped_text_within_a_paragraph_is_shown_as_it_is(text: str) -> None:
    page = MarkdownIt("gfm-like", {"linkify": False}).parse(f"x {escape_markdown(text)} y")
    assert [token.type for token in page] == ["paragraph_open", "inline", "paragraph_close"]
    assert {child.type for child in page[1].children or []} <= {"text", "text_special"}
    assert "".join(child.content for child in page[1].children or []) == f"x {text} y"


@pytest.mark.parametrize(("value", "text"), [(0.126, "0.13"), (-31.5, "-31.50"), (1.7e308, "1.7e+308")])
def test_a_measured_number_is_short_whatever_it_is(value: float, text: str) -> None:
    assert format_measured(value) == text
