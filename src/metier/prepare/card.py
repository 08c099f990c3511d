"""The data card: what a dataset holds, where it comes from, what was done and what is known to be weak. Readable without anything else.

Markdown for people, pictures beside it whose numbers stand in its tables, and the same facts as JSON-LD for machines.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from metier.prepare import charts
from metier.prepare.croissant import croissant

__all__ = ["card_files", "data_card", "pictures"]

_LIMITS = (
    "De-identification finds what its rules describe; measure what remains before the data leaves the institution.",
    "While the project's secret exists the data is pseudonymised, not anonymous.",
    "Malformed source lines and rows that could not be de-identified are listed in `drops.parquet` by place and reason, without their text; where "
    "de-identification is off, malformed lines stand there as they were.",
    "The language is told by letters where the source does not say: Latin script counts as English.",
    "Near-duplicates are found by characters, not by meaning: paraphrases and translations may stand in two splits.",
    "Licences and bases are those that the project states; nobody has checked them here.",
)
_QUALITY_LIMITS = (
    "Quality scores rest on form, on shared words or on a model: they order records, they do not prove that an answer is right.",
    "Groups are read from columns or from plain signs in the text, which may speak of somebody else.",
)
_NOT_SAID = "not stated"


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    names = list(head)
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    return [*lines, *(f"| {' | '.join(map(_cell, row))} |" for row in rows), ""]


def _picture(name: str, title: str, there: Collection[str]) -> list[str]:
    return [f"![{title}]({name})", ""] if name in there else []


def card_files(facts: Mapping[str, Any], *, title: str) -> dict[str, bytes]:
    """Return the card's files by name: `card.md`, `card.json` and its pictures `card-*.svg`. They hold no text of any record."""
    drawn = pictures(facts)
    return {
        "card.md": data_card(facts, title=title, there=drawn).encode(),
        "card.json": (json.dumps(croissant(facts, title=title, gaps=gaps(facts)), ensure_ascii=False, indent=1) + "\n").encode(),
        **{name: picture.encode() for name, picture in drawn.items()},
    }


def pictures(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the pictures that a dataset's facts allow, as SVG by file name."""
    made: dict[str, str] = {}
    counts = facts["counts"]
    made["card-records.svg"] = charts.shares(
        {name: counts[name] for name in ("split", "language", "task") if counts.get(name)}, title="Records by split, language and task"
    )
    made["card-drops.svg"] = charts.bars(facts["drops"], title="Dropped by reason", unit="rows")
    for kind, bins in _length_bins(facts):
        maximum = facts["lengths"].get("maximum")
        over = [edge for edge in bins if kind == "tokens" and maximum is not None and int(edge) > maximum]
        made[f"card-lengths-{kind}.svg"] = charts.columns(bins, title=f"Records by length in {kind}", x_label=f"{kind} up to", over=over)
    if quality := facts.get("quality"):
        values = quality["scores"]["score"]["histogram"]
        bins = {f"{place / len(values):.2f}": count for place, count in enumerate(values)}
        made["card-quality.svg"] = charts.columns(bins, title="Records by quality score", x_label="score from")
    for place, balance in enumerate((facts.get("labels") or {}).get("balance", ())):
        made[f"card-labels-{place + 1}.svg"] = charts.bars(balance["counts"], title=f"Labels of the task {balance['task']}")
    groups = {view["name"]: {name: count or 0 for name, count in view["counts"].items()} for view in facts.get("groups") or ()}
    for place, (name, found) in enumerate(groups.items()):
        made[f"card-groups-{place + 1}.svg"] = charts.bars(found, title=f"Records by {name}")
    if topics := facts.get("topics"):
        made["card-topics.svg"] = charts.bars({", ".join(topic["terms"][:4]): topic["records"] for topic in topics}, title="Records by topic")
    return {name: str(picture) for name, picture in made.items() if picture}


def _length_bins(facts: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, int]]]:
    for kind in ("characters", "tokens"):
        found = (facts.get("lengths") or {}).get(kind)
        if found and "all" in found:
            bins: dict[str, int] = found["all"]["bins"]
            filled = [place for place, count in enumerate(bins.values()) if count]
            if filled:
                yield kind, dict(list(bins.items())[filled[0] : filled[-1] + 1])


