"""The regular expressions around Chinese names, put together from the tables of `data/zh.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import regex

from metier.privacy.names.lexicon_zh import ChineseLexicon, chinese_lexicon

__all__ = ["AND", "CERTAIN", "COMMA", "CROSS", "DOT", "QUOTE", "STEMS", "Patterns", "chinese_patterns"]

CERTAIN = "\u67d0"  # the character for "a certain", which court texts put for a given name
STEMS = "\u7532\u4e59\u4e19\u4e01\u620a\u5df1\u5e9a\u8f9b\u4e00\u4e8c\u4e09\u56db\u4e94\u516d\u4e03\u516b\u4e5d"
CROSS = "xX\u00d7*\uff0a\u25cb\u3007\u25cf\u2573"
DOT = "\u00b7\u2022\u30fb\uff0e"
QUOTE = "\u201c\"\u2018'\u300c"
_END_QUOTE = "\u201d\"\u2019'\u300d"
COMMA = "\u3001\uff0c,"
AND = "\u548c\u4e0e\u53ca\u540c"
_COLON = ":\uff1a"


@dataclass(frozen=True, slots=True)
class Patterns:
    """Compiled once a process. `whole` find a name by themselves; the others find where one may stand."""

    whole: tuple[tuple[str, regex.Pattern[str]], ...]
    half: regex.Pattern[str]
    foreign: regex.Pattern[str]
    titled: regex.Pattern[str]
    announced: regex.Pattern[str]
    candidate: regex.Pattern[str]
    comma: regex.Pattern[str]
    comma_before: regex.Pattern[str]
    title_lead: regex.Pattern[str]
    title_end: regex.Pattern[str]
    before: regex.Pattern[str]
    lead: regex.Pattern[str]
    hidden: regex.Pattern[str]
    nickname: regex.Pattern[str]
    not_followed: regex.Pattern[str]


@lru_cache(maxsize=1)
def chinese_patterns() -> Patterns:
    """Return the patterns of the bundled tables."""
    lexicon = chinese_lexicon()
    words = {name: "(?:" + "|".join(map(regex.escape, items)) + ")" for name, items in lexicon.lists.items()}
    every = _surnames(lexicon, doubtful=True)
    plain = _surnames(lexicon, doubtful=False)
    tail = rf"(?:[{STEMS}]|[0-9]{{1,2}}(?![0-9.%])|(?<![A-Za-z])[A-Z](?![A-Za-z]))"
    cross = rf"[{CROSS}]{{1,3}}(?![0-9A-Za-z{CROSS}])"
    filler = rf"{CERTAIN}{{1,2}}|{cross}"
    # "to Zhang so-and-so", where "to" is a surname, too
    double = rf"(?<=[{''.join(sorted(lexicon.doubtful))}]){every}[{CERTAIN}{CROSS}]"
    hidden = rf"{every}(?:(?:{filler}){tail}?|[0-9]{{1,2}}{CERTAIN}{{1,2}}|(?!{double})\p{{Han}}(?:{CERTAIN}|{cross}))"
    foreign = f"[{''.join(sorted(lexicon.transliteration))}{CERTAIN}]"
    hinted = rf"(?:{words['roles']}|{words['labels']})[{_COLON}]?[ \u3000]*"
    lead = rf"(?:(?<!\p{{Han}})|(?<=[{COMMA}{AND}])|(?<={words['leads']}))"
    mark = rf"(?:[{_COLON}]|\u4e3a|\u662f)?[{QUOTE}]"
    return Patterns(
        whole=(
            (
                "numbered",
                regex.compile(
                    rf"(?:{hinted}|[{COMMA}{AND}(\uff08])(?P<name>{plain}[0-9]{{1,2}})(?![0-9.%\p{{Han}}]|[0-9])|(?:{hinted})(?P<name>{every}[0-9{STEMS}])(?=[{COMMA}(\uff08\u4e0e\u5728\u4e8e\u548c])"
                ),
            ),
            ("alias", regex.compile(rf"{words['alias']}{mark}(?P<name>\p{{Han}}{{1,5}})[{_END_QUOTE}]")),
            (
                "nickname",
                regex.compile(
                    rf"(?<!\p{{Han}}|[0-9])(?P<name>[\u5c0f\u8001\u963f]{plain})(?=[{COMMA}\u3002\u7684\u8bf4\u662f\u5728\u548c\u4e0e\u4eca\u6700\u5c31\u4e5f\u6765\u53bb])|(?<=[\u540c\u53cb\u5c45\u52a1\u5de5\u4e8b\u50cf\u53eb])(?P<name>[\u5c0f\u8001]{plain})(?=[{COMMA}\u3002\u7684\u8bf4\u662f\u5728\u548c\u4e0e])"
                ),
            ),
            ("spaced", regex.compile(rf"(?:{hinted}|(?<![^\s{COMMA}{_COLON}\u3002]))(?P<name>{plain}[ \u3000]{{1,3}}\p{{Han}})(?!\p{{Han}})")),
            ("pinyin", regex.compile(_pinyin(words))),
        ),
        half=regex.compile(rf"(?P<name>{hidden})"),
        foreign=regex.compile(rf"(?P<name>{foreign}{{1,8}}(?:[{DOT}]{foreign}{{1,8}}){{1,3}})"),
        titled=regex.compile(rf"(?P<name>{every}\p{{Han}}{{0,2}}?)(?P<title>{words['titles']})", regex.V0),
        announced=regex.compile(rf"{hinted}(?={every}\p{{Han}})"),
        candidate=regex.compile(rf"{lead}(?={plain}\p{{Han}})"),
        comma=regex.compile(rf"[{COMMA}]?[{AND}]?(?<=[{COMMA}{AND}])"),
        comma_before=regex.compile(rf"(?:\u3001|[{AND}])\Z"),
        title_lead=regex.compile(rf"(?:(?<!\p{{Han}})|{words['title_leads']})\Z"),
        title_end=regex.compile(rf"{words['titles']}\Z"),
        before=regex.compile(rf"(?:{words['roles']}|{words['labels']}|{words['alias']})[{_COLON}{QUOTE} ]{{0,2}}\Z"),
        lead=regex.compile(rf"(?:(?<!\p{{Han}})|{words['leads']}|{words['roles']}|{words['labels']})\Z"),
        hidden=regex.compile(rf"{hidden}|\p{{Han}}{{1,3}}{CERTAIN}{{1,2}}\p{{Han}}?\Z"),
        nickname=regex.compile(rf"[\u5c0f\u8001\u963f]{plain}\Z"),
        not_followed=regex.compile(words["not_followed"]),
    )


def _surnames(lexicon: ChineseLexicon, *, doubtful: bool) -> str:
    single = sorted(lexicon.plain | lexicon.doubtful if doubtful else lexicon.plain)
    return f"(?:{'|'.join(lexicon.compound)}|[{''.join(single)}])"


def _pinyin(words: dict[str, str]) -> str:
    surname, syllable = words["pinyin_surnames"], words["pinyin_syllables"]
    given = rf"(?:(?i:{syllable}){{1,3}}|(?i:{syllable})[- ](?i:{syllable}))"
    edge = r"(?<![A-Za-z0-9])"
    return rf"{edge}(?P<name>{surname},? (?=[A-Z]){given}|(?=[A-Z]){given} {surname}|(?i:{surname}) (?=[A-Z]){given}(?<=[A-Z]))(?![A-Za-z0-9])"
