"""Rows of well-known corpora, taken apart as `corpora.yaml` says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from metier.config import load_yaml

__all__ = ["READERS", "judgment", "marked_clauses", "opinions"]

_AROUND = 600
_END = re.compile(r"[.;\n]\s")


def opinions(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the opinions of a case of the Caselaw Access Project: of its API and bulk files (`casebody.data`) and of static.case.law (`casebody`)."""
    body = row.get("casebody") or {}
    data = body.get("data") if "data" in body else body
    if not isinstance(data, dict):
        return
    cites = row.get("citations") or []
    official = next((cite["cite"] for cite in cites if cite.get("type") == "official"), cites[0]["cite"] if cites else None)
    facts = {
        "case": str(row["id"]),
        "name": row.get("name_abbreviation") or row.get("name"),
        "date": row.get("decision_date"),
        "citation": official,
        "court": (row.get("court") or {}).get("name"),
        "jurisdiction": (row.get("jurisdiction") or {}).get("name_long"),
    }
    for opinion in data.get("opinions") or []:
        yield {**facts, "kind": opinion.get("type"), "author": opinion.get("author"), "text": opinion["text"]}


@cache
def _keys() -> Mapping[str, list[str]]:
    value: Mapping[str, list[str]] = load_yaml(Path(__file__).with_name("data") / "judgments.yaml").value["keys"]
    return value


def judgment(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield a Chinese judgment with its text, number, cause, court, date, charges and articles; the keys that sets give them stand in `data/judgments.yaml`.

    The names of the accused, which some sets list apart, are not taken over. A row without a text gives nothing.
    """
    everything = {**row, **(row["meta"] if isinstance(row.get("meta"), dict) else {})}
    found = {name: next((_line(everything[key]) for key in keys if everything.get(key)), None) for name, keys in _keys().items()}
    if found["text"]:
        yield found


def _line(value: Any) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)


def marked_clauses(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield each question of CUAD on a contract with the answers marked in it and the passage around the first, in whole sentences."""
    for paragraph in row["paragraphs"]:
        text = paragraph["context"]
        for asked in paragraph["qas"]:
            answers = asked["answers"]
            yield {
                "contract": row["title"],
                "question": asked["question"],
                "category": asked["id"].rpartition("__")[2],
                "answer": "\n".join(answer["text"] for answer in answers),
                "present": "yes" if answers else "no",
                "passage": _passage(text, answers[0]["answer_start"], len(answers[0]["text"])) if answers else "",
            }


def _passage(text: str, start: int, length: int) -> str:
    before = text[max(0, start - _AROUND) : start]
    after = text[start + length : start + length + _AROUND]
    if start > _AROUND:
        first = _END.search(before)
        before = before[first.end() :] if first else before
    if start + length + _AROUND < len(text):
        last = [found.start() + 1 for found in _END.finditer(after)]
        after = after[: last[-1]] if last else after
    return (before + text[start : start + length] + after).strip()


READERS = {"judgment": judgment, "marked_clauses": marked_clauses, "opinions": opinions}
"""The functions by the names that `corpora.yaml` gives them."""
