"""Remains of HTML: tags of the living standard, comments, entities. A `<` that begins no known tag is a sign like any other."""

from __future__ import annotations

import html
import re
from html.entities import html5

__all__ = ["strip_markup"]

_BREAKING = [
    "address",
    "article",
    "aside",
    "blockquote",
    "body",
    "br",
    "center",
    "dd",
    "div",
    "dl",
    "dt",
    "fieldset",
    "figcaption",
    "figure",
    "footer",
    "form",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "head",
    "header",
    "hr",
    "html",
    "li",
    "main",
    "nav",
    "ol",
    "p",
    "pre",
    "section",
    "table",
    "tbody",
    "tfoot",
    "thead",
    "title",
    "tr",
    "ul",
]
_SPACING = ["td", "th", "option", "button"]
_INLINE = [
    "abbr",
    "acronym",
    "area",
    "big",
    "canvas",
    "caption",
    "cite",
    "code",
    "col",
    "colgroup",
    "del",
    "dfn",
    "em",
    "embed",
    "font",
    "iframe",
    "img",
    "input",
    "ins",
    "kbd",
    "label",
    "legend",
    "link",
    "map",
    "mark",
    "meta",
    "noscript",
    "nobr",
    "object",
    "param",
    "picture",
    "rp",
    "rt",
    "ruby",
    "samp",
    "select",
    "small",
    "source",
    "span",
    "strike",
    "strong",
    "svg",
    "textarea",
    "time",
    "track",
    "tt",
    "var",
    "video",
    "wbr",
    "audio",
]
_SHORT = ["a", "b", "i", "q", "s", "u"]
"""One-letter names: `a<b>c` may be a comparison, so an opening tag without attributes counts only where its closing tag stands in the text too."""

_VALUE = r"(?:\"[^\"<>]{0,2000}\"|'[^'<>]{0,2000}'|[^\s\"'<>=]{1,500})"
_ATTRIBUTE = rf"\s+[A-Za-z_:@][-\w:.@]{{0,40}}\s{{0,20}}=\s{{0,20}}{_VALUE}|\s+(?:checked|disabled|nowrap|noshade|selected|readonly|hidden|async|defer)"
_NAMES = "|".join(sorted([*_BREAKING, *_SPACING, *_INLINE, *_SHORT], key=len, reverse=True))
_TAG = re.compile(rf"<(?P<close>/?)(?P<name>{_NAMES})(?P<attributes>(?:{_ATTRIBUTE}){{0,30}})\s{{0,20}}/?\s{{0,20}}>", re.IGNORECASE)
_RAISED = re.compile(r"<(sup|sub)(?:\s{1,20}[\w-]{1,20}=\"[^\"<>]{0,200}\")?\s{0,20}>([^<>]{0,40})</\1\s{0,20}>", re.IGNORECASE)
_LEFT_OVER = re.compile(r"</?(?:sup|sub)\s{0,20}>", re.IGNORECASE)
_OPENINGS = re.compile(r"<(?:!--|!DOCTYPE\s|\?xml\s|!\[CDATA\[|script(?=[\s>])|style(?=[\s>]))", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_PLAIN = "0123456789+-=()"
_UP = str.maketrans(_PLAIN + "n", "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b\u207c\u207d\u207e\u207f")
_DOWN = str.maketrans(_PLAIN, "\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089\u208a\u208b\u208c\u208d\u208e")
_ENDS = {"<!--": "-->", "<script": "</script>", "<style": "</style>", "<![cdata[": "]]>"}


def strip_markup(text: str) -> str:
    """Return `text` without HTML tags and comments and with its entities decoded.

    Tags that end a line on a page become a line end, cells a blank, so that two numbers never run together. What stands in
    `<sup>` or `<sub>` becomes Unicode's raised or lowered digits, or ``^(...)`` and ``_(...)``: 10<sup>2</sup> is not 102.
    Entities need their semicolon; an unknown one stays.
    """
    if "<" in text:
        text = _without_blocks(text)
        text = _RAISED.sub(_raised, text)
        text = _LEFT_OVER.sub(" ", text)
        closed = {name for name in _SHORT if f"</{name}>" in text.lower()} if "</" in text else set()
        text = _TAG.sub(lambda found: _gap(found, closed), text)
    return _ENTITY.sub(_decoded, text) if "&" in text else text


def _without_blocks(text: str) -> str:
    """Cut comments, scripts, styles and declarations out, in one pass from left to right; one without its end stays."""
    pieces, at = [], 0
    lowered: str | None = None
    for found in _OPENINGS.finditer(text):
        if found.start() < at:
            continue
        kind = found[0].lower().rstrip()
        end = _ENDS.get(kind, ">")
        if lowered is None:
            # lower() may change the length of a text (U+0130); then ends are looked for in the text as it is
            lowered = text.lower() if len(text.lower()) == len(text) else text
        place = lowered.find(end, found.end())
        if place < 0:
            if kind in _ENDS:
                break  # every later opening of this kind lacks its end too, and looking again and again would be quadratic
            continue
        pieces.append(text[at : found.start()])
        if kind == "<![cdata[":
            pieces.append(text[found.end() : place])
        at = place + len(end)
    return "".join(pieces) + text[at:]


def _raised(found: re.Match[str]) -> str:
    up, inner = found[1].lower() == "sup", found[2].strip()
    if not inner:
        return ""
    if all(character in _PLAIN or (up and character == "n") for character in inner):
        return inner.translate(_UP if up else _DOWN)
    return f"^({inner})" if up else f"_({inner})"


def _gap(found: re.Match[str], closed: set[str]) -> str:
    name = found["name"].lower()
    if name in _SHORT and name not in closed and not found["attributes"]:
        return found[0]
    return "\n" if name in _BREAKING else " " if name in _SPACING else ""


def _decoded(found: re.Match[str]) -> str:
    name = found[0][1:]
    if not name.startswith("#") and name not in html5:
        return found[0]
    meant = html.unescape(found[0])
    return " " if meant == "\u00a0" else meant
