"""From messages to token ids and a loss mask. Training, evaluation and serving all go through here, so they cannot differ.

The tokenizer's own chat template is used; a base model without one gets Metier's plain template, stored in its tokenizer. A
conversation is tokenised piece by piece: what stands before each answer, then the answer with its end. The tokens before an
answer are therefore the same whether the answer follows (training) or is to be generated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from metier.digest import digest_of
from metier.errors import ModelError
from metier.records import Message

__all__ = ["PLAIN_TEMPLATE", "Chat", "Encoded", "template_digest"]

PLAIN_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'User:\\n' + message['content'] + '\\n\\n' }}"
    "{% else %}{{ 'Assistant:\\n' + message['content'] + eos_token }}"
    "{% if not loop.last %}{{ '\\n\\n' }}{% endif %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:\\n' }}{% endif %}"
)


def template_digest(template: str) -> str:
    """Return the digest of a chat template: what serving compares with what training used."""
    return digest_of(template)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of a conversation, and for each whether the model is trained to predict it."""

    tokens: tuple[int, ...]
    learn: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.tokens)


class Chat:
    """Renders and encodes conversations for one tokenizer (any fast tokenizer of transformers)."""

    def __init__(self, tokenizer: Any, *, virtual: int = 0) -> None:
        self.tokenizer = tokenizer
        self.virtual = virtual
        """Virtual tokens (ids -1, -2, ...) that begin every conversation: see `metier.models.methods.virtual`."""
        if tokenizer.eos_token_id is None:
            raise ModelError("the tokenizer has no end-of-sequence token, so an answer could never end\n    -> use a tokenizer with eos_token")
        if not tokenizer.chat_template:
            tokenizer.chat_template = PLAIN_TEMPLATE
        self._special = _by_beginning(text for text in tokenizer.get_added_vocab() if text and not text.isspace())
        self.stop_tokens = self._find_stop_tokens()
        self.broken_up = 0
        """How many control tokens were found in contents so far and broken up there."""

    @property
    def own_template(self) -> bool:
        """Whether the model came with a chat template: one that did not was hardly ever taught to converse."""
        return bool(self.tokenizer.chat_template != PLAIN_TEMPLATE)

    @property
    def template(self) -> str:
        """The chat template."""
        return str(self.tokenizer.chat_template)

    @property
    def digest(self) -> str:
        """Digest of the template."""
        return template_digest(self.template)

    def _find_stop_tokens(self) -> frozenset[int]:
        answer = self._answer([{"role": "user", "content": "a"}], "b")
        tokens = self._tokenize(answer)
        special = set(self.tokenizer.get_added_vocab().values()) | {self.tokenizer.eos_token_id}
        ends = [token for token in tokens if token in special]
        if not ends:
            raise ModelError("the chat template does not end an answer with a special token, so the model could not learn to stop")
        return frozenset({self.tokenizer.eos_token_id, ends[-1]})

    def render(self, messages: Sequence[Message], *, answering: bool = False) -> str:
        """Return the text of a conversation; `answering` adds what stands before the next answer."""
        return self._render(self.plain(messages), answering)

    def plain(self, messages: Sequence[Message]) -> list[dict[str, str]]:
        """Return messages as templates take them, with control tokens inside of contents broken up."""
        return [{"role": message.role, "content": self._neutral(message.content)} for message in messages]

    def _neutral(self, content: str) -> str:
        # Control tokens inside data must not act as control tokens: a word joiner breaks them up and stays readable.
        begun = [tokens for beginning, tokens in self._special.items() if beginning in content]
        for token in sorted(chain.from_iterable(begun), key=len, reverse=True):
            if token in content:
                self.broken_up += content.count(token)
                content = content.replace(token, f"{token[:1]}\u2060{token[1:]}")
        return content

    def _render(self, messages: list[dict[str, str]], answering: bool) -> str:
        try:
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answering))
        except Exception as error:  # noqa: BLE001 - templates are programs of the model's author and raise what they like
            raise ModelError(f"the base model's chat template cannot render this conversation: {error}") from None

    def _answer(self, before: list[dict[str, str]], content: str, start: str | None = None) -> str:
        """Return the text of an answer to these messages; `start` is what stands before it, where that is known."""
        start = self._render(before, True) if start is None else start
        whole = self._render([*before, {"role": "assistant", "content": content}], False)
        if not whole.startswith(start):
            raise ModelError("the base model's chat template renders a question differently once it is answered, so training and serving would differ")
        return whole[len(start) :]

    def _tokenize(self, text: str) -> list[int]:
        tokens: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return tokens

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of a conversation up to where the next answer begins."""
        (encoded,) = self._encode([self._pieces(self.plain(messages), [False] * len(messages), answering=True)])
        return list(encoded.tokens)

    def answer(self, messages: Sequence[Message], content: str) -> list[int]:
        """Return the tokens of an answer to these messages, its stop token included, as training encodes it."""
        return self._until_stop(self._tokenize(self._answer(self.plain(messages), self._neutral(content))))

    def encode(self, messages: Sequence[Message]) -> Encoded:
        """Return tokens and loss mask of a conversation: of a learnt message the content and its stop token are learnt."""
        return self.encode_all([messages])[0]

    def encode_all(self, conversations: Sequence[Sequence[Message]]) -> list[Encoded]:
        """Return tokens and loss mask of each conversation; the tokenizer is given all of them at once, which is much quicker than one by one."""
        return self._encode([self._pieces(self.plain(messages), [message.learn for message in messages], answering=False) for messages in conversations])

    def encode_text(self, text: str, maximum: int) -> list[Encoded]:
        """Return a plain text as windows of at most `maximum` tokens, one after the other: nothing of it is left out.

        Every token is learnt, and at the end that the text ends. Each window begins as texts do for this tokenizer, so a window of a text's
        middle looks like a text of its own. Raises ModelError if a window would have no room for a token of the text.
        """
        opening = [-1 - number for number in range(self.virtual)]
        opening += [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
        room = maximum - len(opening)
        if room < 1:
            raise ModelError(f"{maximum} tokens leave no room for a text\n    -> raise training.batch.maximum_tokens")
        tokens = [*self._tokenize(self._neutral(text)), self.tokenizer.eos_token_id]
        pieces = [tokens[start : start + room] for start in range(0, len(tokens), room)]
        return [Encoded((*opening, *piece), (False,) * len(opening) + (True,) * len(piece)) for piece in pieces]

    def _pieces(self, messages: list[dict[str, str]], learnt: Sequence[bool], *, answering: bool) -> list[tuple[str, bool]]:
        """Return the texts that a conversation is tokenised as, and which of them are learnt."""
        pieces: list[tuple[str, bool]] = []
        done = ""
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self._render(messages[:index], True)
            answer = self._answer(messages[:index], message["content"], before)
            pieces += [(self._rest(before, done), False), (answer, learnt[index])]
            done = before + answer
        if answering or messages[-1]["role"] != "assistant":
            pieces.append((self._rest(self._render(messages, answering), done), False))
        return [piece for piece in pieces if piece[0]]

    def _encode(self, conversations: Sequence[Sequence[tuple[str, bool]]]) -> list[Encoded]:
        texts = [text for pieces in conversations for text, _ in pieces]
        tokenised: Iterator[list[int]] = iter(self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else [])
        found = []
        for pieces in conversations:
            tokens: list[int] = [-1 - number for number in range(self.virtual)]
            learn: list[bool] = [False] * self.virtual
            for _, learnt in pieces:
                piece = next(tokenised)
                kept = len(self._until_stop(piece)) if learnt else 0
                tokens.extend(piece)
                learn.extend([True] * kept + [False] * (len(piece) - kept))
            found.append(Encoded(tuple(tokens), tuple(learn)))
        return found

    def _rest(self, text: str, done: str) -> str:
        if not text.startswith(done):
            raise ModelError("the base model's chat template changes earlier turns of a conversation, so they cannot be learnt turn by turn")
        return text[len(done) :]

    def _until_stop(self, piece: list[int]) -> list[int]:
        for index in range(len(piece) - 1, -1, -1):
            if piece[index] in self.stop_tokens:
                return piece[: index + 1]
        raise ModelError("an answer lost its stop token while it was encoded")


def _by_beginning(tokens: Iterable[str]) -> dict[str, list[str]]:
    """Return tokens by their first two characters: a text in which none of these stands is soon done with, however many tokens there are."""
    found: dict[str, list[str]] = {}
    for token in tokens:
        found.setdefault(token[:2], []).append(token)
    return found
