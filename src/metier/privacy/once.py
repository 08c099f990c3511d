"""De-identification in one call, for a script or a prompt."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import regex

from metier import packs
from metier.packs import Pack
from metier.privacy.detect import Tagger
from metier.privacy.general import Rules, general_identifiers, rules_of
from metier.privacy.keyed import Surrogates
from metier.privacy.names import taggers_for
from metier.privacy.policy import Policy, load_policy
from metier.privacy.replace import Replacement, deidentify_texts, looked_for
from metier.privacy.validators import VALIDATORS

__all__ = ["AUTO", "Result", "deidentify", "language_of", "rules_for_policy"]

AUTO = "auto"
_HAN = regex.compile(r"\p{Han}")
_LATIN_WORD = regex.compile(r"[A-Za-z]{2,}")
_KEY_OF_THIS_PROCESS = secrets.token_bytes(32)


@dataclass(frozen=True, slots=True)
class Result:
    """A text after replacement, and what was replaced in it (offsets of the original)."""

    text: str
    spans: tuple[Replacement, ...]


def language_of(text: str) -> str | None:
    """Return `zh` or `en` for a text that is written in one of them, None where both may stand in it: every rule is applied then."""
    han, latin = bool(_HAN.search(text)), bool(_LATIN_WORD.search(text))
    return ("zh" if han else "en") if han != latin else None


_RULES: dict[tuple[str | None, int], tuple[Policy, Rules]] = {}
_MOST_RULES = 16


def rules_for_policy(pack: str | Pack | None, policy: Policy) -> Rules:
    """Return the rules of a pack (none: the general ones) that a policy looks for; the same ones each time, so that they are compiled once."""
    key = (pack.digest if isinstance(pack, Pack) else pack, id(policy))
    known = _RULES.get(key)
    if known is not None and known[0] is policy:
        return known[1]
    found = packs.load(pack) if isinstance(pack, str) else pack
    identifiers, validators = (general_identifiers(), VALIDATORS) if found is None else rules_of(found)
    if len(_RULES) >= _MOST_RULES:
        _RULES.clear()
    _RULES[key] = (policy, (looked_for(identifiers, policy), validators))
    return _RULES[key][1]


@lru_cache(maxsize=16)
def _policy(name: str) -> Policy:
    return load_policy(name)


def deidentify(
    text: str,
    *,
    language: str | None = AUTO,
    policy: str | Path | Policy = "safe-harbor",
    key: bytes | None = None,
    subject: str | None = None,
    pack: str | Pack | None = None,
    taggers: Sequence[Tagger] | None = None,
) -> Result:
    """Replace the personal identifiers of one text.

    `language` is `zh`, `en`, `auto` (by the letters) or None (the rules of every language); `policy` a name (`safe-harbor`, `pipl`,
    `gdpr`, `strict`), a YAML file or a Policy. `key` (16 bytes and more) makes surrogates the same wherever it is used again; without
    one they are the same within this process only. Dates that are moved move together for one `subject`. `pack` adds the identifiers
    of a domain; `taggers` look for names (None: those of metier.privacy.names for the language). Raises PrivacyError, which never
    holds the text, where something is left or a rule cannot be run: use nothing then.
    """
    loaded = _policy(policy) if isinstance(policy, str) else load_policy(policy)
    identifiers, validators = rules_for_policy(pack, loaded)
    spoken = language_of(text) if language == AUTO else language
    made = deidentify_texts(
        [text],
        identifiers=identifiers,
        validators=validators,
        language=spoken,
        surrogates=Surrogates(key or _KEY_OF_THIS_PROCESS),
        subject=subject,
        policy=loaded,
        taggers=taggers_for(spoken) if taggers is None else taggers,
    )
    return Result(made.texts[0], made.replacements[0])
