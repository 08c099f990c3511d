from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from evaluation.bilingual import commit_adapter, make_pack
from metier.artifacts import Artifact
from metier.errors import InputError
from metier.evaluation import EvaluationSettings, evaluate_labels
from metier.evaluation.labels.counts import Counts, label_counts, span_counts, table, word_counts
from metier.evaluation.labels.grade import Side, prior_answer
from metier.evaluation.labels.numbers import absolute_error, discounted_gain, rank_correlation, reciprocal_rank, root_square_error
from metier.evaluation.labels.stage import _notes
from metier.models.labels import Labelling, Prediction
from metier.models.tags import spans_of
from metier.models.words import words
from metier.records import Record, Span, identify
from metier.shards import write_records
from metier.store import Store

TYPES = ("Color", "Place", "Thing")
TEXTS = ["the red pen is on the left of the door", "红笔在门的左边", "a light blue lamp, two tables", "绿灯 and 3 doors"]


def tagged(seed: int, share: float) -> list[list[int]]:
    """Return random sound tags for the words of the texts."""
    chance = random.Random(seed)
    rows = []
    for text in TEXTS * 6:
        row: list[int] = []
        for _ in words(text):
            before = row[-1] if row else 0
            goes_on = before and chance.random() < 0.4
            row.append((before + before % 2 if goes_on else 2 * chance.randrange(3) + 1) if goes_on or chance.random() < share else 0)
        rows.append(row)
    return rows


def spans(rows: list[list[int]]) -> list[tuple[Span, ...]]:
    return [spans_of(text, words(text), row, TYPES) for text, row in zip(TEXTS * 6, rows, strict=True)]


def names(rows: list[list[int]]) -> list[list[str]]:
    classes = Labelling("tagging", TYPES, 1).classes
    return [[classes[tag] for tag in row] for row in rows]


TRUE, SAID = tagged(1, 0.5), [truth if number % 2 else guess for number, (truth, guess) in enumerate(zip(tagged(1, 0.5), tagged(2, 0.4), strict=True))]
ONCE = np.ones((1, len(TRUE)))


def test_strict_scores_of_spans_are_those_of_seqeval() -> None:
    seqeval = pytest.importorskip("seqeval.metrics")
    from seqeval.scheme import IOB2

    expected = seqeval.classification_report(names(TRUE), names(SAID), mode="strict", scheme=IOB2, output_dict=True, zero_division=0)
    counts = span_counts(spans(SAID), spans(TRUE), TYPES)
    found = table(counts, ONCE, 0.95)
    for name in TYPES:
        assert_row(found[name], expected[name])
    for name in ("micro", "macro", "weighted"):
        assert_row(found[f"{name} average"], expected[f"{name} avg"])
    assert counts.f1().point() == pytest.approx(expected["micro avg"]["f1-score"])
    assert counts.macro_f1().point() == pytest.approx(expected["macro avg"]["f1-score"])
    assert counts.precision().point() == pytest.approx(expected["micro avg"]["precision"])
    assert counts.recall().point() == pytest.approx(expected["micro avg"]["recall"])


def test_scores_by_word_are_those_of_scikit_learn() -> None:
    true = [name[2:] for row in names(TRUE) for name in row]
    said = [name[2:] for row in names(SAID) for name in row]
    expected = reference.classification_report(true, said, labels=list(TYPES), output_dict=True, zero_division=0)
    found = table(word_counts(TEXTS * 6, spans(SAID), spans(TRUE), TYPES), ONCE, 0.95)
    for name in TYPES:
        assert_row(found[name], expected[name])
    for name in ("micro", "macro", "weighted"):
        assert_row(found[f"{name} average"], expected[f"{name} avg"])


def test_scores_of_several_labels_are_those_of_scikit_learn() -> None:
    chance = np.random.default_rng(4)
    true, said = chance.random((40, 4)) < 0.4, chance.random((40, 4)) < 0.5
    labels = ["a", "b", "c", "d"]

    def named(rows: np.ndarray) -> list[tuple[str, ...]]:
        return [tuple(label for label, there in zip(labels, row, strict=True) if there) for row in rows]

    counts = label_counts(named(said), named(true), labels)
    expected = reference.classification_report(true, said, target_names=labels, output_dict=True, zero_division=0)
    found = table(counts, np.ones((1, 40)), 0.95)
    for name in labels:
        assert_row(found[name], expected[name])
    for name in ("micro", "macro", "weighted"):
        assert_row(found[f"{name} average"], expected[f"{name} avg"])


