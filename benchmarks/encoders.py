"""Fine-tuning an encoder for spans and for labels: Metier beside the plain Hugging Face Trainer, on the same examples, steps and rate.

    python benchmarks/encoders.py --data FOLDER [--rounds 1] [--examples 1500] [--epochs 2] [--only tagging|classification]

FOLDER holds `medical/bio-ner` (BC5CDR: sentences with chemicals and diseases) and `medical/medical-abstracts-tc` (abstracts in five
classes). Both contenders train all weights of `bundled/all-minilm-l6-v2`, each in a process of its own, alternating: Metier in packed
rows of 1,024 tokens, the Trainer in batches of as many examples as such a row holds on average, padded to the longest of each batch.
Scores are those of the development sentences (strict entity F1) and of abstracts that stand in no training example (macro F1), by the
same code for both. Prints one line of JSON at the end.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from training import machine, middle, peak_bytes

BASE, RATE, SEED, ROW_TOKENS, MAXIMUM = "bundled/all-minilm-l6-v2", 2e-4, 0, 1024, 512
CONTENDERS = ("metier", "trainer")
TASKS = ("tagging", "classification")


def sentences(path: Path, limit: int) -> list[Any]:
    """Return the first sentences of a file of tagged words as records with spans."""
    from metier.records import Record
    from metier.sources.rows import Row
    from metier.sources.tagged import joined, read_tagged

    found = []
    for row in read_tagged(path, "utf-8"):
        if isinstance(row, Row) and len(found) < limit:
            text, spans = joined(row.values["tokens"], row.values["tags"])
            found.append(Record(id=f"{path.stem}-{row.place}", text=text, spans=spans, language="en"))
    return found


def abstracts(path: Path, limit: int) -> tuple[list[Any], list[Any]]:
    """Return abstracts with their class, those with two classes left out: for training, and a quarter as many for the score."""
    from metier.records import Record

    with path.open(encoding="utf-8", newline="") as stream:
        rows = [(row["medical_abstract"], row["condition_label"]) for row in csv.DictReader(stream)]
    labels: dict[str, set[str]] = {}
    for text, label in rows:
        labels.setdefault(text, set()).add(label)
    once = [(text, next(iter(found))) for text, found in labels.items() if len(found) == 1]
    records = [Record(id=str(number), text=text, label=label, language="en") for number, (text, label) in enumerate(once)]
    return records[:limit], records[limit : limit + limit // 4]


def data(task: str, folder: Path, limit: int) -> tuple[list[Any], list[Any]]:
    """Return training and test records of a task."""
    if task == "tagging":
        corpus = folder / "medical" / "bio-ner" / "BC5CDR-IOB"
        return sentences(corpus / "train.tsv", limit), sentences(corpus / "devel.tsv", limit)
    return abstracts(folder / "medical" / "medical-abstracts-tc" / "medical_tc_test.csv", limit // 2)


def score(task: str, records: list[Any], given: list[Any], labels: tuple[str, ...]) -> float:
    """Return strict entity F1, or macro F1."""
    from metier.evaluation.labels.counts import span_counts
    from metier.evaluation.measures import macro_f1

    if task == "tagging":
        return span_counts([item.spans for item in given], [record.spans for record in records], labels).f1().point()
    return macro_f1([record.label for record in records], [item.labels[0] if item.labels else "" for item in given]).point()


def prepared(task: str, arguments: argparse.Namespace) -> tuple[Any, Any, list[Any], list[Any], Any]:
    """Return base, labelling, training and test records, and the reader."""
    from metier.models import load_tokenizer, resolve
    from metier.models.words import TextReader
    from metier.training.labelled import fit_labelling

    base = resolve(BASE, root=Path.cwd())
    train, test = data(task, arguments.data, arguments.examples)
    return base, fit_labelling(train, task, MAXIMUM), train, test, TextReader(load_tokenizer(base))


def run_metier(task: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train with Metier's loop."""
    import torch
    from accelerate import Accelerator

    from metier.models import Labeller
    from metier.models.heads import layout_of, load_with_head
    from metier.models.precision import fastest_dtype
    from metier.training import TrainingSettings
    from metier.training.curriculum import plan_steps
    from metier.training.gather import Summing
    from metier.training.labelled import encode_labelled
    from metier.training.loop import run_steps
    from metier.training.objectives import label_objective
    from metier.training.settings import BatchSettings, ObjectiveSettings

    base, labelling, train, test, reader = prepared(task, arguments)
    settings = TrainingSettings(task=task, learning_rate=RATE, epochs=arguments.epochs, batch=BatchSettings(row_tokens=ROW_TOKENS, maximum_tokens=MAXIMUM))
    half = fastest_dtype() if fastest_dtype() != torch.float32 else None
    torch.manual_seed(SEED)
    model = load_with_head(base, labelling, torch.float32, seed=SEED, frozen=False).requires_grad_(True)
    layout = layout_of(model, labelling)
    began = time.perf_counter()
    taught = encode_labelled(train, reader, labelling, layout)
    encoding = time.perf_counter() - began
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0, fused=True)
    gather = Summing(model, label_objective(labelling, layout, ObjectiveSettings(), compute=half), list(model.parameters()), Accelerator(), seed=SEED)
    model.train()
    began = time.perf_counter()
    results = list(run_steps(taught, plan_steps(taught, settings), start=0, settings=settings, gather=gather, optimizer=optimizer))
    seconds = time.perf_counter() - began
    model.eval()
    given = Labeller(model, labelling, reader).predict([record.text for record in test])
    tokens = sum(result.tokens for result in results)
    return {
        "examples": len(taught.examples),
        "steps": len(results),
        "tokens": tokens,
        "seconds": seconds,
        "encoding_seconds": encoding,
        "tokens_per_second": tokens / seconds,
        "peak_memory_bytes": peak_bytes(),
        "score": score(task, test, given, labelling.labels),
        "precision": str(half or torch.float32),
    }


