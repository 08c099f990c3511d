"""Task files: YAML with lm-eval's key names, and their items in JSONL. Every fault with its file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from metier.config import Document, load_yaml, parse
from metier.errors import ConfigError, Fault
from metier.packs.spec import TaskSpec

__all__ = ["read_rows", "read_task"]

# lm-eval's keys (lm_eval/config/task.py) that mean something here would have to do otherwise, and what to write instead.
_UNSUPPORTED = {
    "dataset_name": "put the items into one JSONL file and name it under dataset_path",
    "dataset_kwargs": "put the items into one JSONL file and name it under dataset_path",
    "custom_dataset": "put the items into one JSONL file and name it under dataset_path",
    "training_split": "leave it out: solved examples come from the dataset's training split",
    "validation_split": "write test_split: validation",
    "fewshot_split": "leave it out: solved examples come from the dataset's training split",
    "fewshot_config": "use num_fewshot alone",
    "fewshot_delimiter": "leave it out: solved examples are messages of the conversation",
    "target_delimiter": "leave it out: the answer is a message of its own",
    "description": "put the text at the head of doc_to_text",
    "process_docs": "prepare the items beforehand: code in a task file is never run",
    "process_results": "name a scorer of the pack in metric_list: code in a task file is never run",
    "filter_list": "name a parser of the pack under parser",
    "repeats": "leave it out: answers are greedy, so a repetition gives the same one",
    "should_decontaminate": "leave it out: the dataset is checked for overlap when it is built",
    "doc_to_decontamination_query": "leave it out: the dataset is checked for overlap when it is built",
    "doc_to_image": "images are not supported in tasks",
    "doc_to_audio": "audio is not supported in tasks",
    "unsafe_code": "code in a task file is never run",
    "gen_prefix": "put the beginning of the answer into doc_to_text",
    "group": "list the tasks under evaluation.tasks",
    "tag": "list the tasks under evaluation.tasks",
    "include": "write the keys out: a task file stands alone",
    "num_samples": "use evaluation.limit",
}
_METRIC_KEYS = {
    "aggregation": "leave it out: every metric knows how it is aggregated",
    "hf_evaluate": "leave it out",
    "ignore_case": "leave it out: exact comparison ignores case",
}
_METRIC_KEYS |= {"ignore_punctuation": "leave it out: exact comparison ignores punctuation at the ends", "weight_by_size": "leave it out"}


def _strip(document: Document) -> tuple[Document, list[Fault]]:
    """Return the document without lm-eval keys that are not supported, and a fault for each of them."""
    value = dict(document.value)
    faults = []
    for key in [key for key in value if key in _UNSUPPORTED]:
        faults.append(document.fault((key,), "this key of lm-eval is not supported", _UNSUPPORTED[key]))
        del value[key]
    metrics = value.get("metric_list")
    if isinstance(metrics, list):
        value["metric_list"] = [_strip_metric(document, index, metric, faults) for index, metric in enumerate(metrics)]
    kwargs = value.get("generation_kwargs")
    if isinstance(kwargs, dict) and isinstance(kwargs.get("until"), list):
        faults.append(document.fault(("generation_kwargs", "until"), "only one stop text is supported here", 'give one text, for instance until: "\\n"'))
        value["generation_kwargs"] = {key: item for key, item in kwargs.items() if key != "until"}
    if value.get("output_type") in ("loglikelihood", "loglikelihood_rolling"):
        faults.append(
            document.fault(("output_type",), f"{value['output_type']} is not supported", "use multiple_choice or generate_until; held-out covers likelihood")
        )
        value["output_type"] = "generate_until"
    if isinstance(value.get("doc_to_choice"), str):
        faults.append(document.fault(("doc_to_choice",), "one template for all choices is not supported", 'list them: ["{{A}}", "{{B}}"]'))
        value["doc_to_choice"] = [value["doc_to_choice"]]
    return Document(document.path, value, document.lines), faults


def _strip_metric(document: Document, index: int, metric: Any, faults: list[Fault]) -> Any:
    if not isinstance(metric, dict):
        return metric
    unsupported = [key for key in metric if key in _METRIC_KEYS]
    faults += [document.fault(("metric_list", index, key), "this key of lm-eval is not supported", _METRIC_KEYS[key]) for key in unsupported]
    return {key: item for key, item in metric.items() if key not in _METRIC_KEYS}


def read_task(path: Path) -> TaskSpec:
    """Read one task file. Raises ConfigError with every fault, also for lm-eval keys that Metier does not do."""
    document = load_yaml(path)
    if not isinstance(document.value, dict):
        raise ConfigError(document.fault((), "a task file is a mapping of keys", "begin with: task: a-name"))
    stripped, faults = _strip(document)
    try:
        spec = parse(stripped, TaskSpec)
    except ConfigError as error:
        raise ConfigError([*faults, *error.faults]) from None
    if faults:
        raise ConfigError(faults)
    return spec


def read_rows(path: Path, folder: Path) -> list[dict[str, Any]]:
    """Read a JSONL file of items that lies in `folder` or below. Raises ConfigError with every bad line."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(Fault("the items lie outside the folder of their task file", path, remedy="put the JSONL file beside the task file"))
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise ConfigError(
            Fault("there is no such file of items", path, remedy="write dataset_path: dataset, or the name of a JSONL file beside the task file")
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(Fault(f"not UTF-8 (byte {error.start})", path, remedy="save the file as UTF-8")) from None
    except OSError as error:
        raise ConfigError(Fault(f"cannot be read: {error.strerror}", path)) from None
    rows: list[dict[str, Any]] = []
    faults = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            faults.append(Fault(f"not valid JSON: {error}", path, number, remedy="one JSON object a line"))
            continue
        if isinstance(row, dict):
            rows.append(row)
        else:
            faults.append(Fault("not a JSON object", path, number, remedy="one JSON object a line"))
    if faults:
        raise ConfigError(faults)
    return rows
