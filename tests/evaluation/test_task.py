import json
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.bilingual import add, chat, commit_dataset, conversation_record, feel
from metier.errors import InputError
from metier.evaluation.settings import EvaluationSettings
from metier.evaluation.task import build_tasks, task_files_digest
from metier.packs.spec import Metric, TaskSpec
from metier.records import Message

BOTH = ("zh", "en")


def build(dataset, pack, languages=BOTH, project=Path(), **settings):
    tasks, notes = build_tasks(dataset, pack, EvaluationSettings(**settings), languages, project=project)
    return {task.name: task for task in tasks}, notes


def test_the_default_asks_the_pack_the_held_out_rest_and_the_probe(dataset, pack):
    tasks, notes = build(dataset, pack)
    assert list(tasks) == ["feel", "add", "held-out", "held-out-answers", "retention"]
    assert {name: len(task.items) for name, task in tasks.items()} == {"feel": 40, "add": 40, "held-out": 80, "held-out-answers": 40, "retention": 160}
    assert notes == []


def test_choices_are_the_labels_of_the_training_records_of_the_same_language(dataset, pack):
    tasks, _ = build(dataset, pack)
    assert {(item.language, item.choices) for item in tasks["feel"].items} == {("zh", ("冷", "热")), ("en", ("cold", "hot"))}
    item = next(item for item in tasks["feel"].items if item.fields["number"] == 3 and item.language == "zh")
    assert (item.prompt, item.target) == ((Message("user", "第3号水是热还是冷？"),), "热")


def test_an_item_whose_answer_is_no_choice_is_left_out_and_counted(store, pack):
    odd = conversation_record(1, "feel", "en", "Is it?", "lukewarm", "lukewarm")
    dataset = commit_dataset(store, {"train": [feel(100, "en"), feel(101, "en")], "test": [odd, feel(1, "en")]}, "odd")
    tasks, _ = build(dataset, pack, tasks=("feel",))
    assert len(tasks["feel"].items) == 1
    assert tasks["feel"].left_out == {"the right answer is not among the choices": 1}


def test_solved_examples_come_from_training_records_of_the_same_language(dataset, pack):
    tasks, _ = build(dataset, pack)
    training = {record.messages[0].content: record.messages[1].content for language in BOTH for record in (add(100 + n, language) for n in range(6))}
    for item in tasks["add"].items:
        assert [message.role for message in item.prompt] == ["user", "assistant", "user", "assistant", "user"]
        assert training[item.prompt[0].content] == item.prompt[1].content
        assert ("加" in item.prompt[0].content) == (item.language == "zh")


def test_a_system_message_stays_before_the_solved_examples(store, pack):
    plain = add(1, "en")
    record = replace(plain, messages=(Message("system", "Be short."), *plain.messages))
    dataset = commit_dataset(store, {"train": [add(100, "en"), add(101, "en")], "test": [record]}, "system")
    tasks, _ = build(dataset, pack, tasks=("add",))
    roles = [message.role for message in tasks["add"].items[0].prompt]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]


def test_the_sample_is_the_same_whatever_the_order_of_the_records(store, pack):
    records = [chat(number, "en") for number in range(30)]
    first = commit_dataset(store, {"train": [], "test": records}, "first")
    second = commit_dataset(store, {"train": [], "test": records[::-1]}, "second")
    picks = [[item.id for item in build(dataset, pack, limit=5, tasks=("held-out",))[0]["held-out"].items] for dataset in (first, second)]
    assert picks[0] == picks[1]
    assert len(picks[0]) == 5
    other = build(first, pack, limit=5, seed=1, tasks=("held-out",))[0]["held-out"].items
    assert [item.id for item in other] != picks[0]


def test_the_limit_is_per_language(dataset, pack):
    tasks, _ = build(dataset, pack, limit=7, free_text_limit=3)
    assert [item.language for item in tasks["feel"].items] == ["en"] * 7 + ["zh"] * 7
    assert tasks["feel"].available == 40
    assert len(tasks["held-out-answers"].items) == 6


def test_only_the_projects_languages_are_asked(dataset, pack):
    tasks, _ = build(dataset, pack, languages=("zh",))
    assert {item.language for task in tasks.values() for item in task.items} == {"zh"}


def test_what_has_no_item_is_said(store, pack):
    dataset = commit_dataset(store, {"train": [feel(1, "en")], "test": [add(1, "en")]}, "few")
    tasks, notes = build(dataset, pack)
    assert list(tasks) == ["add", "held-out", "retention"]
    assert notes == ["feel: not asked, no item for it"]


def test_nothing_at_all_to_ask_is_an_error_that_says_what_to_do(store, pack):
    dataset = commit_dataset(store, {"train": [], "test": []}, "empty")
    with pytest.raises(InputError, match="add `retention`"):
        build(dataset, pack, tasks=("pack",))


