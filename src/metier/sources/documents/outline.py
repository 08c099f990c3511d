"""The outline of a document: which blocks are headings and articles, and under which headings every block stands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise, zip_longest

from metier.sources.documents.blocks import Block, Document, tidy
from metier.sources.documents.rules import numeral, rule, rules

__all__ = ["Article", "begins_unit", "outline"]

_MARKS = re.compile(r"[\s\u200b\ufeff]*(?:\*\*)?")
_HASHES = re.compile(r"#{1,6}(?:[ \t]+|$)|[ \t#]+$")
_SETEXT = re.compile(r"\n[ ]{0,3}(?:=+|-+)[ \t]*$")
_LONGEST_HEADING = 80
_WIDE_LEVEL = 3


@dataclass(frozen=True, slots=True)
class Article:
    """An article's label as it is written, its number, and the number of an inserted one (0 if it is none)."""

    label: str
    number: int = 0
    sub: int = 0


def _chinese(line: str, last: Article | None) -> Article | None:
    """Return the article that a line begins, or None.

    A blank, the line's end or a title has to follow the label. A label written without a blank is told from a reference to another article by its
    number, which has to be the next one, and by what follows.
    """
    head = _MARKS.match(line).end()  # type: ignore[union-attr]
    found = rule("article_zh").match(line, head)
    if found is None:
        return None
    article = Article(found.group(), numeral(found["number"]), numeral(found["sub"]) if found["sub"] else 0)
    if rule("after_article_zh").match(line, found.end()):
        return article
    follows = last is not None and (article.number, article.sub) in ((last.number + 1, 0), (last.number, last.sub + 1))
    first = last is None and (article.number, article.sub) == (1, 0)
    return article if (follows or first) and not rule("reference_zh").match(line, found.end()) else None


def _section(line: str) -> int | None:
    """Return the rank of a part of the document that holds articles (volume, chapter ...) if a line is the heading of one."""
    head = _MARKS.match(line).end()  # type: ignore[union-attr]
    if len(line.strip()) > _LONGEST_HEADING or rule("sentence_end").search(line):
        return None
    return next((rank for rank, pattern in enumerate(rules("sections"), 1) if pattern.match(line, head)), None)


def begins_unit(line: str) -> bool:
    """Tell whether a line is a heading of a part or begins an article, so that it never continues the line above."""
    return _section(line) is not None or _chinese(line, None) is not None or bool(rule("article_en").match(line) or rule("wide_article_en").match(line))


def outline(document: Document, *, plain: bool) -> Document:
    """Return the document with headings and articles told apart and with every block's section path.

    Paragraphs are divided where a line in them is a heading of a part or begins an article. `plain` also takes short lines that stand alone for
    headings: numbered ones, Chinese enumerations and lines in capitals; formats that mark their headings themselves need none of that.
    """
    wide = not any(rule("article_en").match(line) or _is_below(line) for _, line in _lines(document.text, document.blocks))
    return replace(document, blocks=tuple(_paths(document.text, _divided(document, plain=plain, wide=wide))))


def _lines(text: str, blocks: Iterable[Block]) -> Iterator[tuple[int, str]]:
    for block in blocks:
        start = block.start
        for line in text[block.start : block.end].split("\n"):
            yield start, line
            start += len(line) + 1


def _divided(document: Document, *, plain: bool, wide: bool) -> Iterator[Block]:
    """Yield the blocks with kinds decided; the articles' own labels are in `article`, on their first block only."""
    last: Article | None = None
    for block, following in zip_longest(document.blocks, document.blocks[1:]):
        if block.kind not in ("paragraph", "list", "heading"):
            yield block
            continue
        for piece in _split(document.text, block, last):
            text = document.text[piece.start : piece.end]
            line = heading_title(text) if piece.kind == "heading" else text.split("\n", 1)[0]
            rank = _section(line) if "\n" not in text.strip() or piece.kind == "heading" else None
            article = None if rank else _chinese(line, last) or _english(line, wide=wide)
            if article is not None and article.number:
                last = article
            if article is not None:
                yield replace(piece, kind="article", level=0, article=article.label)
            elif rank is not None or piece.kind == "heading" or (not wide and rule("wide_article_en").match(line) and len(text) <= _LONGEST_HEADING):
                yield replace(piece, kind="heading", level=piece.level or rank or _WIDE_LEVEL)
            elif plain and (level := _looks_like_heading(text, "" if following is None else document.text[following.start : following.end])):
                yield replace(piece, kind="heading", level=level)
            else:
                yield piece


