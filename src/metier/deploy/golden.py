"""The conversations that an export is compared on: from the dataset's validation split, or from a file of the user's own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from metier.artifacts import Artifact
from metier.errors import Fault, InputError
from metier.models.chat import Chat
from metier.records import Message, Role
from metier.shards import dataset_records

__all__ = ["ANSWER_TOKENS", "CONVERSATIONS", "chosen", "cut_at_once", "read_prompts"]

CONVERSATIONS = 8
"""So many conversations are compared where none are given; a wrong weight shows in every one of them."""
ANSWER_TOKENS = 32
"""Places of each answer that are compared: logits of 262,144 tokens at 8 x 32 places take 268 MB."""
LONGEST = 1024
"""Tokens of a prompt that is chosen; longer ones are passed over."""

MOST = 64
"""Prompts of the user's own at most: the logits of all of them are kept until they are compared."""

_ROLES = ("system", "user", "assistant")


def read_prompts(path: Path) -> list[tuple[Message, ...]]:
    """Return the prompts of a JSON Lines file: `{"prompt": text}` or `{"messages": [{"role", "content"}]}` a line. Raises InputError with all faults."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Fault(f"cannot be read ({error})", path, remedy="give a JSON Lines file in UTF-8")) from None
    found: list[tuple[Message, ...]] = []
    faults: list[Fault] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(_prompt(json.loads(line)))
        except ValueError as error:
            faults.append(Fault(str(error), path, number, remedy='write {"prompt": "..."} or {"messages": [{"role": "user", "content": "..."}]}'))
    if not faults and not found:
        faults.append(Fault("there is no prompt in it", path, remedy="write one JSON object a line"))
    if faults:
        raise InputError(faults)
    return found


def _prompt(value: Any) -> tuple[Message, ...]:
    if isinstance(value, dict) and isinstance(value.get("prompt"), str) and value["prompt"].strip():
        return (Message("user", value["prompt"]),)
    turns = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(turns, list) or not turns:
        raise ValueError("this line is no prompt")
    messages = []
    for turn in turns:
        if not isinstance(turn, dict) or turn.get("role") not in _ROLES or not isinstance(turn.get("content"), str):
            raise ValueError(f"a message has no role among {', '.join(_ROLES)}, or no content")
        messages.append(Message(cast("Role", turn["role"]), turn["content"]))
    if messages[-1].role == "assistant":
        raise ValueError("the last message is an answer; a prompt ends with a question")
    return tuple(messages)


def chosen(dataset: Artifact, chat: Chat, prompts: Sequence[tuple[Message, ...]] | None) -> list[tuple[str, tuple[Message, ...]]]:
    """Return the prompts to compare on with a name each: those given, else the first of the validation split by record id.

    Ids are digests, so that is a fixed random sample. Raises InputError if the dataset has nothing to ask, or a given prompt is too long.
    """
    if prompts is not None:
        if len(prompts) > MOST:
            raise InputError(f"--prompts: {len(prompts)} prompts\n    -> give at most {MOST}: a wrong weight shows in every one of them")
        long = [number for number, prompt in enumerate(prompts, 1) if len(chat.prompt(prompt)) > LONGEST]
        if long:
            raise InputError(f"--prompts: prompt {long[0]} has more than {LONGEST} tokens\n    -> give shorter ones: every place is compared anyway")
        return [(f"prompt {number}", tuple(prompt)) for number, prompt in enumerate(prompts, 1)]
    found = []
    for name, prompt in sorted(_asked(dataset)):
        if len(chat.prompt(prompt)) <= LONGEST:
            found.append((name, prompt))
        if len(found) == CONVERSATIONS:
            break
    if not found:
        raise InputError(
            f"the validation split of the dataset {dataset.digest[:12]} has no question of at most {LONGEST} tokens to compare the export on\n"
            "    -> give some with --prompts FILE, one JSON object a line"
        )
    return found


def _asked(dataset: Artifact) -> Iterator[tuple[str, tuple[Message, ...]]]:
    """Yield id and prompt of the validation records: what stands before the last answer."""
    for record in dataset_records(dataset, "validation"):
        answers = [place for place, message in enumerate(record.messages) if message.role == "assistant"]
        if answers and answers[-1] > 0:
            yield record.id, record.messages[: answers[-1]]


def cut_at_once(chat: Chat, messages: Sequence[Message]) -> bool:
    """Return whether a prompt tokenised at once, as other runtimes do, gives the tokens of training, which goes piece by piece."""
    text = chat.render(messages, answering=True)
    return list(chat.tokenizer(text, add_special_tokens=False)["input_ids"]) == chat.prompt(messages)
