"""What happens to each source row alone, from cleaning to conversations. Runs in the engine's processes, chunk by chunk."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from metier import models
from metier.packs.matching import applies, quality_reason
from metier.packs.spec import QualityRule
from metier.prepare.chunks import Entry, Refined
from metier.prepare.clean import Boilerplate, clean
from metier.prepare.compose import Composer
from metier.prepare.deidentify import deidentify, pseudonym, year_only
from metier.prepare.drops import drop
from metier.prepare.language import detect
from metier.prepare.lengths import Count, fit, text_counter, token_counter
from metier.prepare.quality import screen
from metier.prepare.settings import PrepareSettings
from metier.prepare.standardize import Lexicon, standardize
from metier.prepare.strings import content, strings
from metier.privacy import vault as vaults
from metier.privacy.general import Rules
from metier.privacy.names import NameTagger, read_ahead, taggers_for
from metier.records import Drop, Record, record_from_dict

__all__ = ["Plan", "counter_of", "refine", "shown_drop"]


Original: TypeAlias = tuple[str, str, str]
"""Token, kind and value."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that refining depends on beside the row itself."""

    settings: PrepareSettings
    rules: Rules
    quality: tuple[QualityRule, ...]
    composer: Composer
    languages: tuple[str, ...]
    domain: str
    root: Path
    key: bytes = field(repr=False)
    lexicon: Lexicon | None = None
    repeated: Boilerplate | None = None
    base: models.Base | None = None
    maximum_tokens: int = 0
    vault: tuple[Path, Path] | None = None


def refine(plan: Plan, items: Sequence[Record | Drop]) -> list[Entry]:
    """Return what becomes of each item, in order; drops of the sources pass through. Originals are in the vault before anything is returned."""
    tidied = [item if isinstance(item, Drop) else _tidied(plan, item) for item in items]
    if plan.settings.deidentify.enabled:
        _read_together(plan, [entry[0] for entry in tidied if not isinstance(entry, Drop)])
    originals: dict[str | None, list[Original]] = defaultdict(list)
    found = [entry for item in tidied for entry in ([_passed(plan, item)] if isinstance(item, Drop) else _row(plan, *item, originals=originals))]
    if plan.vault is not None:
        vaults.opened_vault(*plan.vault).keep_all(originals)
    return found


def _passed(plan: Plan, dropped: Drop) -> Drop:
    """Return a drop of the sources. What stood there was never read as a row, so nothing in it is known to be replaced: while identifiers are replaced
    it leaves without its text. The digest is keyed, for a line with one unknown number could be found by trying.
    """
    if not plan.settings.deidentify.enabled or not dropped.content:
        return dropped
    left = {"characters": len(dropped.content), "keyed_digest": pseudonym(plan.key, "line", dropped.content)}
    return replace(dropped, content=json.dumps(left, sort_keys=True))


def _without_text(plan: Plan, record: Record) -> str:
    """Return what the ledger may keep of a record whose text could not be de-identified: whose it is, so that it is found where a person asks."""
    named = {name: value for name, value in (("group", record.group), ("subject", record.subject)) if value is not None}
    return json.dumps({name: pseudonym(plan.key, name, value) for name, value in named.items()}, sort_keys=True) if named else ""


def _tidied(plan: Plan, record: Record) -> tuple[Record, tuple[str, ...]]:
    record, notes = clean(record, plan.settings.clean, plan.repeated)
    language = record.language or detect(content(record))
    return replace(record, language=language, domain=record.domain or plan.domain), notes


def _taggers(plan: Plan, language: str | None) -> tuple[NameTagger, ...]:
    return taggers_for(language, plan.settings.deidentify.names, root=plan.root)


def _read_together(plan: Plan, records: Sequence[Record]) -> None:
    """Have the taggers read all texts of a chunk at once. What goes wrong here goes wrong again at the one row that causes it."""
    texts: dict[str | None, list[str]] = defaultdict(list)
    for record in records:
        texts[record.language] += strings(record)
    for language, found in texts.items():
        with suppress(Exception):  # the rows are tagged one by one then, and the one that fails is set aside
            read_ahead(_taggers(plan, language), found)


def _row(plan: Plan, record: Record, notes: tuple[str, ...], *, originals: dict[str | None, list[Original]]) -> Iterator[Entry]:
    settings, subject = plan.settings, record.subject
    try:
        taggers = _taggers(plan, record.language) if settings.deidentify.enabled else ()
        tokens = vaults.SubjectTokens(vaults.opened_vault(*plan.vault)) if plan.vault is not None else None
        record, found, marks = deidentify(record, settings.deidentify, plan.rules, plan.key, taggers=taggers, tokens=tokens)
    except Exception as error:  # noqa: BLE001 - fails closed: whatever went wrong, the row leaves, and its text is neither kept nor shown
        yield Drop(record.id, "deidentify", f"deidentify_failed:{type(error).__name__}", record.source, _without_text(plan, record))
        return
    if tokens is not None:
        originals[subject] += tokens.entries
    reason = _refusal(plan, record)
    if reason is not None:
        yield drop(_shown(plan, record), *reason)
        return
    if plan.lexicon is not None:
        record, more = standardize(record, settings.standardize, plan.lexicon)
        found += more
    composed: list[tuple[Record, tuple[str, ...]]] = []
    refused: list[Drop] = []
    for made, how in plan.composer.compose(record):
        for part in _screened(plan, made, how):
            composed.append(part) if not isinstance(part, Drop) else refused.append(part)
    if composed or not refused:
        yield Refined(record, (*notes, *found), marks, tuple(composed))
    yield from refused


def _shown(plan: Plan, record: Record) -> Record:
    return year_only(record) if plan.settings.deidentify.enabled else record


def _refusal(plan: Plan, record: Record) -> tuple[str, str] | None:
    """Return the step and reason that make a row leave, or None."""
    text = content(record)
    if not text or any(not message.content.strip() for message in record.messages):
        return "clean", "empty_content"
    if record.language is not None and record.language not in plan.languages:
        return "language", f"other_language:{record.language}"
    for rule in plan.quality:
        if applies(rule.languages, record.language) and (reason := quality_reason(rule, text)) is not None:
            return "quality", reason
    return None


def _screened(plan: Plan, record: Record, how: str) -> Iterator[tuple[Record, tuple[str, ...]] | Drop]:
    """Yield a conversation, or its parts, with what was done to it; or drops."""
    if plan.settings.quality.drop:
        found = screen(_shown(plan, record), plan.settings.quality, plan.quality)
        if isinstance(found, Drop):
            yield found
            return
    # Where nothing is dropped the form is measured once, with everything else that quality.parquet holds.
    if plan.base is None:
        yield record, (how,)
        return
    for part in fit(record, plan.settings.lengths, counter_of(plan.base), maximum=plan.maximum_tokens):
        yield shown_drop(plan, part) if isinstance(part, Drop) else (part[0], (how, *part[1]))


def shown_drop(plan: Plan, dropped: Drop) -> Drop:
    """Return the drop of a conversation as it may be published: its date, which the division by time still needs of others, is cut to the year."""
    if not plan.settings.deidentify.enabled:
        return dropped
    return drop(year_only(record_from_dict(json.loads(dropped.content))), dropped.step, dropped.reason)


@lru_cache(maxsize=2)
def counter_of(base: models.Base) -> Count:
    """Return the counter of tokens of a base model; its tokenizer is loaded once."""
    tokenizer = models.load_tokenizer(base)
    return text_counter(tokenizer) if tokenizer.eos_token_id is None else token_counter(models.Chat(tokenizer))
