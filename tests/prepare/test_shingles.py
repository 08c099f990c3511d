"""Folding by table is folding; shingles are those of each text alone, whatever stands beside it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metier.prepare.compare import fold
from metier.prepare.shingles import Shingling, distinct, folded, shingle_sets

MIXED = st.text(alphabet="ab1 ,高血压，５Ａ \u3000é\u0301ﬁ①\U00020000😀한ㅏمرحبا\n", max_size=24)


def unfolded(codes):
    return ["".join(map(chr, codes.points[codes.offsets[place] : codes.offsets[place + 1]].tolist())) for place in range(len(codes.offsets) - 1)]


def naive(text, cut):
    """Return the shingles of a text as the docstring words them, with plain strings."""
    text = fold(text)
    han = [letter in "々〇" or "\u3400" <= letter <= "\u4dbf" or "\u4e00" <= letter <= "\u9fff" or letter >= "\U00020000" for letter in text]
    units = list(text)
    found = set()
    for place in range(len(units)):
        size = cut.han if any(han[place : place + cut.han]) else cut.other
        if place + size <= len(units):
            found.add((size, tuple(units[place : place + size])))
    return found or {tuple(units)}


@settings(max_examples=300)
@given(st.lists(st.one_of(MIXED, st.text(max_size=8)), max_size=5))
def test_folding_by_table_is_folding(texts):
    assert unfolded(folded(texts)) == [fold(text) for text in texts]


@settings(max_examples=200)
@given(st.lists(MIXED, min_size=1, max_size=5), st.integers(2, 6), st.integers(2, 15))
def test_shingles_are_those_of_each_text_alone(texts, han, other):
    cut = Shingling(han, other)
    sets = [set(found.tolist()) for found in distinct(*shingle_sets(texts, cut))]
    expected = [naive(text, cut) for text in texts]
    assert [len(found) for found in sets] == [len(found) for found in expected]
    for left, one in zip(expected, sets, strict=True):
        for right, other_set in zip(expected, sets, strict=True):
            assert len(one & other_set) == len(left & right)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("The patient denies chest pain or fever.", 3),
        ("one two three four five", 1),
        ("one two", 1),
        ("高血压患者宜低盐", 4),
        ("口服 metformin 0.5 g 每日两次", 6),
        ("?!", 1),
        ("", 1),
    ],
)
def test_words_are_units_and_every_han_letter_is_one(text, count):
    assert len(distinct(*shingle_sets([text], Shingling(5, 5, "words")))[0]) == count


def test_punctuation_and_case_do_not_matter_to_words():
    cut = Shingling(5, 3, "words")
    (one, other, third) = distinct(*shingle_sets(["Take it, twice a day!", "take it twice: a day", "take it twice a week"], cut))
    assert one.tolist() == other.tolist()
    assert len(set(one.tolist()) & set(third.tolist())) == 2


@settings(max_examples=150)
@given(st.lists(MIXED, min_size=2, max_size=5), st.sampled_from([Shingling(), Shingling(5, 5, "words")]))
def test_a_text_has_the_same_shingles_alone_and_in_company(texts, cut):
    together = distinct(*shingle_sets(texts, cut))
    for text, found in zip(texts, together, strict=True):
        assert distinct(*shingle_sets([text], cut))[0].tolist() == found.tolist()


def test_a_mixed_text_is_cut_by_the_script_at_each_place():
    cut = Shingling(2, 4)
    assert len(distinct(*shingle_sets(["高血压abcdef"], cut))[0]) == 6  # 高血 血压 压a, abcd bcde cdef


def test_no_texts_have_no_shingles():
    hashes, offsets = shingle_sets([])
    assert (len(hashes), offsets.tolist()) == (0, [0])
