import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest

from metier.charts import lines, ticks
from metier.evaluation.charts import Row, histogram, whiskers
from metier.evaluation.report import remarks, write_report

HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)> {{ 7 * 7 }} 河"
VOID = {"meta", "br", "img", "input", "link", "hr"}


def interval(value: float, low: float, high: float) -> dict:
    return {"value": value, "low": low, "high": high}


def row(base: float, tuned: float, verdict: str, **changes) -> dict:
    facts = {
        "base": interval(base, base - 0.05, base + 0.05),
        "tuned": interval(tuned, tuned - 0.05, tuned + 0.05),
        "delta": interval(tuned - base, tuned - base - 0.06, tuned - base + 0.06),
        "n": 120,
        "invalid": {"base": 0, "tuned": 0},
        "p": 0.0004,
        "p_adjusted": 0.0012,
        "minimum_detectable": 0.081,
        "higher_is_better": True,
        "verdict": verdict,
    }
    return facts | changes


def facts(**changes) -> dict:
    return {
        "pack": {"name": "example", "version": "1"},
        "tasks": {"feel": {"acc": row(0.5, 0.7, "gain")}, "add": {"exact_match": row(0.6, 0.61, "no clear difference")}},
        "format": {},
        "chance": {},
        "retention": None,
        "question": None,
        "items": {"feel": {"asked": 120, "available": 120, "left_out": {}}},
        "confidence": 0.95,
        "notes": [],
    } | changes