def _english(line: str, *, wide: bool) -> Article | None:
    found = rule("article_en").match(line) or (rule("wide_article_en").match(line) if wide else None)
    return None if found is None else Article(tidy(found["label"]))


def _split(text: str, block: Block, last: Article | None) -> Iterator[Block]:
    """Yield a block in pieces that begin at lines with a heading of a part or an article; `last` is the article before the block."""
    cuts = []
    for start, line in _lines(text, [block]) if block.kind != "heading" else ():
        article = _chinese(line, last)
        last = article or last
        if start > block.start and (article or begins_unit(line)):
            cuts.append(start)
    # A heading of one line ends where it ends: what follows it in the same paragraph is not part of it.
    for start in [block.start, *cuts]:
        line = text[start : block.end].split("\n", 1)[0]
        after = start + len(line) + 1
        if block.kind == "paragraph" and _section(line) is not None and after < block.end and after not in cuts:
            cuts.append(after)
    edges = [block.start, *sorted(cuts), block.end]
    for start, end in pairwise(edges):
        whole = text[start:end]
        begin = start + len(whole) - len(whole.lstrip())
        if whole.strip():
            yield replace(block, start=begin, end=start + len(whole.rstrip()))


def _is_below(line: str) -> bool:
    """Tell whether a line is a numbered heading of the second level or below (`2.01 Scope`), which makes the articles above it headings."""
    found = rule("numbered_heading").match(line)
    return found is not None and "." in found["depth"] and len(line) <= _LONGEST_HEADING and not rule("sentence_end").search(line)


def _looks_like_heading(text: str, following: str) -> int:
    """Return the level of a heading if a paragraph of plain text looks like one, else 0. Numbers on two lines in a row are those of a list."""
    if "\n" in text or len(text) > _LONGEST_HEADING or rule("sentence_end").search(text):
        return 0
    if numbered := rule("numbered_heading").match(text):
        depth, after = numbered["depth"].count("."), rule("numbered_heading").match(following)
        return 0 if not following or (after and after["depth"].count(".") == depth) else depth + 4
    if rule("listed_heading_zh").match(text):
        return 2
    return 2 if text.isupper() and len(text) >= 4 and any(character.isalpha() for character in text) and text.isascii() else 0


def heading_title(text: str) -> str:
    """Return a heading's words without Markdown's marks around them."""
    return tidy(_HASHES.sub("", _SETEXT.sub("", text)).replace("**", ""))


def _paths(text: str, blocks: Iterable[Block]) -> Iterator[Block]:
    """Give every block the titles and the ordinal numbers of the headings above it, and every block of an article its label.

    Ranks of parts go before levels: a chapter stands below its volume, though a file marks both with the same level.
    """
    above: list[tuple[int, int | None, str, int]] = []
    counts: dict[tuple[int, ...], int] = {}
    article: str | None = None
    for block in blocks:
        if block.kind == "heading":
            title = heading_title(text[block.start : block.end])
            rank = _section(title)
            while above and _ends(above[-1][:2], (block.level, rank)):
                above.pop()
            parent = tuple(item[3] for item in above)
            counts[parent] = counts.get(parent, 0) + 1
            yield replace(block, section=tuple(item[2] for item in above), number=(*parent, counts[parent]))
            if title:
                above.append((block.level, rank, title, counts[parent]))
            article = None
            continue
        article = block.article or article
        yield replace(block, section=tuple(item[2] for item in above), number=tuple(item[3] for item in above), article=article)


def _ends(open_: tuple[int, int | None], new: tuple[int, int | None]) -> bool:
    if open_[1] is not None and new[1] is not None:
        return open_[1] >= new[1]
    return open_[0] >= new[0]