def assert_row(found: dict[str, object], expected: dict[str, float]) -> None:
    assert found["precision"] == pytest.approx(expected["precision"])
    assert found["recall"] == pytest.approx(expected["recall"])
    assert found["f1"]["value"] == pytest.approx(expected["f1-score"])  # type: ignore[index]
    assert found["support"] == expected["support"]


def test_a_span_with_one_wrong_border_is_wrong_as_an_entity_and_right_by_word() -> None:
    true, said = [(Span(0, 8, "Thing"),)], [(Span(4, 8, "Thing"),)]
    assert span_counts(said, true, ["Thing"]).f1().point() == 0
    words_right = word_counts(["red pens"], said, true, ["Thing"])
    assert (words_right.precision().point(), words_right.recall().point()) == (1.0, 0.5)


def test_a_label_that_training_never_saw_has_a_row_of_its_own() -> None:
    counts = label_counts([("a",), ("a",)], [("a",), ("new",)], ["a", "b"])
    assert counts.names == ("a", "b", "new")
    assert table(counts, np.ones((1, 2)), 0.95)["new"]["recall"] == 0.0


def test_f1_of_a_resample_is_that_of_the_items_drawn() -> None:
    counts = span_counts(spans(SAID), spans(TRUE), TYPES)
    drawn = np.random.default_rng(0).multinomial(len(TRUE), np.full(len(TRUE), 1 / len(TRUE)), size=5).astype(float)
    for row, micro, macro in zip(drawn, counts.f1().statistic(drawn), counts.macro_f1().statistic(drawn), strict=True):
        places = np.repeat(np.arange(len(TRUE)), row.astype(int))
        picked = Counts(counts.names, counts.right[places], counts.said[places], counts.true[places])
        assert micro == pytest.approx(picked.f1().point())
        assert macro == pytest.approx(picked.macro_f1().point())


def test_numbers_are_measured_as_scipy_and_scikit_learn_do() -> None:
    chance = np.random.default_rng(3)
    true = chance.integers(0, 6, 50).astype(float).tolist()
    said = (np.asarray(true) + chance.normal(0, 2, 50)).round(1).tolist()
    assert absolute_error(said, true).point() == pytest.approx(reference.mean_absolute_error(true, said))
    assert root_square_error(said, true).point() == pytest.approx(reference.root_mean_squared_error(true, said))
    assert rank_correlation(said, true).point() == pytest.approx(stats.spearmanr(said, true).statistic)
    assert np.isnan(rank_correlation([1.0] * 50, true).point())


