"""De-identification of records: every string goes through metier.privacy; subject and group keys become pseudonyms."""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from metier import privacy
from metier.packs.spec import Pack
from metier.prepare.split import moment
from metier.prepare.strings import strings, with_strings
from metier.privacy.actions import Tokens
from metier.privacy.detect import Tagger
from metier.privacy.general import Rules
from metier.privacy.settings import DeidentifySettings, policy_of
from metier.records import Record, moved

__all__ = ["deidentify", "identifier_rules", "pseudonym", "year_only"]


def identifier_rules(pack: Pack, settings: DeidentifySettings) -> Rules:
    """Return the identifiers of the pack and the general ones that the policy looks for, and the validators they name."""
    identifiers, validators = privacy.rules_of(pack)
    return privacy.looked_for(identifiers, policy_of(settings)), validators


def pseudonym(key: bytes, kind: str, value: str) -> str:
    """Return the pseudonym of a key: 32 hexadecimal characters of HMAC-SHA-256 (RFC 2104) under the project's secret.

    Equal keys get equal pseudonyms in every dataset of the project; without the secret nobody can test a guess.
    """
    return hmac.new(key, f"{kind}\x00{value}".encode(), hashlib.sha256).hexdigest()[:32]


def deidentify(
    record: Record, settings: DeidentifySettings, rules: Rules, key: bytes, *, taggers: Sequence[Tagger] = (), tokens: Tokens | None = None
) -> tuple[Record, tuple[str, ...], tuple[str, ...]]:
    """Return the record with identifiers replaced in every string, what was found, as `deidentify:TYPE=n`, and the marks of what stands there now.

    Subject and group keys become pseudonyms even where `settings` switch de-identification of text off. The time stays
    exact here because splitting needs it; the dataset gets the year only. `tokens` makes the tokens of a vault.
    """
    found: list[str] = []
    marks: tuple[str, ...] = ()
    if settings.enabled:
        result = privacy.deidentify_texts(
            strings(record),
            identifiers=rules[0],
            validators=rules[1],
            language=record.language,
            surrogates=privacy.Surrogates(key),
            subject=record.subject,
            policy=policy_of(settings),
            taggers=taggers,
            tokens=tokens,
            independent=settings.sweep,
        )
        counts = Counter(span.type for spans in result.spans for span in spans)
        found = [f"deidentify:{kind}={count}" for kind, count in sorted(counts.items())]
        marks = tuple(sorted(privacy.surrogate_mark(key, surrogate) for surrogate in result.issued))
        edits = [(item.start, item.end, item.new_start, item.new_end) for item in result.replacements[0]]
        # By what was replaced, not by comparing the texts: a surrogate can share characters with the name that it stands for.
        record = replace(with_strings(replace(record, spans=()), result.texts), spans=moved(record.spans, edits, result.texts[0]))
    subject = None if record.subject is None else pseudonym(key, "subject", record.subject)
    group = None if record.group is None else pseudonym(key, "group", record.group)
    return replace(record, subject=subject, group=group), tuple(found), marks


def year_only(record: Record) -> Record:
    """Return the record with its time cut to the year, which is what 45 CFR 164.514(b)(2)(i)(C) lets stay of a date."""
    found = moment(record.time)
    return replace(record, time=f"{found[0]:04d}" if found else None)
