"""Projects that teach labels and spans on published corpora: an encoder beside what is most frequent, and beside logistic regression.

    python benchmarks/labels.py --data FOLDER --work FOLDER [--only bc5cdr ...]

`--data` holds `medical/bio-ner`, `medical/medical-abstracts-tc`, `law/unfair-tos`, `law/cuad-clauses` and `finance/german-credit` as
published. Each project is run from its file to its evaluation by `metier evaluate`. The classical baseline reads the same training
records (words and pairs of words by TF-IDF; of credit the columns) and answers the same test records. The last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from training import machine

PROJECT = """metier: 1
project: labels
pack: medical
languages: [en]
base: bundled/all-minilm-l6-v2
sources:
  - {{path: data/*, licence: as published, basis: published data set, language: en, {source}}}
prepare:
  deidentify: {{enabled: false}}
  {prepare}
training: {{task: {task}, {training}}}
evaluation: {{tasks: [held-out], limit: 10000}}
"""
SPANS = ("tagging", "format: conll", "split: {test: {path: data/devel.tsv}, validation: 0.05}", "epochs: 3")
TEXTS = ("classification", "columns: {text: text, label: label}, format: csv", "split: {test: 0.25, validation: 0.05, stratify: [label]}", "epochs: 3")

RARE = "objectives: {class_weights: balanced}, validation: {by: score, times: 8, limit: 1000, patience: 4}"
"""For classes of very different sizes, as the baseline weighs them too."""


def tagged(corpus: str) -> Callable[[Path, Path], None]:
    """Return a function that copies the files of a corpus of tagged words."""

    def bring(data: Path, folder: Path) -> None:
        for name in ("train.tsv", "devel.tsv"):
            shutil.copy(data / "medical" / "bio-ner" / corpus / name, folder)

    return bring


def write(folder: Path, rows: list[tuple[str, str]]) -> None:
    """Write texts with their labels; a text that stands there with two labels is left out."""
    labels: dict[str, set[str]] = {}
    for text, label in rows:
        labels.setdefault(text, set()).add(label)
    with (folder / "all.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        writer.writerows([text, next(iter(found))] for text, found in labels.items() if len(found) == 1)


def abstracts(data: Path, folder: Path) -> None:
    """Medical abstracts in five classes."""
    with (data / "medical" / "medical-abstracts-tc" / "medical_tc_test.csv").open(encoding="utf-8", newline="") as stream:
        write(folder, [(row["medical_abstract"], f"class {row['condition_label']}") for row in csv.DictReader(stream)])


def beginnings(data: Path, folder: Path) -> None:
    """The first 500 characters of the same abstracts."""
    abstracts(data, folder)
    with (folder / "all.csv").open(encoding="utf-8", newline="") as stream:
        rows = [(row["text"][:500], row["label"]) for row in csv.DictReader(stream)]
    write(folder, rows)


def terms(data: Path, folder: Path) -> None:
    """Sentences of terms of service: unfair in one of eight ways, or other."""
    path = next((data / "law" / "unfair-tos").glob("*.tsv"))
    with path.open(encoding="utf-8", newline="") as stream:
        write(folder, [(row["text"], row["label"]) for row in csv.DictReader(stream, delimiter="\t")])


def clauses(data: Path, folder: Path) -> None:
    """Clauses of contracts, by the kind that they are a positive example of."""
    rows = []
    for path in sorted((data / "law" / "cuad-clauses").rglob("*.tsv")):
        with path.open(encoding="utf-8", newline="") as stream:
            rows += [(row["text"], path.parent.name) for row in csv.DictReader(stream, delimiter="\t") if row["label"] == "Yes"]
    write(folder, rows)


def credit(data: Path, folder: Path) -> None:
    """Applicants for credit: their row as a sentence of columns and values."""
    with (data / "finance" / "german-credit" / "germancredit.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    write(
        folder,
        [("; ".join(f"{name.replace('_', ' ')}: {value}" for name, value in row.items() if name != "creditability"), row["creditability"]) for row in rows],
    )


PROJECTS: dict[str, tuple[Callable[[Path, Path], None], tuple[str, str, str, str]]] = {
    "bc5cdr": (tagged("BC5CDR-IOB"), SPANS),
    "ncbi-disease": (tagged("NCBI-disease-IOB"), SPANS),
    "abstracts": (abstracts, TEXTS),
    "abstracts-500": (beginnings, (*TEXTS[:3], "epochs: 2, method: full, learning_rate: 1e-4")),
    "abstracts-500-lora": (beginnings, (*TEXTS[:3], "epochs: 2, method: lora, adaptation: {rank: 8}")),
    "abstracts-500-lora-slow": (beginnings, (*TEXTS[:3], "epochs: 2, method: lora, adaptation: {rank: 8}, learning_rate: 5e-4")),
    "unfair-terms": (terms, (*TEXTS[:3], f"epochs: 8, {RARE}")),
    "clauses": (clauses, (*TEXTS[:3], f"epochs: 4, {RARE}")),
    "credit": (credit, (*TEXTS[:3], "epochs: 6, objectives: {class_weights: balanced}, validation: {by: score, times: 6, patience: 4}")),
}


def columns(text: str) -> dict[str, Any]:
    """Return the columns of a row that stands in a text, numbers as numbers."""
    pairs = (part.split(": ", 1) for part in text.split("; "))
    return {name: float(value) if value.replace(".", "", 1).isdigit() else value for name, value in pairs}


def classical(root: Path, *, reads: Literal["words", "letters", "columns"] = "words", share: float = 1.0) -> dict[str, float]:
    """Return the macro F1 and accuracy of logistic regression on the project's own splits, the test split as a whole.

    It reads TF-IDF of words and pairs of words, of letters and pairs of letters (Chinese), or columns; `share` is that of the training records, from the first.
    """
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, f1_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    from metier.project import load_project
    from metier.shards import dataset_records

    dataset = load_project(root).store.newest("dataset")
    assert dataset is not None
    train, test = (list(dataset_records(dataset, split)) for split in ("train", "test"))
    train = train[: round(share * len(train))]
    tabular = reads == "columns"
    table = (FunctionTransformer(lambda texts: [columns(text) for text in texts]), DictVectorizer(sparse=False), StandardScaler())
    words = (TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, analyzer="char" if reads == "letters" else "word"),)
    model = make_pipeline(*(table if tabular else words), LogisticRegression(max_iter=2000, C=1 if tabular else 10, class_weight="balanced"))
    began = time.perf_counter()
    model.fit([given(record) for record in train], [record.label for record in train])
    said, true = model.predict([given(record) for record in test]), [record.label for record in test]
    seconds = time.perf_counter() - began
    scores = {"macro_f1": float(f1_score(true, said, average="macro", labels=sorted(set(true)))), "acc": float(accuracy_score(true, said))}
    return scores | {"seconds": seconds, "records": len(train), "items": len(test)}


def given(record: Any) -> str:
    """Return what is asked of a record: its text, or what the user says."""
    return str(record.text or record.messages[0].content)


def run(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Write one project, run it and return what it scored."""
    bring, (task, source, prepare, training) = PROJECTS[name]
    root = arguments.work / name
    shutil.rmtree(root, ignore_errors=True)
    (root / "data").mkdir(parents=True)
    bring(arguments.data, root / "data")
    (root / "metier.yaml").write_text(PROJECT.format(task=task, source=source, prepare=prepare, training=training), encoding="utf-8")
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "metier.cli.main", "evaluate", str(root), "--json"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} ended with {done.returncode}")
    outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    found = {
        "splits": outcome["dataset"]["splits"],
        "training": outcome["run"],
        "scores": outcome["evaluation"]["tasks"][task],
        "wall_seconds": time.perf_counter() - began,
    }
    if task == "classification":
        found["classical"] = classical(root, reads="columns" if name == "credit" else "words")
    first = next(iter(found["scores"]))
    print(
        f"{name}: {first} {found['scores'][first]['tuned']}, most frequent {found['scores'][first]['base']}, classical {found.get('classical')}",
        file=sys.stderr,
    )
    return found


def main() -> None:
    """Run the projects one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=sorted(PROJECTS), default=list(PROJECTS))
    arguments = parser.parse_args()
    before = machine()
    ours = {name: run(name, arguments) for name in arguments.only}
    peers = {"classical": {name: found.pop("classical") for name, found in ours.items() if "classical" in found}}
    ratios = {name: {"macro_f1": ours[name]["scores"]["macro_f1"]["tuned"]["value"] - found["macro_f1"]} for name, found in peers["classical"].items()}
    print(json.dumps({"benchmark": "labels", "machine": before, "ours": ours, "peers": peers, "ratios": {"classical": ratios}}))


if __name__ == "__main__":
    main()