def test_candidates_of_one_question_are_ranked_against_each_other() -> None:
    scores, wanted = [0.1, 0.9, 0.5, 0.3, 0.8, 0.7], [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    questions = ["a", "a", "a", "b", "b", "alone"]
    assert reciprocal_rank(scores, wanted, questions).point() == pytest.approx((1 / 3 + 1) / 2)
    first = reference.ndcg_score([wanted[:3]], [scores[:3]])
    second = reference.ndcg_score([wanted[3:5]], [scores[3:5]])
    assert discounted_gain(scores, wanted, questions).point() == pytest.approx((first + second) / 2)
    assert reciprocal_rank([0.5, 0.5], [0.0, 1.0], ["a", "a"]).point() == 0.5


class Scripted:
    """Labels by a function of the text."""

    def __init__(self, labelling: Labelling, answers: dict[str, Prediction]) -> None:
        self.labelling, self.answers = labelling, answers

    def predict(self, texts: list[str], pairs: list[str | None], **_: object) -> list[Prediction]:
        return [self.answers[text] for text in texts]


def dataset_of(store: Store, records: list[Record]) -> Artifact:
    folder = store.root.parent / "making"
    folder.mkdir(parents=True, exist_ok=True)
    write_records(folder / "part-test-00000.parquet", records)
    return store.commit("dataset", folder, parents=[], facts={"counts": {}})


def marked(number: int) -> Record:
    text = f"the red pen {number}" if number % 2 else f"红笔在第{number}页"
    piece = "red pen" if number % 2 else "红笔"
    made = Record("", text, spans=(Span(text.index(piece), text.index(piece) + len(piece), "Thing", piece),), language="en" if number % 2 else "zh")
    return replace(made, id=identify(made))


@pytest.fixture
def tagging(tmp_path: Path) -> Artifact:
    store = Store(tmp_path / ".metier")
    records = [marked(number) for number in range(40)]
    dataset = dataset_of(store, records)
    answers = {item.text: Prediction(spans=item.spans if number % 4 else ()) for number, item in enumerate(records)}
    model = Scripted(Labelling("tagging", ("Thing",), 64), answers)
    settings = EvaluationSettings(resamples=200, tasks=("held-out",))
    return evaluate_labels(dataset, commit_adapter(store, dataset), model, make_pack(tmp_path), settings, workspace=store.workspace("e"))


def test_the_evaluation_of_spans_has_intervals_tables_and_every_answer(tagging: Artifact) -> None:
    row = tagging.facts["tasks"]["tagging"]["entity_f1"]
    assert row["tuned"]["value"] == pytest.approx(2 * 30 / 70)
    assert row["tuned"]["low"] < row["tuned"]["value"] < row["tuned"]["high"]
    assert (row["base"]["value"], row["n"], row["verdict"]) == (0.0, 40, "gain")
    assert set(row["languages"]) == {"en", "zh"}
    assert tagging.facts["tables"]["entity"]["Thing"]["recall"] == 0.75
    assert set(tagging.facts["tables"]) == {"entity", "token"}
    assert set(tagging.files) == {"results.json", "report.html", "samples/tagging.jsonl"}
    samples = [json.loads(line) for line in tagging.file("samples/tagging.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(samples) == 40
    assert {item["target"] for item in samples if item["language"] == "zh"} == {"Thing 0-2: 红笔"}
    page = tagging.file("report.html").read_text(encoding="utf-8")
    assert "Every class" in page
    assert "macro average" in page
    assert "no span anywhere" in page
    results = json.loads(tagging.file("results.json").read_text(encoding="utf-8"))
    assert results["tables"]["token"]["Thing"]["support"] == 80


def test_labels_that_training_never_saw_and_texts_that_are_too_long_are_said(tmp_path: Path) -> None:
    store = Store(tmp_path / ".metier")
    records = [replace(marked(number), label="new" if number < 3 else "a" if number % 2 else "b") for number in range(20)]
    answers = {item.text: Prediction((str(item.label),), probabilities=(0.5, 0.5)) for item in records[4:]}
    answers |= {item.text: Prediction(("a",), probabilities=(0.9, 0.1)) for item in records[:3]} | {records[3].text: Prediction(read=False)}
    model = Scripted(Labelling("classification", ("a", "b"), 64, prior=("b",)), answers)
    dataset = dataset_of(store, records)
    made = evaluate_labels(dataset, commit_adapter(store, dataset), model, make_pack(tmp_path), EvaluationSettings(), workspace=store.workspace("e"))
    row = made.facts["tasks"]["classification"]["acc"]
    assert row["tuned"]["value"] == pytest.approx(16 / 20)
    assert row["invalid"] == {"base": 0, "tuned": 1}
    notes = " ".join(made.facts["notes"])
    assert "3 test records have a label that the training split has not (new)" in notes
    assert "1 test records are longer than the 64 tokens" in notes
    assert "b every time" in notes


def test_a_test_split_without_answers_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / ".metier")
    dataset = dataset_of(store, [marked(1)])
    model = Scripted(Labelling("classification", ("a", "b"), 64), {})
    with pytest.raises(InputError, match="no record of the test split says what the right answer is"):
        evaluate_labels(dataset, commit_adapter(store, dataset), model, make_pack(tmp_path), EvaluationSettings(), workspace=store.workspace("e"))


@pytest.mark.parametrize(
    ("labelling", "said"),
    [
        (Labelling("classification", ("b", "a"), 8, ("b",), stated=True), "what was stated before a private training: b every time"),
        (Labelling("regression", (), 8, centre=2.5, spread=1.0, stated=True), "what was stated before a private training: the stated centre, 2.5"),
        (Labelling("pair", (), 8, centre=0.5, stated=True), "what was stated before a private training: the middle of the scale, 0.5"),
        (Labelling("classification", ("a", "b"), 8, ("a",)), "what is most frequent in the training split: a every time"),
    ],
)
def test_the_report_says_where_the_base_s_side_comes_from(labelling: Labelling, said: str) -> None:
    side = Side([Record("1", text="x", label="c")], [prior_answer(labelling)], labelling, [("c",) if labelling.labels else ()])
    first, *others = _notes(side, EvaluationSettings())
    assert first.endswith(said)
    assert [("was not stated" in note) is labelling.stated and "(c)" in note for note in others] == [True] * bool(labelling.labels)
