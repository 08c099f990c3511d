"""From a text to words and their tokens, so that each token belongs to one word and each word is a place in the text.

A text is cut before it is tokenised, with any tokenizer: at white space, at punctuation, and at every Han character. A border of a
span can therefore never fall inside a token, in Chinese as little as in English, and training and use cut alike. For tokenizers of
the BERT family these are the tokens that they give by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import regex

__all__ = ["Reading", "TextReader", "words"]

# A Han character; a run of other letters, digits and marks; a single sign of punctuation.
_WORD = regex.compile(r"\p{Han}|[\w--[\p{Han}_]]+|[^\w\s]|_", regex.V1)
_REMEMBERED = 200_000


def words(text: str) -> list[tuple[int, int]]:
    """Return the words of a text as (start, end) in code points: runs of letters and digits, single Han characters, single signs."""
    return [match.span() for match in _WORD.finditer(text)]


@dataclass(frozen=True, slots=True)
class Reading:
    """The tokens of a text, or of a pair of texts. `kinds` is 1 in the second text of a pair; `firsts[i]` and `lasts[i]` are the tokens of `words[i]`.

    `begin` is the place of the text's own first token, behind the virtual ones.
    """

    tokens: tuple[int, ...]
    kinds: tuple[int, ...] = ()
    words: tuple[tuple[int, int], ...] = ()
    firsts: tuple[int, ...] = ()
    lasts: tuple[int, ...] = ()
    begin: int = 0

    def __len__(self) -> int:
        return len(self.tokens)


class TextReader:
    """Encodes texts for a model with a head. Control tokens that stand in a text are read as the characters that they are.

    `virtual` tokens (ids -1, -2, ...) begin every text: see `metier.models.methods.virtual`.
    """

    def __init__(self, tokenizer: Any, *, virtual: int = 0) -> None:
        self.tokenizer = tokenizer
        self.virtual = virtual
        self._opening = tuple(-1 - number for number in range(virtual))
        self._before, self._after = self._around()
        self._known: dict[str, tuple[int, ...]] = {}

    def _around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the tokens that the tokenizer puts before and after every text."""
        inner: list[int] = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        whole: list[int] = self.tokenizer("a")["input_ids"]
        place = next(start for start in range(len(whole)) if whole[start : start + len(inner)] == inner)
        return tuple(whole[:place]), tuple(whole[place + len(inner) :])

    def by_word(self, text: str) -> Reading:
        """Encode a text word by word."""
        places = words(text)
        tokens = [*self._opening, *self._before]
        firsts: list[int] = []
        lasts: list[int] = []
        end = 0
        for start, stop in places:
            firsts.append(len(tokens))
            # What stands before a word goes with it: many tokenizers mark a word's beginning by its space.
            tokens.extend(self._tokens(text[end:stop], text[start:stop]))
            lasts.append(len(tokens) - 1)
            end = stop
        tokens.extend(self._after)
        return Reading(tuple(tokens), words=tuple(places), firsts=tuple(firsts), lasts=tuple(lasts), begin=len(self._opening))

    def _tokens(self, piece: str, word: str) -> tuple[int, ...]:
        found = self._known.get(piece)
        if found is None:
            ids = self.tokenizer(piece, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            # Some tokenizers pass over characters that they do not know; a word without a token could have no answer.
            found = tuple(ids) or (self._unknown(word),)
            if len(self._known) < _REMEMBERED:
                self._known[piece] = found
        return found

    def _unknown(self, word: str) -> int:
        for token in (self.tokenizer.unk_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        raise ValueError(f"the tokenizer has no token for {word!r}")

    def whole(self, texts: Sequence[str], pairs: Sequence[str | None] | None = None) -> list[Reading]:
        """Encode texts as the tokenizer does by itself; where a text has a second one, both, the way the model takes pairs.

        A tokenizer without a separator (most decoders have none) gets both texts with an empty line between them.
        """
        seconds = [None] * len(texts) if pairs is None else list(pairs)
        separate = self.tokenizer.sep_token_id is not None
        found: list[Reading] = [Reading(())] * len(texts)
        alone = [index for index, second in enumerate(seconds) if second is None or not separate]
        if alone:
            joined = [texts[index] if seconds[index] is None else f"{texts[index]}\n\n{seconds[index]}" for index in alone]
            for index, ids in zip(alone, self.tokenizer(joined, split_special_tokens=True)["input_ids"], strict=True):
                found[index] = self._opened(ids)
        two = [index for index, second in enumerate(seconds) if second is not None and separate]
        if two:
            both = [texts[index] for index in two], [str(seconds[index]) for index in two]
            given = self.tokenizer(*both, return_token_type_ids=True, split_special_tokens=True)
            for index, ids, kinds in zip(two, given["input_ids"], given["token_type_ids"], strict=True):
                found[index] = self._opened(ids, kinds)
        return found

    def _opened(self, ids: Sequence[int], kinds: Sequence[int] = ()) -> Reading:
        before = (0,) * len(self._opening) if kinds else ()
        return Reading((*self._opening, *ids), (*before, *kinds), begin=len(self._opening))