def test_a_record_without_language_is_told_by_its_letters(store, pack):
    records = [replace(chat(1, "zh"), language=None), replace(chat(1, "en"), language=None)]
    dataset = commit_dataset(store, {"train": [], "test": records}, "untold")
    tasks, _ = build(dataset, pack, tasks=("held-out",))
    assert sorted(item.language for item in tasks["held-out"].items) == ["en", "zh"]


def test_unknown_names_files_outside_and_bad_specs_are_all_named_at_once(dataset, pack, tmp_path: Path):
    wrong = TaskSpec(
        task="wrong",
        dataset_path="rows.jsonl",
        output_type="multiple_choice",
        metric_list=(Metric(metric="chrf"),),
        parser="no_such",
        num_fewshot=1,
        generation_kwargs={"max_gen_tok": 3, "temperature": 1.0},
        metadata={"version": 1},
    )
    with pytest.raises(InputError) as caught:
        build(dataset, replace(pack, tasks=(*pack.tasks, wrong)), project=tmp_path / "inner", tasks=("pack", "fel", "../t.yaml", "gone.yaml"))
    text = str(caught.value)
    for expected in (
        "no task 'fel'",
        "did you mean 'feel'?",
        "outside the project folder",
        "no such file",
        "'chrf' does not fit multiple_choice",
        "no parser 'no_such'",
        "wrong.doc_to_text",
        "wrong.doc_to_choice",
        "wrong.num_fewshot",
        "did you mean 'max_gen_toks'?",
        "answers are greedy",
    ):
        assert expected in text


TASK = """\
task: rivers
dataset_path: rivers.jsonl
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
doc_to_choice: ["{{A}}", "{{B}}"]
metric_list: [{metric: acc}]
metadata: {version: 3}
"""


def test_a_task_file_of_the_project_brings_its_own_items(dataset, pack, tmp_path: Path):
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "rivers.yaml").write_text(TASK, encoding="utf-8")
    rows = [
        {"id": "r1", "question": "Which is longer?", "A": "Nile", "B": "Rhine", "answer": "0"},
        {"question": "哪条更长？", "A": "长江", "B": "淮河", "answer": "长江"},
        {"question": "哪条更短？", "A": "长江", "B": "淮河", "answer": "C"},
        {"question": "Lequel?", "A": "x", "B": "y", "answer": "x", "language": "fr"},
    ]
    (folder / "rivers.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    tasks, _ = build(dataset, pack, project=tmp_path, tasks=("tasks/rivers.yaml",))
    task = tasks["rivers"]
    assert [(item.language, item.target, item.choices, item.record_id) for item in task.items] == [
        ("en", "Nile", ("Nile", "Rhine"), "r1"),
        ("zh", "长江", ("长江", "淮河"), "2"),
    ]
    assert task.version == "3"
    assert task.left_out == {"language fr is not asked": 1, "the right answer is not among the choices": 1}


def test_the_digest_of_task_files_changes_with_the_file_and_with_its_items(tmp_path: Path):
    (tmp_path / "rivers.yaml").write_text(TASK, encoding="utf-8")
    settings = EvaluationSettings(tasks=("pack", "rivers.yaml"))
    seen = [task_files_digest(settings, tmp_path)]
    for name, text in (("rivers.jsonl", "{}\n"), ("rivers.jsonl", '{"a": 1}\n'), ("rivers.yaml", TASK.replace("3", "4"))):
        (tmp_path / name).write_text(text, encoding="utf-8")
        seen.append(task_files_digest(settings, tmp_path))
    assert len(set(seen)) == 4
    assert task_files_digest(EvaluationSettings(), tmp_path) == task_files_digest(EvaluationSettings(), tmp_path / "elsewhere")


def test_generation_settings_of_a_task_are_kept(dataset, pack):
    stopping = TaskSpec(
        task="chat", output_type="generate_until", metric_list=(Metric(metric="chrf"),), generation_kwargs={"until": "\n"}, metadata={"version": 1}
    )
    tasks, _ = build(dataset, replace(pack, tasks=(*pack.tasks, stopping)), tasks=("pack",), max_new_tokens=33)
    assert (tasks["add"].max_new_tokens, tasks["chat"].max_new_tokens, tasks["chat"].stop) == (16, 33, ("\n",))


def test_a_template_over_the_fields_replaces_the_records_own_messages(dataset, pack):
    spec = TaskSpec(
        task="restated",
        records="feel",
        language="en",
        output_type="multiple_choice",
        doc_to_text="Q{{ number }} ({{ language }})",
        doc_to_target="{{ label }}",
        doc_to_choice=("hot", "cold"),
        metric_list=(Metric(metric="acc"),),
        metadata={"version": 1},
    )
    tasks, _ = build(dataset, replace(pack, tasks=(spec,)), tasks=("restated",))
    item = next(item for item in tasks["restated"].items if item.fields["number"] == 4)
    assert (item.prompt[-1].content, item.target, item.choices) == ("Q4 (en)", "cold", ("hot", "cold"))
    assert len(tasks["restated"].items) == 20