def gaps(facts: Mapping[str, Any]) -> list[str]:
    """Return what an auditor would ask for and the facts do not say."""
    found = []
    for entry in facts["register"]:
        missing = [name for name in ("licence", "basis", "owner", "retention") if entry.get(name) in (None, "", "unknown")]
        if missing:
            found.append(f"{entry['uri']}: {', '.join(missing)} {_NOT_SAID}")
    for key, what in (("quality", "quality was not measured"), ("lengths", "lengths were not measured"), ("groups", "no view of groups was made")):
        if key not in facts:
            found.append(what)
    for name, score in ((facts.get("quality") or {}).get("scores") or {}).items():
        if name in facts["quality"]["matrix"] and not score["measured"]:
            found.append(f"quality: {name} was not measured for any record")
    if facts["counts"].get("split") and "test" not in facts["counts"]["split"]:
        found.append("there is no test split")
    return found


def data_card(facts: Mapping[str, Any], *, title: str, there: Collection[str] = ()) -> str:
    """Return the card as Markdown from a dataset's facts. It holds no text of any record; `there` names the pictures beside it."""
    lines = [f"# Data card: {title}", "", *_summary(facts), "## Records", "", *_picture("card-records.svg", "Records", there)]
    for name in ("split", "language", "task", "licence"):
        lines += _table([name, "records"], facts["counts"][name].items())
    lines += ["## Sources", "", *_table(_SOURCE_COLUMNS, (_source_row(entry) for entry in facts["register"]))]
    lines += ["## What is missing", "", *(f"- {gap}" for gap in gaps(facts) or ["Nothing that this card asks for."]), ""]
    lines += ["## Steps", "", *_table(["step", "settings"], ((step["name"], _settings(step["settings"])) for step in facts["steps"]))]
    lines += ["## Dropped", "", *_picture("card-drops.svg", "Dropped by reason", there), *_dropped(facts)]
    lines += ["## Identifiers replaced", ""]
    lines += _table(["kind", "number"], facts["identifiers"].items()) if facts["identifiers"] else ["None.", ""]
    lines += ["## Duplicates", "", *_table(["case", "number"], facts["duplicates"].items())]
    for section in (_lengths, _quality, _labels, _groups, _topics):
        lines += section(facts, there)
    lines += ["## Do the splits share anything?", ""]
    lines += _table(["kind", "distinct", "in more than one split"], ([kind, item["distinct"], item["shared"]] for kind, item in facts["disjoint"].items()))
    limits = (*_LIMITS, *(_QUALITY_LIMITS if facts.get("quality") or facts.get("groups") else ()))
    lines += ["## Known limits", "", *(f"- {limit}" for limit in limits), ""]
    return "\n".join(lines)


def _summary(facts: Mapping[str, Any]) -> list[str]:
    lines = [f"{facts['records']} records from {facts['rows']} source rows that stayed.", ""]
    if pack := facts.get("pack"):
        lines += [
            f"Rules and templates: pack {pack['name']} {pack['version']} (digest {pack['digest'][:12]}). Languages asked for: {', '.join(facts['languages'])}.",
            "",
        ]
    return lines


_SOURCE_COLUMNS = ("file", "rows", "malformed", "encoding", "decided by", "licence", "basis", "owner", "kept until", "sensitive fields", "SHA-256")


def _source_row(entry: Mapping[str, Any]) -> list[Any]:
    read = [entry["uri"], entry["rows"], entry["malformed"], entry["encoding"] or "binary", entry["encoding_reason"] or "format"]
    sensitive = entry.get("sensitive")
    terms = [entry["licence"], entry["basis"] or _NOT_SAID, entry.get("owner") or _NOT_SAID, entry.get("retention") or _NOT_SAID]
    return [*read, *terms, ", ".join(sensitive) if sensitive else _NOT_SAID, entry["sha256"][:16]]


def _settings(values: Any) -> str:
    return ", ".join(f"{key}: {value}" for key, value in values.items()) if isinstance(values, Mapping) else str(values)


def _dropped(facts: Mapping[str, Any]) -> list[str]:
    if by_step := facts.get("drops_by_step"):
        return _table(["step", "reason", "number"], ([step, reason, count] for step, reasons in by_step.items() for reason, count in reasons.items()))
    return _table(["reason", "number"], facts["drops"].items()) if facts["drops"] else ["Nothing.", ""]