class Page(HTMLParser):
    """Collects tags and text, and checks that every element is closed."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID and tag not in ("line", "circle", "rect", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def full_report() -> str:
    metrics = [{"step": step, "loss": 3 / step, "validation_loss": 3.1 / step if step % 4 == 0 else None} for step in range(1, 40)]
    example = {"language": "zh", "prompt": HOSTILE, "target": HOSTILE, "base": HOSTILE, "tuned": "", "base_score": 0.0, "tuned_score": None}
    evaluation = facts(
        tasks={HOSTILE: {"acc": row(0.5, 0.7, "gain", languages={"zh": {"n": 60, "base": interval(0.4, 0.3, 0.5), "tuned": interval(0.6, 0.5, 0.7)}})}},
        question={"text": HOSTILE, "base": HOSTILE, "tuned": HOSTILE},
        notes=[HOSTILE],
        items={HOSTILE: {"asked": 1, "available": 1, "left_out": {HOSTILE: 2}}},
    )
    dataset = {"counts": {"split": {"train": 9, HOSTILE: 1}}, "drops": {HOSTILE: 3}, "register": [{"uri": HOSTILE, "licence": "CC-BY-4.0"}]}
    run = {"base": {"name": HOSTILE}, "settings": {"asked": {"rank": "auto"}, "effective": {"rank": 16, "alpha": 32}}, "peak_memory_bytes": 3 * 2**20}
    return write_report(
        evaluation, dataset, run, metrics, settings={"question": HOSTILE}, examples={HOSTILE: [example]}, lengths={HOSTILE: {"base": [1, 2], "tuned": [3]}}
    )


def test_hostile_text_stays_text():
    page = Page(full_report())
    assert page.open == []
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert HOSTILE.split("{", maxsplit=1)[0].strip() in page.words()
    assert "{{ 7 * 7 }}" in page.words()


def test_the_report_asks_nothing_of_anywhere():
    html = full_report()
    page = Page(html)
    assert not any(name in ("src", "href", "action", "background", "poster") for name, _ in page.attributes)
    assert not {"link", "iframe", "object", "embed", "script"} & set(page.tags)
    assert "url(" not in html
    assert "@import" not in html
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert ("http-equiv", "Content-Security-Policy") in page.attributes


def test_the_report_shows_data_settings_and_both_languages():
    words = Page(full_report()).words()
    for expected in ("CC-BY-4.0", "peak memory 3 MiB", "rank auto 16", "alpha default 32", "zh 60 0.400", "0.300 to 0.500", "Drops"):
        assert expected in words


def test_the_headline_and_the_table_say_what_gained_and_what_did_not():
    words = Page(write_report(facts(), {}, {}, [])).words()
    assert "The tuned model is better than its base on feel; not clearly different on add." in words
    assert "0.500 0.450 to 0.550 0.700 0.650 to 0.750 +0.200 0.140 to 0.260 < 0.001 Holm 0.001 0.081 120 gain" in words


def test_without_any_gain_the_report_says_so_first():
    page = facts(tasks={"add": {"exact_match": row(0.6, 0.61, "no clear difference")}})
    words = Page(write_report(page, {}, {}, [])).words()
    assert words.index("No clear difference between the tuned model and its base on any task.") < words.index("Scores")
    assert "add: no clear gain (exact_match +0.010, interval −0.050 to 0.070). With 120 items only a true difference of 0.081 or more" in words


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"tasks": {"t": {"acc": row(0.6, 0.4, "loss")}}}, "t: the tuned model is worse (acc −0.200)."),
        ({"chance": {"feel": {"chance": 0.25, "metric": "acc", "base_below_chance": True}}}, "feel: guessing gives 0.250 and the base is below it"),
        (
            {"items": {"feel": {"asked": 1, "available": 1, "left_out": {"fewer than two choices": 3}}}},
            "feel: 3 items could not be asked (fewer than two choices).",
        ),
        ({"retention": {"measurable": False, "forgetting": interval(0, 0, 0)}}, "Retention is not measurable"),
        ({"retention": {"measurable": True, "forgetting": interval(0.2, 0.1, 0.3)}}, "General ability was lost: 0.200"),
        ({"format": {"add": {"delta": {"total": 0.3, "format": 0.25, "knowledge": 0.05}}}}, "most of the change is format (+0.250), not knowledge (+0.050)"),
        ({"format": {"add": {"delta": {"total": 0.3, "format": None, "knowledge": None}}}}, "format and knowledge cannot be told apart"),
        ({"notes": ["held-out: not asked"]}, "held-out: not asked"),
    ],
)
def test_what_a_reader_must_know_is_remarked(changes: dict, expected: str):
    assert any(expected in remark for remark in remarks(facts(**changes)))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (0.3, 2.9, [0, 1, 2, 3]), (-5, 5, [-6, -4, -2, 0, 2, 4, 6]), (0, 0, [-1, -0.5, 0, 0.5, 1])],
)
def test_ticks_are_round_and_cover_the_range(low: float, high: float, expected: list[float]):
    assert ticks(low, high) == pytest.approx(expected)


def shapes(svg: str, tag: str, kind: str) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(svg)  # well-formed or it raises
    return [item for item in root.iter(f"{{http://www.w3.org/2000/svg}}{tag}") if kind in item.get("class", "").split()]


def test_whiskers_stand_at_their_values():
    svg = whiskers([Row(HOSTILE, "n = 3", (0.0, 0.0, 0.2), (1.0, 0.5, 1.0), chance=0.5)], title=HOSTILE, span=(0.0, 1.0))
    base, tuned = shapes(svg, "circle", "base")[0], shapes(svg, "circle", "tuned")[0]
    left, right = float(base.get("cx")), float(tuned.get("cx"))
    assert float(shapes(svg, "line", "chance")[0].get("x1")) == pytest.approx((left + right) / 2, abs=0.1)
    assert float(shapes(svg, "line", "tuned")[0].get("x1")) == pytest.approx((left + right) / 2, abs=0.1)


def test_a_falling_loss_falls_and_points_without_a_number_are_left_out():
    svg = lines({"tuned": [(1, 3.0), (2, float("nan")), (3, 1.0)]}, title="loss", x_label="step")
    first, second = shapes(svg, "polyline", "tuned")[0].get("points").split()
    assert float(first.split(",")[1]) < float(second.split(",")[1])


def test_a_histogram_counts_every_answer_once():
    svg = histogram([1, 1, 1, 40], [40], title="t", x_label="tokens", bins=4)
    heights = [float(item.get("height")) for item in shapes(svg, "rect", "base")]
    assert len(heights) == 2
    assert heights[0] == pytest.approx(3 * heights[1], abs=0.2)
    assert len(shapes(svg, "rect", "tuned")) == 1


def test_pictures_of_nothing_are_empty():
    assert lines({"tuned": []}, title="t", x_label="x") == ""
    assert whiskers([], title="t") == ""
    assert histogram([], [], title="t", x_label="x") == ""
    assert "svg" in histogram([0], [0], title="t", x_label="x")
