"""The step: examples -> new questions -> passages -> answers -> checks -> second questions, kept piece by piece."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from metier.config import settings_digest
from metier.digest import digest_of
from metier.errors import Fault, InputError
from metier.prepare.asking import ask, spoilt, told
from metier.prepare.compare import bare
from metier.prepare.generate.check import answer_refused, covered, prompts, question_refused
from metier.prepare.generate.knowledge import Knowledge, Passage
from metier.prepare.generate.settings import GenerateSettings
from metier.prepare.pieces import kept
from metier.prepare.writers import Writer
from metier.records import Drop, Message, Record, identify, record_to_dict

__all__ = ["expected", "generate", "report"]

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
    answer: str = ""
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
    usable = _usable(examples)
    seen = {bare(_question(example)) for example in usable}
    for number, start in enumerate(range(0, len(usable), settings.batch)):
        piece = usable[start : start + settings.batch]
        for entry in kept(folder / f"{number:05d}-{work.name(piece)}.jsonl", partial(work.piece, piece)):
            question = bare(entry.messages[0].content) if isinstance(entry, Record) else ""
            yield _repeated(entry) if isinstance(entry, Record) and question in seen else entry
            seen.add(question)


def expected(examples: Sequence[Record], settings: GenerateSettings) -> int:
    """Return how many conversations and drops together `generate` yields for these examples."""
    return len(_usable(examples)) * settings.variants


def _usable(examples: Sequence[Record]) -> list[Record]:
    return [example for example in examples if example.language in _LANGUAGES and _question(example)]


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
        return [self._record(draft) if draft.reason is None else self._drop(draft) for draft in drafts]

    def _ask(self, drafts: Sequence[_Draft], step: str, *, temperature: float, fill: Callable[[_Draft], dict[str, str]], turn: int) -> list[str]:
        """Return what is written for each draft; one whose text is no writing at all gets its reason."""
        if not drafts:
            return []
        tasks, values = [prompts()[step][draft.language] for draft in drafts], [fill(draft) for draft in drafts]
        seed = int(digest_of([self._settings.seed, step, turn, [(draft.example.id, draft.number) for draft in drafts]])[:8], 16)
        asked = [ask(task, value) for task, value in zip(tasks, values, strict=True)]
        found = self._writer.write(asked, maximum_tokens=self._settings.maximum_tokens, temperature=temperature, seed=seed)
        texts = []
        for draft, task, value, written in zip(drafts, tasks, values, found, strict=True):
            written = written if step == "answer" else written.first_line()
            if reason := spoilt(written, told(task), value.values()):
                draft.reason = f"{'answer' if step == 'answer' else 'question'}_{reason}"
            texts.append(written.text.strip())
        return texts

    def _questions(self, drafts: Sequence[_Draft]) -> None:
        open_ = [draft for draft in drafts if draft.reason is None]
        texts = self._ask(open_, "question", temperature=self._settings.temperature, fill=lambda draft: {"example": draft.asked}, turn=1)
        for draft, text in zip(open_, texts, strict=True):
            self._asked(draft, text, draft.asked)

    def _asked(self, draft: _Draft, text: str, before: str, answer: str = "") -> None:
        draft.question = text
        refused = question_refused(text, before, self._settings, language=draft.language, answer=answer, identifies=self._identifies)
        # What holds an identifier says so, whatever else is wrong with it: its text is not kept.
        draft.reason = refused if refused == "identifier" else draft.reason or refused

    def _answers(self, drafts: Sequence[_Draft], *, turn: int = 1) -> None:
        for draft in drafts:
            if draft.reason is None:
                query = draft.question if turn == 1 else f"{draft.turns[-1][0]}\n{draft.question}"
                found = self._knowledge.find(query, self._settings.passages, lowest=self._settings.lowest_score)
                draft.found = tuple(passage for passage, _ in found if not (self._writer.leaves and self._identifies and self._identifies(passage.text)))
                draft.reason = self._unfounded(draft)
        open_ = [draft for draft in drafts if draft.reason is None]

        def fill(draft: _Draft) -> dict[str, str]:
            return {"question": draft.question, "passages": "\n".join(passage.text for passage in draft.found)}

        for draft, text in zip(open_, self._ask(open_, "answer", temperature=0.0, fill=fill, turn=turn), strict=True):
            draft.answer = text
            held = [passage.text for passage in draft.found]
            draft.reason = draft.reason or answer_refused(text, draft.question, held, self._settings, language=draft.language, identifies=self._identifies)
            if draft.reason is None:
                draft.turns = (*draft.turns, (draft.question, text))
                draft.passages = tuple(dict.fromkeys((*draft.passages, *draft.found)))

    def _unfounded(self, draft: _Draft, *, least: float = 0.45) -> str | None:
        """Return why the passages found cannot answer the question, or None: the model is not asked then.

        Of 30 Chinese questions beside two long documents, those of which the documents do not speak reach 0.44 at most and the others 0.5 at least;
        30 English ones beside passages on their subjects reach 0.5 at least, questions of other fields 0.25 in Chinese and 0.67 in English.
        """
        if not draft.found:
            return "no_passage"
        share = covered(draft.question, [passage.text for passage in draft.found])
        return f"passages_off_subject:{share:.2f}<{least:g}" if share < least else None

    def _goes_on(self, draft: _Draft) -> bool:
        return int(digest_of([self._settings.seed, "follow_up", draft.example.id, draft.number])[:8], 16) / 2**32 < self._settings.follow_up

    def _second_turn(self, drafts: Sequence[_Draft]) -> None:
        """Lead conversations on by one question; one whose second turn is not good enough stays as it was."""
        before = [draft.question for draft in drafts]

        def fill(draft: _Draft) -> dict[str, str]:
            return {"question": draft.turns[-1][0], "answer": draft.turns[-1][1]}

        texts = self._ask(drafts, "follow_up", temperature=self._settings.temperature, fill=fill, turn=2)
        for draft, text in zip(drafts, texts, strict=True):
            self._asked(draft, text, *draft.turns[-1])
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
        said = {
            "question": draft.question,
            "answer": draft.answer,
            "turns": [list(turn) for turn in draft.turns],
            "example": draft.example.id,
            "variant": draft.number,
        }
        hides = self._identifies is not None and any(map(self._identifies, (draft.question, draft.answer)))
        content = "" if hides or draft.reason == "identifier" else json.dumps(said, ensure_ascii=False, sort_keys=True)
        record_id = digest_of(["generate", draft.example.id, draft.number, draft.question])[:32]
        return Drop(record_id, "generate", draft.reason or "", draft.example.source, content)


def _repeated(entry: Record) -> Drop:
    return Drop(entry.id, "generate", "repeated_question", entry.source, json.dumps(record_to_dict(entry), ensure_ascii=False, sort_keys=True))