def _lengths(facts: Mapping[str, Any], there: Collection[str]) -> list[str]:
    found = facts.get("lengths")
    if not found:
        return []
    lines = ["## Lengths", ""]
    for kind in ("characters", "tokens"):
        if not found.get(kind):
            continue
        shares = list(next(iter(found[kind].values()))["percentiles"])
        lines += _picture(f"card-lengths-{kind}.svg", f"Records by length in {kind}", there)
        rows = ([name, item["records"], f"{item['mean']:.0f}", *item["percentiles"].values()] for name, item in found[kind].items())
        lines += _table([kind, "records", "mean", *shares], rows)
    above = ((found.get("tokens") or {}).get("all") or {}).get("above")
    if above:
        lines += [f"{above['records']} records ({above['share']:.2%}) have more than {found['maximum']} tokens.", ""]
    return lines


def _quality(facts: Mapping[str, Any], there: Collection[str]) -> list[str]:
    found = facts.get("quality")
    if not found:
        return []
    bounds = found["thresholds"]
    said = "Records with the verdict `drop` have left." if found["dropping"] else "No record left for its score: verdicts are only reported."
    lines = [
        "## Quality",
        "",
        f"Use above {bounds['use']:g}, review from {bounds['review']:g}, drop below. {said}",
        "",
        *_picture("card-quality.svg", "Records by quality score", there),
    ]
    verdicts = list(found["verdicts"])
    lines += _table(
        ["language", *verdicts], ([name, *(counts.get(verdict, 0) for verdict in verdicts)] for name, counts in found["verdicts_by_language"].items())
    )
    rows = []
    for name, score in found["scores"].items():
        weights = [f"{kind} {found[kind][name]:g}" for kind in ("matrix", "dialogue") if name in found[kind]]
        mean = "" if score["mean"] is None else f"{score['mean']:.3f}"
        means = "; ".join(f"{how} ({count})" for how, count in list(found["means"].get(name, {}).items())[:4])
        rows.append([name, score["measured"], score["not_measured"], mean, ", ".join(weights), means])
    lines += _table(["score", "measured", "not measured", "mean", "weight in", "by what"], rows)
    lines += ["Scores are means over what was measured; weights of what was not are shared out among the rest.", ""]
    return [*lines, *_table(["found", "records"], list(found["findings"].items())[:30])] if found["findings"] else lines


def _labels(facts: Mapping[str, Any], there: Collection[str]) -> list[str]:
    found = facts.get("labels")
    if not found:
        return []
    lines = ["## Labels", ""]
    for place, balance in enumerate(found["balance"]):
        lines += [f"### Task {balance['task']}", "", *_picture(f"card-labels-{place + 1}.svg", f"Labels of the task {balance['task']}", there)]
        lines += _table(["label", "records"], list(balance["counts"].items())[:40])
        lines += [f"Largest over smallest class {balance['ratio']:.1f}, evenness {balance['evenness']:.2f} (1: all equal).", ""]
        lines += [*(f"- {remark}" for remark in balance["remarks"]), ""] if balance["remarks"] else []
    lines += [f"{found['contradictions']} records have a text that stands with another label too.", ""]
    for item in found["examined"] or ():
        accuracy = "" if item["accuracy"] is None else f"; held-out predictions agree with {item['accuracy']:.1%} of the labels"
        lines += [f"Task {item['task']}: {item['suspects']} of {item['records']} labels are suspected errors{accuracy}.", ""]
        lines += [*(f"- {remark}" for remark in item["not_judged"]), ""] if item["not_judged"] else []
    if found["examined"] is None:
        lines += ["Labels were not examined by cross-validation (`labels: {suspects: true}`).", ""]
    return lines


def _groups(facts: Mapping[str, Any], there: Collection[str]) -> list[str]:
    lines: list[str] = []
    for place, view in enumerate(facts.get("groups") or ()):
        lines += [f"### {view['name']} ({view['how']})", "", *_picture(f"card-groups-{place + 1}.svg", f"Records by {view['name']}", there)]
        lines += _table(["group", "records"], ([name, f"fewer than {view['least']}" if count is None else count] for name, count in view["counts"].items()))
        lines += [*(f"- {remark}" for remark in view["remarks"]), ""] if view["remarks"] else []
    return ["## Groups", "", *lines] if lines else []


def _topics(facts: Mapping[str, Any], there: Collection[str]) -> list[str]:
    found: Sequence[Mapping[str, Any]] = facts.get("topics") or ()
    if not found:
        return []
    rows = []
    for topic in found:
        labels = ", ".join(f"{label} {count}" for label, count in list(topic["labels"].items())[:3])
        rows.append([", ".join(topic["terms"]), topic["records"], f"{topic['share']:.1%}", labels])
    return ["## Topics", "", *_picture("card-topics.svg", "Records by topic", there), *_table(["words", "records", "share", "commonest labels"], rows)]
