"""What may come in and go out: identifiers are redacted, and the pack's rules redact, refuse or add what has to be said.

Rules are searched for in the folded text (see `metier.serving.folding`). A question is looked at whole. An answer is looked at while it
is written: text is let go as soon as no rule could still begin in it. Whether one could is asked of the rules themselves, as partial
matches (a feature of the `regex` package), and at most `hold_back` characters are held.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import regex

from metier.errors import PackError
from metier.packs import GuardRule, Pack
from metier.packs.matching import TIMEOUT_SECONDS, applies, compile_pattern
from metier.privacy import Detector, rules_of
from metier.records import Message
from metier.serving.folding import NEVER, fold

__all__ = ["Guard", "Inspected", "Moved", "language_of", "place_before", "said"]

REDACTED = "REDACTED"
_HAN = regex.compile(r"\p{Han}")
_LETTER = regex.compile(r"\p{L}")


def language_of(text: str) -> str:
    """Return zh where at least a fifth of the letters are Han characters, else en."""
    letters = len(_LETTER.findall(text))
    return "zh" if letters and len(_HAN.findall(text)) * 5 >= letters else "en"


def said(rule: GuardRule, language: str) -> str:
    """Return a rule's text in a language, or in the first that it has."""
    return rule.text.get(language) or next(iter(rule.text.values()), "")


@dataclass(frozen=True, slots=True)
class Moved:
    """A stretch of a text that was replaced by its kind: (start, end) where it stood, and where the kind stands now."""

    kind: str
    was: tuple[int, int]
    now: tuple[int, int]


def place_before(place: int, moved: Sequence[Moved], *, end: bool = False) -> int:
    """Return where in the text as it came a place of the redacted text stands; inside of what was replaced, where that began or (`end`) ended."""
    shift = 0
    for item in moved:
        if place < item.now[0] or (end and place == item.now[0]):
            break
        if place < item.now[1]:
            return item.was[1] if end else item.was[0]
        shift = item.was[1] - item.now[1]
    return place + shift


@dataclass(frozen=True, slots=True)
class Inspected:
    """A question after the guard: what the model may see, what fired, and the rule that refuses it, if one does."""

    messages: tuple[Message, ...]
    fired: tuple[str, ...] = ()
    redacted: Mapping[str, int] = field(default_factory=dict)
    refusal: GuardRule | None = None
    disclaimers: tuple[GuardRule, ...] = ()
    moved: tuple[tuple[Moved, ...], ...] = ()
    """What was replaced in each message."""


@dataclass(frozen=True, slots=True)
class Found:
    """A stretch that has to be redacted, in offsets of the text, and what stands there afterwards."""

    start: int
    end: int
    kind: str
    rule: str | None = None


class Guard:
    """A pack's identifiers and guard rules, compiled. One object serves all requests; it keeps nothing of any."""

    def __init__(self, pack: Pack) -> None:
        identifiers, validators = rules_of(pack)
        self.detector = Detector(identifiers, language=None, validators=validators)
        # an answer is let go as soon as no pattern can begin in it, which cannot be known of values broken over lines
        self.written = Detector(identifiers, language=None, validators=validators, disfigured=False)
        self.rules = pack.guard
        self.patterns: dict[str, regex.Pattern[str]] = {rule.name: compile_pattern(rule.pattern) for rule in pack.guard}
        self.openings = {pattern: openings(pattern) for pattern in (*(rule.pattern for rule in self.detector.rules), *self.patterns.values())}
        fold("\uff11")  # the table of plain forms is made now and not in the first request

    def select(self, side: str, action: str) -> list[GuardRule]:
        """Return the rules for `input` or `output` with an action."""
        return [rule for rule in self.rules if rule.applies == side and rule.action == action]

    def finds(self, rule: GuardRule, plain: str) -> bool:
        """Return whether a rule is found in folded text. Raises PackError if its pattern runs out of time."""
        return self.timed(rule.name, lambda: self.patterns[rule.name].search(plain, timeout=TIMEOUT_SECONDS)) is not None

    @staticmethod
    def timed(name: str, search: Callable[[], regex.Match[str] | None]) -> regex.Match[str] | None:
        """Run a search. Raises PackError that names the rule if it takes too long."""
        try:
            return search()
        except TimeoutError:
            raise PackError(f"the guard rule {name} did not finish within {TIMEOUT_SECONDS:g} s") from None

    def inspect(self, messages: Sequence[Message]) -> Inspected:
        """Look at a question: refuse it, or redact it. All messages are looked at, whoever is said to have written them.

        Raises PackError if a pattern runs out of time: a question that cannot be looked at is not answered.
        """
        folded = [fold(message.content) for message in messages]
        language = language_of(messages[-1].content)
        for rule in self.select("input", "refuse"):
            if applies(rule.languages, language) and any(self.finds(rule, item.plain) for item in folded):
                return Inspected((), (rule.name,), refusal=rule)
        fired, counts, clean, moved = [], Counter[str](), [], []
        spans = self.detector.record([item.plain for item in folded])
        for message, item, found in zip(messages, folded, spans, strict=True):
            stretches = [Found(item.original(span.start), item.end(span.end), span.type) for span in found]
            for rule in self.select("input", "redact"):
                matches = list(self.patterns[rule.name].finditer(item.plain, timeout=TIMEOUT_SECONDS))
                fired += [rule.name] if matches else []
                stretches += [Found(item.original(match.start()), item.end(match.end()), REDACTED) for match in matches if match.group()]
            text, replaced = redact(message.content, stretches)
            counts.update(part.kind for part in replaced)
            moved.append(tuple(replaced))
            clean.append(replace(message, content=text))
        disclaimers = [
            rule for rule in self.select("input", "disclaim") if applies(rule.languages, language) and any(self.finds(rule, item.plain) for item in folded)
        ]
        fired += [rule.name for rule in disclaimers]
        return Inspected(tuple(clean), tuple(dict.fromkeys(fired)), dict(counts), None, tuple(disclaimers), tuple(moved))


def openings(pattern: regex.Pattern[str]) -> tuple[regex.Pattern[str], ...]:
    """Return patterns of which one matches partially wherever `pattern` may still begin or go on at the end of a text.

    The first asks for one more character that folded text never holds: without it `regex` prefers a whole match further on to a partial
    one. With it a condition on what follows is not waited for, so patterns that have one are asked as they are, too.
    """
    never = regex.compile(f"(?:{pattern.pattern}){NEVER}", pattern.flags, **pattern.named_lists, ignore_unused=True)
    return (never, pattern) if "(?=" in pattern.pattern else (never,)


def merged(found: Sequence[Found]) -> list[Found]:
    """Join stretches that overlap; the first of equal beginnings, identifiers before rules, gives the name."""
    out: list[Found] = []
    for item in sorted(found, key=lambda item: (item.start, item.kind == REDACTED, -item.end)):
        if out and item.start < out[-1].end:
            out[-1] = replace(out[-1], end=max(out[-1].end, item.end))
        else:
            out.append(item)
    return out


def redact(text: str, found: Sequence[Found]) -> tuple[str, list[Moved]]:
    """Return the text with every stretch replaced by `[KIND]`, and what was replaced, in order."""
    out, end, moved = "", 0, []
    for item in merged(found):
        out += text[end : item.start]
        begin, out = len(out), f"{out}[{item.kind}]"
        moved.append(Moved(item.kind, (item.start, item.end), (begin, len(out))))
        end = item.end
    return out + text[end:], moved