def run_trainer(task: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train with transformers' Trainer as it is: random batches, padded, everything else by default."""
    import torch
    import transformers

    from metier.models.heads import Layout
    from metier.models.labels import Prediction
    from metier.models.tags import spans_of
    from metier.training.labelled import encode_labelled

    base, labelling, train, test, reader = prepared(task, arguments)
    layout = Layout(causal=False, offset=0, kinds=True, pooled=not labelling.by_word)
    encoded = encode_labelled(train, reader, labelling, layout).examples
    rows = [{"input_ids": list(item.tokens), "labels": _spread(item) if labelling.by_word else item.targets[0]} for item in encoded]
    kind = transformers.AutoModelForTokenClassification if labelling.by_word else transformers.AutoModelForSequenceClassification
    transformers.set_seed(SEED)
    model = kind.from_pretrained(base.folder, num_labels=len(labelling.classes))
    collate = transformers.DataCollatorForTokenClassification if labelling.by_word else transformers.DataCollatorWithPadding
    batch = max(1, round(ROW_TOKENS * len(rows) / sum(len(row["input_ids"]) for row in rows)))
    with tempfile.TemporaryDirectory() as output:
        options = transformers.TrainingArguments(
            output_dir=output, num_train_epochs=arguments.epochs, learning_rate=RATE, per_device_train_batch_size=batch, use_cpu=True, seed=SEED,
            save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True,
        )  # fmt: skip
        trainer = transformers.Trainer(
            model=model, args=options, train_dataset=rows, data_collator=collate(reader.tokenizer), processing_class=reader.tokenizer
        )
        began = time.perf_counter()
        done = trainer.train()
        seconds = time.perf_counter() - began
    model.eval()
    given = []
    with torch.inference_mode():
        for record in test:
            reading = reader.by_word(record.text) if labelling.by_word else reader.whole([record.text])[0]
            if len(reading) > MAXIMUM:
                given.append(Prediction(("",)))
                continue
            chosen = model(input_ids=torch.tensor([reading.tokens])).logits[0].argmax(dim=-1)
            if labelling.by_word:
                given.append(Prediction(spans=spans_of(record.text, reading.words, chosen[list(reading.firsts)].tolist(), labelling.labels)))
            else:
                given.append(Prediction((labelling.labels[int(chosen)],)))
    tokens = round(sum(len(row["input_ids"]) for row in rows) * arguments.epochs)
    return {
        "examples": len(rows),
        "steps": done.global_step,
        "batch": batch,
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "peak_memory_bytes": peak_bytes(),
        "score": score(task, test, given, labelling.labels),
        "precision": str(next(model.parameters()).dtype),
    }


def _spread(item: Any) -> list[int]:
    """Return a label for each token: that of the word at its first token, none at the others."""
    labels = [-100] * len(item.tokens)
    for place, target in zip(item.places, item.targets, strict=True):
        labels[place] = target
    return labels


def child(contender: str, task: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one contender in a process of its own and return what it printed last."""
    command = [sys.executable, __file__, "--data", str(arguments.data), "--examples", str(arguments.examples), "--epochs", str(arguments.epochs)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    done = subprocess.run([*command, "--contender", contender, "--only", task], capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(f"{contender} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{task}, {contender}: {result['tokens_per_second']:.0f} tokens/s, score {result['score']:.3f}", file=sys.stderr)
    return result


def main() -> None:
    """Run the contenders in turn and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--examples", type=int, default=1500)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--only", choices=TASKS)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        print(json.dumps({"metier": run_metier, "trainer": run_trainer}[arguments.contender](arguments.only, arguments)))
        return
    before = machine()
    ours: dict[str, Any] = {}
    peers: dict[str, Any] = {"trainer": {}}
    ratios: dict[str, Any] = {}
    for task in (arguments.only,) if arguments.only else TASKS:
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
        for _ in range(arguments.rounds):
            for name in CONTENDERS:
                results[name].append(child(name, task, arguments))
        ours[task], peers["trainer"][task] = (middle(results[name]) for name in CONTENDERS)
        first, second = ours[task], peers["trainer"][task]
        ratios[task] = {
            "speed": first["tokens_per_second"] / second["tokens_per_second"],
            "memory": first["peak_memory_bytes"] / second["peak_memory_bytes"],
            "score": first["score"] - second["score"],
        }
    print(json.dumps({"benchmark": "encoders", "machine": before, "ours": ours, "peers": peers, "ratios": {"trainer": ratios}}))


if __name__ == "__main__":
    main()
