"""The encoding that an HTML or XML file declares inside itself."""

from __future__ import annotations

import codecs
import re

__all__ = ["declared_inside"]

_META = re.compile(rb"""<meta[^>]+charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]+)""", re.IGNORECASE)
_XML = re.compile(rb"""^\s*<\?xml[^>]+encoding\s*=\s*["']([A-Za-z0-9_:.-]+)""")
_WEB = {"gb2312": "gb18030", "gbk": "gb18030", "x-gbk": "gb18030", "iso-8859-1": "cp1252", "latin-1": "cp1252", "us-ascii": "cp1252", "ascii": "cp1252"}


def declared_inside(start: bytes) -> str | None:
    """Return the encoding that the first bytes of a file declare (a meta element, an XML declaration), or None.

    Names mean what they mean on the web (WHATWG Encoding): GB 2312 is its superset GB 18030, ISO 8859-1 is Windows-1252. UTF-16, which cannot be
    declared in bytes that are read as ASCII, and names that nobody knows count as none; a byte order mark goes before everything.
    """
    if start.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return None
    found = _XML.search(start[:1024]) or _META.search(start[:8192])
    if found is None:
        return None
    name = found[1].decode("ascii").lower()
    name = _WEB.get(name, name)
    try:
        known = codecs.lookup(name).name
    except LookupError:
        return None
    return None if known.startswith("utf-16") else name
