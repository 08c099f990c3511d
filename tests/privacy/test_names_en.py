"""English names by lexicon and context, and what must not be taken for one."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metier.privacy.names import EnglishNames

TAGGER = EnglishNames()


def names(text: str) -> list[str]:
    return [span.text for span in TAGGER.tag([text])[0]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Martha Collins is a 50-year-old female.", ["Martha Collins"]),
        ("Please call Dr. Nguyen-Smith or Mr. O'Brien.", ["Nguyen-Smith", "O'Brien"]),
        ("My name is Rubija.", ["Rubija"]),
        ("He saw Will Brown-Garcia yesterday.", ["Will Brown-Garcia"]),
        ("J. R. Simmons signed the note.", ["J. R. Simmons"]),
        ("Name: GARCIA, MARIA T.", ["GARCIA, MARIA T"]),
        ("Signed by Ludwig van der Berg, Jr.", ["Ludwig van der Berg, Jr"]),
        ("hi, andrew, how are you?", ["andrew"]),
        ("i'm dr. flores .", ["flores"]),
        ("Sarah's results and those of Krisztián Szöllösy.", ["Sarah", "Krisztián Szöllösy"]),
        ("The founders were Monjeau, Kevin and Reed.", ["Monjeau", "Kevin", "Reed"]),
        ("The lender is Zhang Jilun.", ["Zhang Jilun"]),
    ],
)
def test_names_in_many_writings_are_found(text: str, expected: list[str]) -> None:
    assert names(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Parkinson's disease and Hodgkin lymphoma run in the family.",
        "He has Crohn's disease; Babinski sign is negative.",
        "She takes Tylenol, Norvasc and Lipitor.",
        "Will you come in May or in August?",
        "They moved from Paris to Austin, then to Hong Kong.",
        "He works for Johnson & Johnson and for Wells Fargo.",
        "The Mayo Clinic is on Johnson Street.",
        "ARTICLE I DEFINITIONS",
        "Patient: Yeah, I had my gallbladder removed.",
        "it was a grace to hope for joy in may",
        "",
    ],
)
def test_words_that_are_names_elsewhere_are_left_alone(text: str) -> None:
    assert names(text) == []


@given(st.text(max_size=80))
def test_offsets_hold_and_spans_do_not_overlap(text: str) -> None:
    spans = TAGGER.tag([text])[0]
    assert all(text[span.start : span.end] == span.text for span in spans)
    assert all(left.end <= right.start for left, right in itertools.pairwise(spans))
