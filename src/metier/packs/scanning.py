"""Many rules over one text: what is cheap to see decides which rules run, and where.

Labels, context words and hints of all rules are found in one pass, numbers in another. A rule for a labelled value runs where its label
ends, a rule for a number runs around numbers with as many digits, and only what is left runs over the whole text. Three views are
searched: the plain text, the joints of broken lines, and numbers in which letters stand for digits (see `metier.packs.views`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import regex

from metier.packs import matching
from metier.packs.matching import Rule, fold_width, slow, words_of
from metier.packs.views import Stretch, goes_on, joined, plain_view, read_as_digits
from metier.records import Span

__all__ = ["Scanner", "find"]

_NUMBER = re.compile("[0-9](?:[^0-9]{0,3}[0-9])*")
_NOT_DIGITS = re.compile("[^0-9]+")
_BESIDE = re.compile("[A-Za-z]")
_LETTER = re.compile(r"[^\W\d_]")
_MOST_DIGITS = 40
_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")

Hit = tuple[int, int, int]
"""Number of a rule, start and end of what it takes for an identifier."""


@dataclass(slots=True)
class _Word:
    """What begins where a word stands: labels with their length, contexts and hints, by the numbers of the rules."""

    latin: bool
    labels: list[tuple[int, int]] = field(default_factory=list)
    contexts: list[tuple[int, int]] = field(default_factory=list)
    hints: list[int] = field(default_factory=list)


def _trie(words: Sequence[str]) -> str:
    """Return a pattern for the longest of the words at a place, written as a tree: a flat alternation is tried word by word."""
    by_first: dict[str, list[str]] = defaultdict(list)
    for word in words:
        by_first[word[:1]].append(word[1:])
    ends = "" in by_first
    branches = [re.escape(first) + _trie(rest) for first, rest in sorted(by_first.items()) if first]
    if not branches:
        return ""
    return f"(?:{'|'.join(branches)}){'?' if ends else ''}" if len(branches) > 1 or ends else branches[0]


def _columns(plain: str, first: int, last: int) -> bool:
    """Return whether the lines in which a stretch begins and ends hold nothing but numbers."""
    begin = plain.rfind("\n", 0, first) + 1
    end = plain.find("\n", last)
    return not _LETTER.search(plain, begin, len(plain) if end < 0 else end)


class Scanner:
    """Rules ready to be run together; the number of a rule is its place in the sequence."""

    def __init__(self, rules: Sequence[Rule], *, disfigured: bool = True) -> None:
        """Take the rules; with `disfigured`, broken and confused values are looked for, too."""
        self.rules = tuple(rules)
        self._words: dict[str, _Word] = {}
        self._marks: dict[int, tuple[str, ...]] = {}
        self._free: list[int] = []
        counted: list[int] = []
        for number, rule in enumerate(self.rules):
            self._take(number, rule)
            if rule.after is None:
                (self._free if rule.identifier.writing.digits is None else counted).append(number)
        self._share_prefixes()
        solid = [number for number in counted if self.rules[number].identifier.writing.solid]
        self._exactly = tuple(tuple(n for n in solid if self._fewest(n) <= digits <= self._most(n)) for digits in range(_MOST_DIGITS + 1))
        self._reach = tuple(rule.identifier.writing.reach for rule in self.rules)
        self._at_least = tuple(tuple(n for n in counted if self._fewest(n) <= digits) for digits in range(_MOST_DIGITS + 1))
        latin = [word for word, entry in self._words.items() if entry.latin]
        self._latin = re.compile(f"(?<![a-z])(?:{_trie(latin)})") if latin else None
        self._other = [(re.compile("|".join(map(re.escape, gate))) if gate else None, re.compile(_trie(words))) for gate, words in self._by_gate().items()]
        self._wrapped = frozenset(n for n, rule in enumerate(self.rules) if disfigured and rule.identifier.writing.wrapped)
        self._confused = frozenset(n for n, rule in enumerate(self.rules) if disfigured and rule.identifier.writing.lookalikes)

    def _fewest(self, number: int) -> int:
        return (self.rules[number].identifier.writing.digits or (0, 0))[0]

    def _most(self, number: int) -> int:
        return (self.rules[number].identifier.writing.digits or (0, 0))[1]

    def _take(self, number: int, rule: Rule) -> None:
        identifier = rule.identifier
        for label in identifier.labels:
            for written in {label, label.replace(" ", "")} if label.isascii() else {label}:
                self._word(written).labels.append((number, len(written)))
        for name in identifier.writing.begins:
            for word in words_of(name):
                self._word(word).labels.append((number, len(word)))
        for word in identifier.context:
            self._word(word).contexts.append((number, len(word)))
        if rule.after is None and identifier.hints:
            # a hint may stand inside a word, where only a plain search finds it; long words in Han are found on the way
            if all(len(hint) > 1 and not hint.isascii() for hint in identifier.hints):
                for hint in identifier.hints:
                    self._word(hint).hints.append(number)
            else:
                self._marks[number] = identifier.hints

    def _word(self, text: str) -> _Word:
        key = fold_width(text).lower()
        return self._words.setdefault(key, _Word(latin=key.isascii()))

    def _by_gate(self) -> dict[tuple[str, ...], list[str]]:
        """Return hints -> words that need looking for only in a text with one of them; long lists of words are searched apart."""
        groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for word, entry in self._words.items():
            gates = {self.rules[number].identifier.hints for number, _ in entry.labels if self.rules[number].identifier.writing.begins}
            common = entry.contexts or entry.hints or any(not self.rules[number].identifier.writing.begins for number, _ in entry.labels)
            if not entry.latin:
                groups[() if common or len(gates) != 1 else gates.pop()].append(word)
        return groups

    def _share_prefixes(self) -> None:
        """Let each word bring what belongs to the words that it begins with: the pass finds only the longest at a place."""
        own = {word: (tuple(entry.labels), tuple(entry.contexts), tuple(entry.hints)) for word, entry in self._words.items()}
        for word, entry in self._words.items():
            for size in range(1, len(word)):
                labels, contexts, hints = own.get(word[:size], ((), (), ()))
                entry.labels += labels
                entry.contexts += contexts
                entry.hints += hints

    def spans(self, text: str) -> list[Span]:
        """Return what the rules find, overlaps included. Raises PackError for a pattern that runs out of time."""
        view = plain_view(text)
        plain = view.plain
        found = self._scan(plain)
        if self._wrapped and "\n" in plain:
            found |= self._across_breaks(plain, found)
        if self._confused:
            for stretch in read_as_digits(plain):
                found |= self._inside(stretch, self._confused, plain)
        out = []
        for number, first, last in sorted(found):
            start, end = view.original(first, last)
            identifier = self.rules[number].identifier
            out.append(Span(start, end, identifier.entity, text[start:end], identifier.score, identifier.validator or "pattern"))
        return out

    def _across_breaks(self, plain: str, known: set[Hit]) -> set[Hit]:
        """Return what is found across line breaks; a value that is whole on one side has to show that it goes on."""
        whole = {(number, place) for number, start, end in known for place in (start, end)}
        more: set[Hit] = set()
        for stretch in joined(plain):
            joint = stretch.changed[0]
            left, right = stretch.places[joint - 1] + 1, stretch.places[joint]
            for hit in self._inside(stretch, self._wrapped, plain):
                ended, begun = (hit[0], left) in whole, (hit[0], right) in whole
                if (not ended and not begun) or goes_on(plain, left, right, ended=ended):
                    more.add(hit)
        return more

    def _inside(self, stretch: Stretch, allowed: frozenset[int], plain: str) -> set[Hit]:
        before, behind = stretch.changed
        hits = set()
        for number, start, end in self._scan(stretch.plain, allowed):
            if start >= behind + (before == behind) or end <= before or (before == behind and start >= before):
                continue
            first, last = stretch.places[start], stretch.places[end - 1] + 1
            rule = self.rules[number]
            # columns of numbers are no broken number, unless a check or a label says so
            if rule.validator is None and rule.after is None and rule.context is None and _columns(plain, first, last):
                continue
            hits.add((number, first, last))
        return hits

    def _scan(self, plain: str, allowed: frozenset[int] | None = None) -> set[Hit]:
        """Return what the rules find in a plain text; `allowed` are the numbers of the rules that run, None: all."""
        found: set[Hit] = set()
        contexts: dict[int, list[tuple[int, int]]] = defaultdict(list)
        hinted: set[int] = set()
        taken: set[int] = set()
        for place, word in self._words_in(plain):
            new: list[int] = []
            for number, size in word.contexts:
                contexts[number].append((place, place + size))
            hinted.update(word.hints)
            for number, size in word.labels:
                if (allowed is None or number in allowed) and place + size not in taken and self._match_after(number, plain, place, size, found):
                    new.append(place + size)
            # of two labels that end at one place, the longer one says what the value is
            taken.update(new)
        digits = 0
        for number_found in _NUMBER.finditer(plain):
            start, end = number_found.span()
            count = end - start
            here = number_found.group()
            if here.isdigit() and not (_BESIDE.match(plain, end) or (start and _BESIDE.match(plain, start - 1))):
                table = self._exactly
            else:
                table, count = self._at_least, len(_NOT_DIGITS.sub("", here))
            digits += count
            for number in table[min(count, _MOST_DIGITS)]:
                if (allowed is None or number in allowed) and self._possible(number, plain, hinted, contexts):
                    reach = self._reach[number]
                    self._search(number, plain, (max(0, start - reach), end + reach), contexts, found)
        for number in self._free:
            if allowed is not None and number not in allowed:
                continue
            if self.rules[number].identifier.minimum_digits <= digits and self._possible(number, plain, hinted, contexts):
                self._search(number, plain, (0, len(plain)), contexts, found)
        return found

    def _words_in(self, plain: str) -> Iterator[tuple[int, _Word]]:
        lower = plain.lower()
        if len(lower) != len(plain):
            lower = plain.translate(_LOWER)
        lower = lower.replace("_", " ")  # keys of JSON and columns
        patterns = [] if self._latin is None else [self._latin]
        if not plain.isascii():
            patterns += [pattern for gate, pattern in self._other if gate is None or gate.search(lower)]
        for pattern in patterns:
            match = pattern.search(lower)
            while match is not None:
                place = match.start()
                yield place, self._words[match.group()]
                match = pattern.search(lower, place + 1)

    def _possible(self, number: int, plain: str, hinted: set[int], contexts: dict[int, list[tuple[int, int]]]) -> bool:
        rule = self.rules[number]
        if rule.context is not None and number not in contexts:
            return False
        if not rule.identifier.hints:
            return True
        marks = self._marks.get(number)
        return number in hinted if marks is None else any(mark in plain for mark in marks)

    def _match_after(self, number: int, plain: str, word: int, size: int, found: set[Hit]) -> bool:
        rule = self.rules[number]
        place = word + size
        if rule.after is None:
            return False
        try:
            match = rule.after.match(plain, place, timeout=matching.TIMEOUT_SECONDS) if rule.timed else rule.after.match(plain, place)
        except TimeoutError:
            raise slow(rule.identifier.pattern) from None
        before = len(found)
        if match is not None:
            self._keep(number, plain, match, None, found, word if rule.identifier.writing.begins else None)
        return len(found) > before

    def _search(self, number: int, plain: str, window: tuple[int, int], contexts: dict[int, list[tuple[int, int]]], found: set[Hit]) -> None:
        rule = self.rules[number]
        near = contexts.get(number) if rule.context is not None else None
        first, last = window
        try:
            if not rule.timed:
                match = rule.pattern.search(plain, first, last)
                while match is not None:
                    self._keep(number, plain, match, near, found)
                    match = rule.pattern.search(plain, max(match.end(), match.start() + 1), last)
                return
            for match in rule.pattern.finditer(plain, first, last, timeout=matching.TIMEOUT_SECONDS):
                self._keep(number, plain, match, near, found)
        except TimeoutError:
            raise slow(rule.identifier.pattern) from None

    def _keep(self, number: int, plain: str, match: regex.Match[str], near: list[tuple[int, int]] | None, found: set[Hit], begin: int | None = None) -> None:
        rule = self.rules[number]
        start, end = match.span(rule.group)
        start = start if begin is None else begin
        if start >= end:
            return
        if near is not None:
            since = match.start() - rule.identifier.window
            if not any(since <= first and last <= start for first, last in near):
                return
        if rule.validator is None or rule.validator(plain[start:end]):
            found.add((number, start, end))


def find(rule: Rule, text: str) -> list[Span]:
    """Return the stretches of `text` that a rule takes for an identifier, in order. Raises PackError for a pattern that runs out of time."""
    return sorted(Scanner((rule,)).spans(text), key=lambda span: (span.start, span.end))
