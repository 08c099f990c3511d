"""Full-width Latin letters and digits as ASCII, one sign for one sign, so that no number can change its value."""

from __future__ import annotations

import re

__all__ = ["narrow"]

_OFFSET = 0xFEE0
_ALPHANUMERIC = "\uff10-\uff19\uff21-\uff3a\uff41-\uff5a"
_WIDE = re.compile(f"[{_ALPHANUMERIC}]")
# Signs that join letters and digits to one expression; between other characters they are Chinese punctuation and stay.
_JOINT = re.compile("(?<=[0-9A-Za-z])[\uff05\uff0b\uff0d-\uff0f\uff1d\uff20\uff3f](?=[0-9A-Za-z])|(?<=[0-9])\uff1a(?=[0-9])|(?<=[0-9])\uff05")
# A raised or lowered digit, a fraction or a circled number beside a full-width digit: left as it stands.
_SPECIAL = "\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u209c\u2150-\u218b\u2460-\u24ff"
_RUN = re.compile(f"(?<![{_SPECIAL}])[{_ALPHANUMERIC}]+(?![{_SPECIAL}{_ALPHANUMERIC}])")


def _ascii(found: re.Match[str]) -> str:
    return "".join(chr(ord(character) - _OFFSET) for character in found[0])


def narrow(text: str) -> str:
    """Return `text` with full-width letters and digits as ASCII, and so the signs between two of them (36.5, 120/80, 8:30).

    Superscripts, fractions, circled numbers and unit signs are never folded (NFKC would turn 10 to the power of 2 into 102),
    and a run of full-width digits that touches one of them is left alone. The length stays the same.
    """
    if _WIDE.search(text) is None:
        return text
    return _JOINT.sub(_ascii, _RUN.sub(_ascii, text))
