"""What a set speaks of, and of whom: topics by their words, groups by columns or by plain signs in the text.

A view for people, not a verdict: a group that is rare, or that has another share of a label than the rest, is shown with its interval.
Cells of fewer than `least` records are not counted out, so that nobody can be singled out by the card.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import regex
from pydantic import Field

from metier.config import Settings, load_yaml
from metier.errors import MissingExtra
from metier.prepare.labels.features import judged_text
from metier.prepare.language import HAN
from metier.prepare.quality.measures import phrases
from metier.records import Record

__all__ = ["BiasSettings", "GroupView", "Topic", "bias_facts", "detected_groups", "group_views", "topics"]

UNKNOWN = "not said"
_Z = 1.96
_REMARK = 0.1
_ENOUGH = 30


class BiasSettings(Settings):
    """The view of topics and groups in the data card."""

    columns: tuple[str, ...] = ()
    """Columns that name a group: sex, age, region, branch ... Numbers are put into bands."""
    detect: bool = True
    """Look for plain signs of age, sex and region in the text."""
    topics: int = Field(default=0, ge=0, le=100)
    """Topics to find (extra `labels`); 0: none, which takes no time."""
    sample: int = Field(default=20_000, ge=100)
    """Most records that topics are learnt from, chosen by their id."""
    least: int = Field(default=5, ge=1)
    """Smaller cells are shown as `fewer than` this."""


@dataclass(frozen=True, slots=True)
class GroupView:
    """How the records fall into the groups of one attribute, and the share of each label in each group."""

    name: str
    how: str
    """`column` or `signs in the text`."""
    counts: Mapping[str, int]
    labels: Mapping[str, Mapping[str, int]]
    """Records by group and label."""
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic: the words that tell it from the others, its records, and their labels."""

    terms: tuple[str, ...]
    records: int
    share: float
    labels: Mapping[str, int]


@lru_cache(maxsize=1)
def _signs() -> Mapping[str, Any]:
    value = load_yaml(Path(__file__).parent / "data" / "groups.yaml").value
    return {
        "age": tuple(regex.compile(pattern) for pattern in value["age"]),
        "months": regex.compile(value["months"]),
        "bands": tuple(tuple(band) for band in value["bands"]),
        "sex": {name: regex.compile(pattern) for name, pattern in value["sex"].items()},
        "region": {name: regex.compile(pattern) for name, pattern in value["region"].items()},
    }


def _band(age: float) -> str:
    for low, high in _signs()["bands"]:
        if low <= age <= high:
            return f"{low}-{high}"
    return UNKNOWN


def detected_groups(text: str) -> dict[str, str]:
    """Return the age band, sex and region that a text speaks of first or most, `not said` where it gives no sign."""
    signs = _signs()
    ages = [float(match[1]) for pattern in signs["age"] for match in pattern.finditer(text) if float(match[1]) <= 120]
    age = _band(ages[0]) if ages else _band(0) if signs["months"].search(text) else UNKNOWN
    return {"age": age, "sex": _most(signs["sex"], text), "region": _most(signs["region"], text)}


def _most(patterns: Mapping[str, regex.Pattern[str]], text: str) -> str:
    found = {name: len(pattern.findall(text)) for name, pattern in patterns.items()}
    best = max(found.values())
    names = [name for name, count in found.items() if count == best]
    return UNKNOWN if not best else names[0] if len(names) == 1 else "several"


