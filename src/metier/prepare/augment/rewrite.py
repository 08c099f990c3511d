"""Variants that a model writes: a question in other words, or translated there and back. Kept piece by piece, for a model is slow."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from metier.config import settings_digest
from metier.digest import digest_of
from metier.errors import Fault, InputError
from metier.prepare.asking import ask, asks, spoilt, told
from metier.prepare.augment.derive import chance_of, derive, question_place, with_question
from metier.prepare.augment.phrases import prompt_templates
from metier.prepare.augment.quality import refused
from metier.prepare.augment.settings import AugmentSettings
from metier.prepare.pieces import kept
from metier.prepare.writers import Writer, Written
from metier.records import Drop, Record, record_to_dict

__all__ = ["rewrite", "to_rewrite"]

_KINDS = {"written": ("paraphrase",), "translated": ("abroad", "back")}
_LANGUAGES = ("zh", "en")


def to_rewrite(records: Sequence[Record], settings: AugmentSettings) -> dict[str, list[Record]]:
    """Return by kind the records whose question a model is to rewrite: as many variants or drops will come of them."""
    usable = [record for record in records if question_place(record) is not None and record.language in _LANGUAGES]
    shares = {kind: getattr(settings.shares, kind) for kind in _KINDS}
    return {kind: [record for record in usable if chance_of(settings, kind, record.id).random() < share] for kind, share in shares.items()}


def rewrite(
    records: Sequence[Record],
    settings: AugmentSettings,
    writer: Writer | None,
    *,
    folder: Path | None = None,
    identifies: Callable[[str], bool] | None = None,
) -> Iterator[Record | Drop]:
    """Yield the variants that a model writes, and a drop with its reason for each that is not good enough.

    With `folder` every finished piece of `settings.batch` records is kept there: the same call after an interruption goes on from there, and
    gives the same as without one. Raises InputError if something is to be written and there is no writer, ModelError as the writer does.
    """
    for kind, wanted in to_rewrite(records, settings).items():
        if wanted and writer is None:
            raise InputError(
                Fault("variants are to be written, and there is no writer", key="prepare.augment.shares", remedy="set the share to 0 or name a writer")
            )
        for number, start in enumerate(range(0, len(wanted), settings.batch)):
            piece = wanted[start : start + settings.batch]
            assert writer is not None
            work = partial(_piece, piece, kind, settings, writer, identifies)
            yield from work() if folder is None else kept(folder / f"{kind}-{number:05d}-{_name(piece, kind, settings, writer)}.jsonl", work)


def _name(piece: Sequence[Record], kind: str, settings: AugmentSettings, writer: Writer) -> str:
    """Return the digest of everything that a piece depends on."""
    prompts = [prompt_templates()[step] for step in _KINDS[kind]]
    return digest_of([settings_digest(settings), writer.name, writer.digest, prompts, [record_to_dict(record) for record in piece]])[:24]


def _piece(
    records: Sequence[Record], kind: str, settings: AugmentSettings, writer: Writer, identifies: Callable[[str], bool] | None
) -> Iterator[Record | Drop]:
    questions = [record.messages[question_place(record) or 0].content for record in records]
    texts, reasons = list(questions), dict[int, str]()
    for step in _KINDS[kind]:
        open_ = [place for place in range(len(records)) if place not in reasons]
        for place, written in zip(open_, _asked(records, texts, open_, step, settings, writer), strict=True):
            task = prompt_templates()[step][records[place].language or ""]
            if reason := spoilt(written, told(task), [texts[place], questions[place]]):
                reasons[place] = reason
            texts[place] = written.text
    by = {"name": writer.name, "digest": writer.digest, "prompt": digest_of([prompt_templates()[step] for step in _KINDS[kind]])}
    for place, (record, before, text) in enumerate(zip(records, questions, texts, strict=True)):
        made = derive(record, with_question(record, text), kind, writer=by)
        reason = reasons.get(place) or _refused(record, before, text, settings, identifies)
        if reason is None:
            yield made
        else:
            # what holds an identifier is not kept, whatever else is wrong with it
            hides = reason == "identifier" or (identifies is not None and identifies(text))
            content = "" if hides else json.dumps(record_to_dict(made), ensure_ascii=False, sort_keys=True)
            yield Drop(made.id, "augment", reason, record.source, content)


def _refused(record: Record, before: str, text: str, settings: AugmentSettings, identifies: Callable[[str], bool] | None) -> str | None:
    reason = refused(before, text, settings.filter, language=record.language, identifies=identifies)
    return reason or ("no_question" if asks(before, record.language or "") and not asks(text, record.language or "") else None)


def _asked(records: Sequence[Record], texts: Sequence[str], places: Sequence[int], step: str, settings: AugmentSettings, writer: Writer) -> list[Written]:
    """Return the first line of what is written for each place."""
    prompts = [ask(prompt_templates()[step][records[place].language or ""], {"text": texts[place]}) for place in places]
    if not prompts:
        return []
    seed = int(digest_of([settings.seed, step, records[0].id])[:8], 16)
    found = writer.write(prompts, maximum_tokens=settings.maximum_tokens, temperature=settings.temperature, seed=seed)
    return [written.first_line() for written in found]
