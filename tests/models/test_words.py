from __future__ import annotations

from itertools import pairwise

import pytest

from metier.models import Base, load_tokenizer
from metier.models.words import TextReader, words

TEXTS = ["The red pen (12.5 mg) isn't on the left-hand table.", "红笔在左边，绿灯3盏。", "mixed 红pen灯_2在 table", "e\u0301te\u0301 naïve \U0001f41d"]


@pytest.mark.parametrize("text", TEXTS)
def test_words_cover_everything_but_white_space_and_never_overlap(text: str) -> None:
    places = words(text)
    assert "".join(text[start:end] for start, end in places) == "".join(text.split())
    assert all(first[1] <= second[0] for first, second in pairwise(places))


def test_every_han_character_is_a_word_and_a_run_of_letters_is_one() -> None:
    text = "红笔2支 red_pen"
    assert [text[start:end] for start, end in words(text)] == ["红", "笔", "2", "支", "red", "_", "pen"]


def test_word_by_word_an_encoder_reads_what_its_tokenizer_gives(encoder: Base) -> None:
    tokenizer = load_tokenizer(encoder)
    reader = TextReader(load_tokenizer(encoder))
    for text in TEXTS[:3]:
        reading = reader.by_word(text)
        assert list(reading.tokens) == tokenizer(text)["input_ids"]
        assert reader.whole([text])[0].tokens == reading.tokens


@pytest.mark.parametrize("kind", ["base", "encoder"])
def test_each_token_belongs_to_one_word(kind: str, request: pytest.FixtureRequest) -> None:
    tokenizer = load_tokenizer(request.getfixturevalue(kind))
    reader = TextReader(tokenizer)
    for text in TEXTS:
        reading = reader.by_word(text)
        assert len(reading.firsts) == len(reading.lasts) == len(reading.words) == len(words(text))
        for (start, end), first, last, following in zip(
            reading.words, reading.firsts, reading.lasts, [*reading.firsts[1:], reading.lasts[-1] + 1], strict=True
        ):
            assert following == last + 1
            if kind == "base":
                assert tokenizer.decode(list(reading.tokens[first : last + 1])).strip() == text[start:end]


def test_control_tokens_in_a_text_are_plain_characters(encoder: Base, base: Base) -> None:
    for found, token in ((encoder, "[SEP]"), (base, "<eos>")):
        tokenizer = load_tokenizer(found)
        number = tokenizer.convert_tokens_to_ids(token)
        reader = TextReader(tokenizer)
        ends = reader.by_word("a").tokens.count(number)
        assert reader.by_word(f"a {token} b").tokens.count(number) == ends
        assert reader.whole([f"a {token} b"])[0].tokens.count(number) == ends


def test_a_pair_is_read_as_the_tokenizer_pairs_texts(encoder: Base, base: Base) -> None:
    tokenizer = load_tokenizer(encoder)
    (pair, alone) = TextReader(load_tokenizer(encoder)).whole(["red pen", "红笔"], ["green pen", None])
    given = tokenizer("red pen", "green pen", return_token_type_ids=True)
    assert list(pair.tokens) == given["input_ids"]
    assert list(pair.kinds) == given["token_type_ids"]
    assert alone.kinds == ()
    (joined,) = TextReader(load_tokenizer(base)).whole(["red pen"], ["green pen"])
    assert load_tokenizer(base).decode(list(joined.tokens)) == "red pen\n\ngreen pen"


def test_a_word_that_a_tokenizer_passes_over_still_has_a_token(encoder: Base) -> None:
    reading = TextReader(load_tokenizer(encoder)).by_word("a \ufffd b")
    assert len(reading.firsts) == 3
    assert len(set(reading.firsts)) == 3