def group_views(records: Iterable[Record], settings: BiasSettings) -> tuple[GroupView, ...]:
    """Return a view for each column and, where `detect` is on, for age, sex and region by signs in the text."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    labels: dict[tuple[str, str], dict[str, Counter[str]]] = {}
    for record in records:
        for name, how, group in _memberships(record, settings):
            counts.setdefault((name, how), Counter())[group] += 1
            if record.label is not None:
                labels.setdefault((name, how), {}).setdefault(group, Counter())[record.label] += 1
    views = []
    for (name, how), found in counts.items():
        if how != "column" and set(found) == {UNKNOWN}:
            continue
        own = labels.get((name, how), {})
        ordered = dict(sorted(found.items(), key=lambda item: (item[0] == UNKNOWN, -item[1], item[0])))
        by_label = {group: dict(sorted(own[group].items())) for group in ordered if group in own}
        views.append(GroupView(name, how, ordered, by_label, _remarks(ordered, own, settings.least)))
    return tuple(views)


def _memberships(record: Record, settings: BiasSettings) -> Iterator[tuple[str, str, str]]:
    for name in settings.columns:
        value = record.metadata.get(name)
        yield name, "column", UNKNOWN if value is None or str(value).strip() == "" else _group(name, value)
    if settings.detect:
        text = judged_text(record)
        for name, group in detected_groups(text).items():
            yield name, "signs in the text", group


_AGE_COLUMN = re.compile(r"(?<![a-z])age(?![a-z])", re.IGNORECASE)


def _group(name: str, value: Any) -> str:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value).strip()
    if _AGE_COLUMN.search(name.replace("_", " ")):
        return _band(math.floor(number))
    return f"{number:g}"


def _remarks(counts: Mapping[str, int], labels: Mapping[str, Counter[str]], least: int) -> tuple[str, ...]:
    total = sum(counts.values())
    remarks = []
    if unknown := counts.get(UNKNOWN, 0):
        remarks.append(f"{unknown / total:.1%} of the records give no sign")
    known = {group: count for group, count in counts.items() if group != UNKNOWN}
    rare = [group for group, count in known.items() if count < 0.02 * sum(known.values())]
    if rare and len(known) > 1:
        remarks.append(f"below 2 % of those that give one: {', '.join(rare)}")
    overall: Counter[str] = Counter()
    for found in labels.values():
        overall.update(found)
    remarks += sorted(_differences(labels, overall), key=str)[:12]
    return tuple(remarks)


def _differences(labels: Mapping[str, Counter[str]], overall: Counter[str]) -> Iterator[str]:
    """Yield the labels whose share in a group differs from that in the rest by more than .1, with the interval (Agresti and Caffo 2000)."""
    for group, found in labels.items():
        inside, outside = found.total(), overall.total() - found.total()
        if group == UNKNOWN or inside < _ENOUGH or outside < _ENOUGH:
            continue
        for label, count in found.items():
            low, difference, high = _difference(count, inside, overall[label] - count, outside)
            if abs(difference) > _REMARK and low * high > 0:
                here, there = count / inside, (overall[label] - count) / outside
                yield f"{group}: the label {label!r} has {here:.0%} of the records, of the rest {there:.0%} ({low:+.0%} to {high:+.0%}, n = {inside})"


def _difference(count: int, total: int, other: int, others: int) -> tuple[float, float, float]:
    first, second = (count + 1) / (total + 2), (other + 1) / (others + 2)
    error = _Z * math.sqrt(first * (1 - first) / (total + 2) + second * (1 - second) / (others + 2))
    return first - second - error, count / total - other / others, first - second + error


def _topic_units(text: str) -> list[str]:
    """Return Chinese runs of two to four letters and words of three letters and more."""
    found: list[str] = []
    for piece in re.findall(f"[{HAN}]+|[A-Za-z\u00c0-\u024f]{{3,}}", text):
        if piece[0] >= "\u2e80":
            for size in (2, 3, 4):
                found.extend([piece[start : start + size] for start in range(len(piece) - size + 1)])
        elif piece.lower() not in phrases().stop_words:
            found.append(piece.lower())
    return found


def topics(records: Sequence[Record], settings: BiasSettings, *, seed: int = 0) -> tuple[Topic, ...]:
    """Return the topics of a set, largest first: k-means over TF-IDF, each named by the units that stand out in it.

    Raises MissingExtra without scikit-learn. Fewer topics come out where there are fewer records.
    """
    chosen = sorted((record for record in records if judged_text(record).strip()), key=lambda record: record.id)[: settings.sample]
    count = min(settings.topics, len(chosen) // 2)
    if count < 2:
        return ()
    try:
        from sklearn.cluster import MiniBatchKMeans
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        raise MissingExtra("scikit-learn", "labels", "finding topics") from None
    few = len(chosen) < 50
    vectors = TfidfVectorizer(analyzer=_topic_units, sublinear_tf=True, min_df=1 if few else 3, max_df=1.0 if few else 0.4, max_features=20_000)
    matrix = vectors.fit_transform([judged_text(record) for record in chosen])
    model = MiniBatchKMeans(n_clusters=count, n_init=3, batch_size=1024, random_state=seed).fit(matrix)
    names = vectors.get_feature_names_out()
    middle = matrix.mean(axis=0).A1 if hasattr(matrix.mean(axis=0), "A1") else matrix.mean(axis=0)
    found = []
    for number in range(count):
        places = [place for place, label in enumerate(model.labels_) if label == number]
        if not places:
            continue
        own = Counter(record.label for record in (chosen[place] for place in places) if record.label is not None)
        order = (model.cluster_centers_[number] - middle).argsort()[::-1]
        found.append(
            Topic(_standing_out(names, order), len(places), len(places) / len(chosen), dict(sorted(own.items(), key=lambda item: (-item[1], item[0]))))
        )
    return tuple(sorted(found, key=lambda topic: (-topic.records, topic.terms)))


def _standing_out(names: Sequence[str], order: Sequence[int], count: int = 6) -> tuple[str, ...]:
    """Return the first units that are no part of one another."""
    kept: list[str] = []
    for place in order[: 20 * count]:
        name = str(names[place])
        longer = [other for other in kept if other in name]
        if any(name in other for other in kept):
            continue
        for other in longer:
            kept.remove(other)
        kept.append(name)
        if len(kept) == count and not longer:
            break
    return tuple(kept[:count])


def bias_facts(views: Sequence[GroupView], found: Sequence[Topic], *, least: int) -> dict[str, Any]:
    """Return views and topics for the facts of a dataset. Counts below `least` become None, and their labels are left out."""

    def shown(count: int) -> int | None:
        return count if count >= least else None

    groups = [
        {
            "name": view.name,
            "how": view.how,
            "least": least,
            "counts": {group: shown(count) for group, count in view.counts.items()},
            "labels": {group: {label: shown(count) for label, count in labels.items()} for group, labels in view.labels.items() if view.counts[group] >= least},
            "remarks": list(view.remarks),
        }
        for view in views
    ]
    topics_ = [{"terms": list(topic.terms), "records": topic.records, "share": topic.share, "labels": dict(topic.labels)} for topic in found]
    return {"groups": groups, "topics": topics_}
