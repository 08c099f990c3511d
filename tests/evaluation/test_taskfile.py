from pathlib import Path

import pytest

from metier.errors import ConfigError
from metier.evaluation.taskfile import read_rows, read_task

GOOD = """\
task: rivers
dataset_path: rivers.jsonl
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
doc_to_choice: ["{{A}}", "{{B}}"]
metric_list:
  - metric: acc
  - {metric: brier_score, higher_is_better: false}
metadata: {version: 1.0}
"""

BAD = """\
task: rivers
dataset_path: rivers.jsonl
dataset_name: main
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
process_docs: !function code.process
num_fewshot: three
filter_list:
  - name: x
generation_kwargs:
  until: ["\\n", "。"]
metric_list:
  - metric: exact_match
    aggregation: mean
colour: red
metadata: {version: 1.0}
"""


def test_a_task_file_with_lm_evals_keys_is_read(tmp_path: Path):
    path = tmp_path / "rivers.yaml"
    path.write_text(GOOD, encoding="utf-8")
    spec = read_task(path)
    assert spec.task == "rivers"
    assert spec.doc_to_choice == ("{{A}}", "{{B}}")
    assert [metric.metric for metric in spec.metric_list] == ["acc", "brier_score"]


def test_every_fault_is_named_at_once_with_its_line(tmp_path: Path):
    path = tmp_path / "rivers.yaml"
    path.write_text(BAD.replace("!function ", ""), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_task(path)
    found = {(fault.key, fault.line) for fault in caught.value.faults}
    assert found == {
        ("dataset_name", 3),
        ("process_docs", 7),
        ("filter_list", 9),
        ("generation_kwargs.until", 12),
        ("metric_list[0].aggregation", 15),
        ("num_fewshot", 8),
        ("colour", 16),
    }
    assert "code in a task file is never run" in str(caught.value)
    assert "name a parser of the pack" in str(caught.value)


def test_code_hooks_in_yaml_are_refused(tmp_path: Path):
    path = tmp_path / "rivers.yaml"
    path.write_text(BAD, encoding="utf-8")
    with pytest.raises(ConfigError, match="function"):
        read_task(path)


@pytest.mark.parametrize(("old", "new", "key"), [("multiple_choice", "loglikelihood", "output_type"), ('["{{A}}", "{{B}}"]', '"{{choices}}"', "doc_to_choice")])
def test_forms_of_lm_eval_that_mean_something_else_are_refused_by_name(tmp_path: Path, old: str, new: str, key: str):
    path = tmp_path / "rivers.yaml"
    path.write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_task(path)
    assert [fault.key for fault in caught.value.faults] == [key]


def test_a_task_file_that_is_a_list_is_refused(tmp_path: Path):
    path = tmp_path / "rivers.yaml"
    path.write_text("- task: x\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="mapping"):
        read_task(path)


def test_rows_are_read_with_every_bad_line_named(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text('\ufeff{"a": "一\u2028二"}\n\nnot json\n[1]\n{"a": 2}\n', encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_rows(path, tmp_path)
    assert [fault.line for fault in caught.value.faults] == [3, 4]
    path.write_text('{"a": "一\u2028二"}\n{"a": 2}\n', encoding="utf-8")
    assert read_rows(path, tmp_path) == [{"a": "一\u2028二"}, {"a": 2}]


def test_rows_outside_the_folder_missing_or_not_utf8_are_refused(tmp_path: Path):
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "rows.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match="outside"):
        read_rows(inner / ".." / "rows.jsonl", inner)
    with pytest.raises(ConfigError, match="no such file"):
        read_rows(inner / "rows.jsonl", inner)
    (inner / "rows.jsonl").write_bytes("{}".encode("utf-16"))
    with pytest.raises(ConfigError, match="UTF-8"):
        read_rows(inner / "rows.jsonl", inner)
