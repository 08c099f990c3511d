"""Records, a pack and artefacts of a small bilingual example."""

import json
from dataclasses import replace
from pathlib import Path

from metier.artifacts import Artifact
from metier.evaluation.retention import retention_task
from metier.packs.spec import Metric, OnDemand, Pack, PackFacts, TaskSpec, Term
from metier.records import Message, Record, identify
from metier.shards import write_records
from metier.store import Store

WORDS = {"zh": {"hot": "热", "cold": "冷"}, "en": {"hot": "hot", "cold": "cold"}}


def conversation_record(number: int, task: str, language: str, question: str, answer: str, label: str | None = None) -> Record:
    messages = (Message("user", question), Message("assistant", answer, learn=True))
    record = Record("", messages=messages, label=label, language=language, task=task, metadata={"number": number, "question": question})
    return replace(record, id=identify(record))


def feel(number: int, language: str) -> Record:
    label = WORDS[language]["hot" if number % 2 else "cold"]
    question = f"第{number}号水是热还是冷？" if language == "zh" else f"Is water number {number} hot or cold?"
    return conversation_record(number, "feel", language, question, label, label)


def add(number: int, language: str) -> Record:
    question = f"{number} 加 1 等于几？" if language == "zh" else f"What is {number} plus 1?"
    answer = f"答案：{number + 1}" if language == "zh" else f"answer: {number + 1}"
    return conversation_record(number, "add", language, question, answer)


def chat(number: int, language: str) -> Record:
    question = f"说说第{number}条河。" if language == "zh" else f"Tell me of river {number}."
    answer = f"第{number}条河流向东方，两岸有树。" if language == "zh" else f"River {number} flows to the east and has trees on both sides."
    return conversation_record(number, "chat", language, question, answer)


def read_number(text: str) -> int | None:
    digits = text.rpartition(":")[2].rpartition("：")[2].strip()
    return int(digits) if digits.isdecimal() else None


def short_answer(prediction: str, fields: dict) -> float:
    return 1.0 if len(prediction) <= len(str(fields["target"])) else 0.25


def commit_dataset(store: Store, splits: dict[str, list[Record]], name: str = "dataset") -> Artifact:
    folder = store.workspace(f"make-{name}").folder / name
    folder.mkdir(parents=True, exist_ok=True)
    for split, records in splits.items():
        write_records(folder / f"part-{split}-00000.parquet", records)
    counts = {split: len(records) for split, records in splits.items()}
    return store.commit("dataset", folder, parents=(), facts={"counts": {"split": counts}, "drops": {"too_short": 3}})


def commit_adapter(store: Store, dataset: Artifact) -> Artifact:
    folder = store.workspace("make-adapter").folder / "adapter"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter.txt").write_text("weights")
    return store.commit("adapter", folder, parents=(dataset.digest,), facts={"base": {"digest": "0" * 64}, "template": "1" * 64})


def commit_run(store: Store, dataset: Artifact) -> Artifact:
    folder = store.workspace("make-run").folder / "run"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"step": step, "loss": 3.0 / step, "validation_loss": 3.2 / step if step % 5 == 0 else None} for step in range(1, 41)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return store.commit("run", folder, parents=(dataset.digest,), facts={"base": {"name": "tiny", "digest": "0" * 64, "licence": "none"}, "steps": 40})


def all_records(count: int) -> list[Record]:
    return [make(number, language) for make in (feel, add, chat) for language in ("zh", "en") for number in range(count)]


def make_pack(folder: Path) -> Pack:
    choose = ("acc", "acc_norm", "macro_f1", "mcc", "roc_auc", "brier_score")
    feel_task = TaskSpec(task="feel", output_type="multiple_choice", metric_list=tuple(Metric(metric=name) for name in choose), metadata={"version": 1})
    add_task = TaskSpec(
        task="add",
        output_type="generate_until",
        metric_list=tuple(Metric(metric=name) for name in ("exact_match", "chrf", "rouge_l", "short_answer", "term_recall")),
        parser="read_number",
        num_fewshot=2,
        generation_kwargs={"max_gen_toks": 16},
        metadata={"version": "2.1"},
    )
    return Pack(
        facts=PackFacts(name="example", version="0.1", title={"en": "Example"}, languages=("zh", "en")),
        folder=folder,
        digest="0" * 64,
        lexicon=(Term(code="A", system="example", preferred={"zh": "答案", "en": "answer"}),),
        tasks=(feel_task, add_task),
        on_demand=OnDemand(parsers={"read_number": read_number}),
        scorers={"short_answer": short_answer},
    )


def small_dataset(store: Store) -> Artifact:
    """Six training and twenty test records of each task and language."""
    train = [make(100 + number, language) for make in (feel, add, chat) for language in ("zh", "en") for number in range(6)]
    return commit_dataset(store, {"train": train, "validation": [], "test": all_records(20)})


BOTH = ("zh", "en")
GOLD = {record.messages[0].content: record.messages[1].content for record in all_records(20)}
GOLD |= {item.prompt[-1].content: item.target for item in retention_task(40, 0, BOTH).items}


def right(prompt):
    return GOLD.get(prompt[-1].content, "a river 河")


def poor(prompt):
    """Half of the choices right, every sum in words, half of each free answer."""
    text = prompt[-1].content
    gold = GOLD.get(text, "<script>alert('base')</script>")
    if "plus" in text or "加" in text:
        return "a number"
    if "Tell" in text or "说说" in text:
        return gold[: len(gold) // 2]
    return gold if sum(text.encode()) % 2 else "?"
