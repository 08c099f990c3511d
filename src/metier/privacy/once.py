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
from metier.privacy.policy import Policy, load_policy
from metier.privacy.replace import Replacement, deidentify_texts, looked_for
from metier.privacy.validators import VALIDATORS

__all__ = ["AUTO", "Result", "deidentify", "language_of", "rules_for"]

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


@lru_cache(maxsize=8)
def rules_for(pack: str | None, policy: str | Path | None) -> tuple[Rules, Policy | None]:
    """Return the rules of a pack (none: the general ones) that a policy looks for, and the policy. Loaded once."""
    loaded = None if policy is None else load_policy(policy)
    return _rules(None if pack is None else packs.load(pack), loaded), loaded


def _rules(pack: Pack | None, policy: Policy | None) -> Rules:
    identifiers, validators = (general_identifiers(), VALIDATORS) if pack is None else rules_of(pack)
    return looked_for(identifiers, policy), validators


def deidentify(
    text: str,
    *,
    language: str | None = AUTO,
    policy: str | Path | Policy = "safe-harbor",
    key: bytes | None = None,
    subject: str | None = None,
    pack: str | Pack | None = None,
    taggers: Sequence[Tagger] = (),
) -> Result:
    """Replace the personal identifiers of one text.

    `language` is `zh`, `en`, `auto` (by the letters) or None (the rules of every language); `policy` a name (`safe-harbor`, `pipl`,
    `gdpr`, `strict`), a YAML file or a Policy. `key` (16 bytes and more) makes surrogates the same wherever it is used again; without
    one they are the same within this process only. Dates that are moved move together for one `subject`. `pack` adds the identifiers
    of a domain. Raises PrivacyError, which never holds the text, where something is left or a rule cannot be run: use nothing then.
    """
    if isinstance(policy, Policy) or isinstance(pack, Pack):
        loaded: Policy | None = load_policy(policy)
        rules = _rules(packs.load(pack) if isinstance(pack, str) else pack, loaded)
    else:
        rules, loaded = rules_for(pack, policy)
    identifiers, validators = rules
    made = deidentify_texts(
        [text],
        identifiers=identifiers,
        validators=validators,
        language=language_of(text) if language == AUTO else language,
        surrogates=Surrogates(key or _KEY_OF_THIS_PROCESS),
        subject=subject,
        policy=loaded,
        taggers=taggers,
    )
    return Result(made.texts[0], made.replacements[0])
