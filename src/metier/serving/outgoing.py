"""The guard over an answer while it is written; see `metier.serving.guard`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import regex

from metier.packs import GuardRule
from metier.packs.matching import TIMEOUT_SECONDS, Rule, applies
from metier.privacy.detect import occurrences
from metier.serving.folding import Folded, fold
from metier.serving.guard import REDACTED, Found, Guard, Inspected, language_of, merged, said

__all__ = ["Outgoing"]

_BEFORE = 34
"""Characters that are kept before the text that is looked at, beyond the widest context window of the pack's rules."""

_STEP = 128
"""New characters after which an answer is looked at again. A look costs a millisecond or two, for few characters as for many."""

_SECONDS = 0.2
"""Seconds after which it is looked at again although fewer have come; a quarter of it until the first text has been let go."""

_WHOLE_SECONDS = 1.0
"""The same for an answer that leaves in one piece: it is looked at before its end only so that one that must not be given ends early."""

_END = 2
"""A match that ends this close to the end of what is known may still change with the next character."""


class Outgoing:
    """One answer on its way out. `push` text, send what it returns, and at the end what `finish` returns.

    `whole` says that nothing is sent before the end.
    """

    def __init__(self, guard: Guard, question: Inspected, hold_back: int, *, whole: bool = False) -> None:
        self._guard = guard
        self._question = question
        self._hold_back = hold_back
        self._whole = whole
        self._before = _BEFORE + max((rule.identifier.window for rule in guard.detector.rules), default=0)
        self._raw = ""
        self._done = 0
        self._anchor: int | None = None
        self._looked = (0, time.monotonic() if whole else float("-inf"))
        self._known: dict[str, str] = {}
        self._patterns = [(rule, guard.patterns[rule.name]) for action in ("redact", "refuse") for rule in guard.select("output", action)]
        self.fired: list[str] = []
        self.redacted: Counter[str] = Counter()
        self.refusal: GuardRule | None = None
        """The rule that ended the answer, if one did: nothing is said after its text."""
        self.seconds = 0.0

    def push(self, text: str) -> str:
        """Take new text of the model and return what may be sent now."""
        self._raw += text
        return "" if self.refusal or not self._due() else self._timed(last=False)

    def finish(self) -> str:
        """Return what is left to send: the end of the answer, and what the pack's rules say has to be said with it."""
        if self.refusal:
            return ""
        return self._timed(last=True)

    def _due(self) -> bool:
        """Whether to look at the answer again."""
        size, at = self._looked
        if self._whole:
            return time.monotonic() - at >= _WHOLE_SECONDS
        return len(self._raw) - size >= _STEP or time.monotonic() - at >= (_SECONDS if self._done else _SECONDS / 4)

    def _timed(self, *, last: bool) -> str:
        began = time.perf_counter()
        text = self._look(last=last)
        if last and self.refusal is None:
            text += self._disclaimers()
        self._looked = (len(self._raw), time.monotonic())
        self.seconds += time.perf_counter() - began
        return text

    def _look(self, *, last: bool) -> str:
        origin = max(0, min(self._done - self._before, self._done if self._anchor is None else self._anchor))
        folded = fold(self._raw[origin:])
        limit = len(self._raw)
        if not last:
            undecided = origin + folded.original(self._undecided(folded, folded.place(self._done - origin)))
            limit = max(undecided, limit - self._hold_back, self._done)
            if limit == self._done:
                return ""
        found = merged([Found(item.start + origin, item.end + origin, item.kind, item.rule) for item in self._find(folded)])
        if not last:
            touching = min((item.start for item in found if item.end >= len(self._raw) - _END), default=limit)
            limit = max(min(limit, touching), len(self._raw) - self._hold_back, self._done)
        for item in found:
            if item.rule is not None and item.end > self._done and item.start < limit:
                return self._refuse(item, found)
        return self._release(limit, found)

    def _release(self, limit: int, found: list[Found]) -> str:
        """Return the text up to `limit` with what was found replaced. What is found across the limit is replaced once, now."""
        parts = []
        place, marked, self._anchor = self._done, self._anchor, None
        for item in found:
            if item.end <= place or item.start >= limit:
                continue
            parts.append(self._raw[place : max(place, item.start)])
            if item.start >= self._done or item.start != marked:
                parts.append(f"[{item.kind}]")
                self.redacted[item.kind] += 1
                if item.kind != REDACTED and item.end - item.start > 3:
                    self._known.setdefault(fold(self._raw[item.start : item.end]).plain, item.kind)
            if item.end > limit:
                self._anchor = item.start
            place = min(item.end, limit)
        parts.append(self._raw[place:limit])
        self._done = limit
        return "".join(parts)

    def _find(self, folded: Folded) -> Iterator[Found]:
        plain = folded.plain
        for span in self._guard.written.spans(plain):
            yield Found(folded.original(span.start), folded.end(span.end), span.type)
        for value, kind in self._known.items():
            for start, end in occurrences(value, plain):
                yield Found(folded.original(start), folded.end(end), kind)
        for rule, pattern in self._patterns:
            for match in pattern.finditer(plain, timeout=TIMEOUT_SECONDS):
                if not match.group():
                    continue
                refusing = rule.action == "refuse" and applies(rule.languages, language_of(self._raw))
                if rule.action == "redact" and rule.name not in self.fired:
                    self.fired.append(rule.name)
                if refusing or rule.action == "redact":
                    yield Found(folded.original(match.start()), folded.end(match.end()), REDACTED, rule.name if refusing else None)

    def _undecided(self, folded: Folded, start: int) -> int:
        """Return from which place of the plain form on, `start` or later, a match may still begin or change."""
        plain = folded.plain
        place = len(plain)
        for rule in self._guard.detector.rules:
            for pattern in self._guard.openings[rule.pattern]:
                place = _open(pattern, plain, start, place, rule)
        for _, pattern in self._patterns:
            for opening in self._guard.openings[pattern]:
                place = _open(opening, plain, start, place)
        for value in self._known:
            for size in range(min(len(value) - 1, len(plain)), 0, -1):
                if plain.endswith(value[:size]):
                    place = min(place, len(plain) - size)
                    break
        return place

    def _refuse(self, item: Found, found: list[Found]) -> str:
        rule = next(rule for rule in self._guard.rules if rule.name == item.rule)
        before = self._release(max(item.start, self._done), [other for other in found if other.rule is None and other.end <= item.start])
        self.refusal = rule
        self.fired.append(rule.name)
        text = said(rule, language_of(self._raw))
        return f"{before}\n\n{text}" if self._done else text

    def _disclaimers(self) -> str:
        """Return the texts of the rules that ask for one, in the language of the answer, each once."""
        language = language_of(self._raw)
        plain = fold(self._raw).plain
        rules = list(self._question.disclaimers)
        for rule in self._guard.select("output", "disclaim"):
            if applies(rule.languages, language) and self._guard.finds(rule, plain):
                rules.append(rule)
                self.fired.append(rule.name)
        return "".join(f"\n\n{text}" for text in dict.fromkeys(said(rule, language) for rule in rules) if text)


def _open(pattern: regex.Pattern[str], plain: str, start: int, before: int, rule: Rule | None = None) -> int:
    """Return from which place, `start` or later, a match could go on beyond the end of `plain`; `before` if from none earlier."""
    while start < before:
        match = pattern.search(plain, start, partial=True, timeout=TIMEOUT_SECONDS)
        if match is None or match.start() >= before:
            return before
        if match.partial and _has_context(rule, plain, match.start()):
            return int(match.start())
        start = match.start() + 1 if match.partial else max(match.end(), match.start() + 1)
    return before


def _has_context(rule: Rule | None, plain: str, start: int) -> bool:
    """Return whether a rule that needs a word before its match has one; the match itself may still bring it where only part of it is replaced."""
    if rule is None or rule.context is None or rule.identifier.group != 0:
        return True
    return rule.context.search(plain, max(0, start - rule.identifier.window)) is not None
