"""The step: examples -> new questions -> passages -> answers -> checks -> second questions, kept piece by piece."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from metier.config import settings_digest
from metier.digest import canonical_json, digest_of
from metier.errors import Fault, InputError
from metier.prepare.generate.check import answer_refused, prompts, question_refused
from metier.prepare.generate.knowledge import Knowledge, Passage
from metier.prepare.generate.settings import GenerateSettings
from metier.prepare.writers import Writer
from metier.records import Drop, Message, Record, Source, identify, record_from_dict, record_to_dict
from metier.store import write_atomically

__all__ = ["generate", "report"]

_LANGUAGES = ("zh", "en")


@dataclass(slots=True)
class _Draft:
    """One conversation on its way: its example, the turns so far, the passages they rest on, why it was given up or why it was not led on."""

    example: Record
    number: int
    asked: str
    question: str = ""
    turns: tuple[tuple[str, str], ...] = ()
    passages: tuple[Passage, ...] = ()
    found: tuple[Passage, ...] = ()
    reason: str | None = None
    ended: str | None = None

    @property
    def language(self) -> str:
        return self.example.language or ""


def generate(
    examples: Sequence[Record],
    knowledge: Knowledge,
    writer: Writer,
    settings: GenerateSettings,
    *,
    folder: Path,
    identifies: Callable[[str], bool] | None = None,
) -> Iterator[Record | Drop]:
    """Yield new conversations and, for each that was given up, a drop with its reason.

    `examples` are training records with a question, in Chinese or English. A new record's parents are its example and its passages; its
    metadata names the writer and the digest of the prompts; it belongs to its example's group and subject. `folder` keeps every finished
    piece: the same call after an interruption goes on from there, and gives the same as without one. `identifies` says whether a
    text holds a personal identifier; a writer that sends text away needs it, and gets no example or passage that holds one. Raises InputError
    without it, ModelError as the writer does.
    """
    if writer.leaves and identifies is None:
        raise InputError(Fault("the writer sends text away, and nothing looks for identifiers in it", key="prepare.generate", remedy="give `identifies`"))
    work = _Work(knowledge, writer, settings, identifies)
    usable = [example for example in examples if example.language in _LANGUAGES and _question(example)]
    for number, start in enumerate(range(0, len(usable), settings.batch)):
        piece = usable[start : start + settings.batch]
        path = folder / f"{number:05d}-{work.name(piece)}.jsonl"
        if not path.exists():
            write_atomically(path, b"".join(_line(entry) + b"\n" for entry in work.piece(piece)))
        yield from _entries(path)


def report(entries: Iterable[Record | Drop]) -> dict[str, Any]:
    """Return how many conversations there are, their turns and languages, and how many were given up, by reason."""
    kept: list[Record] = []
    reasons: Counter[str] = Counter()
    for entry in entries:
        if isinstance(entry, Drop):
            reasons[entry.reason.split(":")[0]] += 1
        else:
            kept.append(entry)
    turns = Counter(sum(message.role == "user" for message in record.messages) for record in kept)
    return {
        "records": len(kept),
        "turns": {str(count): times for count, times in sorted(turns.items())},
        "languages": dict(sorted(Counter(record.language or "unknown" for record in kept).items())),
        "drops": dict(sorted(reasons.items())),
    }


def _question(record: Record) -> str:
    return next((message.content for message in record.messages if message.role == "user"), "")


def _line(entry: Record | Drop) -> bytes:
    return canonical_json({"drop": asdict(entry)} if isinstance(entry, Drop) else {"record": record_to_dict(entry)})


def _entries(path: Path) -> Iterator[Record | Drop]:
    for line in path.read_bytes().splitlines():
        row = json.loads(line)
        if "record" in row:
            yield record_from_dict(row["record"])
        else:
            source = row["drop"].pop("source")
            yield Drop(**row["drop"], source=None if source is None else Source(**source))


class _Work:
    """What every piece of the work shares."""

    def __init__(self, knowledge: Knowledge, writer: Writer, settings: GenerateSettings, identifies: Callable[[str], bool] | None) -> None:
        self._knowledge, self._writer, self._settings, self._identifies = knowledge, writer, settings, identifies
        self._prompts = digest_of(prompts())

    def name(self, examples: Sequence[Record]) -> str:
        """Return the digest of everything that a piece depends on."""
        parts = [settings_digest(self._settings), self._knowledge.digest, self._writer.name, self._writer.digest, self._prompts]
        return digest_of([*parts, [record_to_dict(example) for example in examples]])[:24]

    def piece(self, examples: Sequence[Record]) -> list[Record | Drop]:
        """Return what becomes of some examples: for each as many conversations or drops as variants are asked for."""
        drafts = [_Draft(example, number, _question(example)) for example in examples for number in range(self._settings.variants)]
        for draft in drafts:
            if self._writer.leaves and self._identifies is not None and self._identifies(draft.asked):
                draft.reason = "identifier"
        self._questions(drafts)
        self._answers(drafts)
        longer = [draft for draft in drafts if draft.reason is None and self._goes_on(draft)]
        self._second_turn(longer)
        return self._unique([self._record(draft) if draft.reason is None else self._drop(draft) for draft in drafts])

    def _ask(self, drafts: Sequence[_Draft], step: str, *, temperature: float, fill: Callable[[_Draft], dict[str, str]], turn: int) -> list[str]:
        asked = []
        for draft in drafts:
            text = prompts()[step][draft.language]
            for name, value in fill(draft).items():
                text = text.replace("{" + name + "}", value)
            asked.append((Message("user", text),))
        if not asked:
            return []
        seed = int(digest_of([self._settings.seed, step, turn, [(draft.example.id, draft.number) for draft in drafts]])[:8], 16)
        return [
            _first(text) if step != "answer" else text.strip()
            for text in self._writer.write(asked, maximum_tokens=self._settings.maximum_tokens, temperature=temperature, seed=seed)
        ]

    def _questions(self, drafts: Sequence[_Draft]) -> None:
        open_ = [draft for draft in drafts if draft.reason is None]
        texts = self._ask(open_, "question", temperature=self._settings.temperature, fill=lambda draft: {"example": draft.asked}, turn=1)
        for draft, text in zip(open_, texts, strict=True):
            draft.question = text
            draft.reason = question_refused(text, draft.asked, self._settings, language=draft.language, identifies=self._identifies)

    def _answers(self, drafts: Sequence[_Draft], *, turn: int = 1) -> None:
        for draft in drafts:
            if draft.reason is None:
                query = draft.question if turn == 1 else f"{draft.turns[-1][0]}\n{draft.question}"
                found = self._knowledge.find(query, self._settings.passages, lowest=self._settings.lowest_score)
                draft.found = tuple(passage for passage, _ in found if not (self._writer.leaves and self._identifies and self._identifies(passage.text)))
                draft.reason = None if draft.found else "no_passage"
        open_ = [draft for draft in drafts if draft.reason is None]

        def fill(draft: _Draft) -> dict[str, str]:
            return {"question": draft.question, "passages": "\n".join(passage.text for passage in draft.found)}

        for draft, text in zip(open_, self._ask(open_, "answer", temperature=0.0, fill=fill, turn=turn), strict=True):
            held = [passage.text for passage in draft.found]
            draft.reason = answer_refused(text, draft.question, held, self._settings, language=draft.language, identifies=self._identifies)
            if draft.reason is None:
                draft.turns = (*draft.turns, (draft.question, text))
                draft.passages = tuple(dict.fromkeys((*draft.passages, *draft.found)))

    def _goes_on(self, draft: _Draft) -> bool:
        return int(digest_of([self._settings.seed, "follow_up", draft.example.id, draft.number])[:8], 16) / 2**32 < self._settings.follow_up

    def _second_turn(self, drafts: Sequence[_Draft]) -> None:
        """Lead conversations on by one question; one whose second turn is not good enough stays as it was."""
        before = [draft.question for draft in drafts]

        def fill(draft: _Draft) -> dict[str, str]:
            return {"question": draft.turns[-1][0], "answer": draft.turns[-1][1]}

        texts = self._ask(drafts, "follow_up", temperature=self._settings.temperature, fill=fill, turn=2)
        for draft, text in zip(drafts, texts, strict=True):
            draft.question = text
            draft.reason = question_refused(text, draft.turns[-1][0], self._settings, language=draft.language, identifies=self._identifies)
        self._answers(drafts, turn=2)
        for draft, question in zip(drafts, before, strict=True):
            draft.question, draft.reason, draft.ended = question, None, draft.reason

    def _record(self, draft: _Draft) -> Record:
        messages = tuple(message for asked, said in draft.turns for message in (Message("user", asked), Message("assistant", said, learn=True)))
        example = draft.example
        metadata = {
            "generate": {
                "writer": self._writer.name,
                "writer_digest": self._writer.digest,
                "prompts": self._prompts,
                "intent": example.label or str(example.metadata.get("intent", "")) or draft.asked[:60],
                "passages": [passage.id for passage in draft.passages],
                "variant": draft.number,
                **({"second_turn": draft.ended} if draft.ended else {}),
            }
        }
        made = replace(
            example, id="", text="", messages=messages, spans=(), source=draft.passages[0].source or example.source, group=example.group or example.id,
            parents=(example.id, *(passage.id for passage in draft.passages)), metadata=metadata,
        )  # fmt: skip
        return replace(made, id=identify(made))

    def _drop(self, draft: _Draft) -> Drop:
        said = {"question": draft.question, "turns": [list(turn) for turn in draft.turns], "example": draft.example.id, "variant": draft.number}
        content = "" if draft.reason == "identifier" else json.dumps(said, ensure_ascii=False, sort_keys=True)
        record_id = digest_of(["generate", draft.example.id, draft.number, draft.question])[:32]
        return Drop(record_id, "generate", draft.reason or "", draft.example.source, content)

    def _unique(self, entries: Sequence[Record | Drop]) -> list[Record | Drop]:
        """Give up conversations that ask what another of the piece asks already."""
        seen: set[str] = set()
        kept: list[Record | Drop] = []
        for entry in entries:
            if isinstance(entry, Record):
                question = entry.messages[0].content
                if question in seen:
                    kept.append(
                        Drop(entry.id, "generate", "repeated_question", entry.source, json.dumps(record_to_dict(entry), ensure_ascii=False, sort_keys=True))
                    )
                    continue
                seen.add(question)
            kept.append(entry)
        return kept


def _first(text: str) -> str:
    """Return the first line that says something: a model often goes on with more examples of its own."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
