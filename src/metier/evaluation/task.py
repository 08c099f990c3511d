"""From names in the settings to tasks with items: the pack's tasks, task files, held-out records, the retention probe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metier.artifacts import Artifact
from metier.digest import digest_file, digest_of
from metier.errors import ConfigError, Fault, InputError, nearest
from metier.evaluation.corpus import Corpus, Shot, learnt_at, record_language
from metier.evaluation.items import Item, Task, conversation, sample
from metier.evaluation.retention import retention_task
from metier.evaluation.scorers import metric_faults
from metier.evaluation.settings import EvaluationSettings
from metier.evaluation.taskfile import read_rows, read_task
from metier.evaluation.text import language_of
from metier.packs.render import render
from metier.packs.spec import Metric, Pack, TaskSpec
from metier.records import Message, Record

__all__ = ["HELD_OUT", "HELD_OUT_ANSWERS", "HELD_OUT_TEXTS", "Source", "build_tasks", "item_files", "named_sources", "spec_task", "task_files_digest"]

_TASK_FILE = (".yaml", ".yml")
HELD_OUT = "held-out"
HELD_OUT_ANSWERS = "held-out-answers"
HELD_OUT_TEXTS = "held-out-texts"


@dataclass(frozen=True, slots=True)
class Source:
    """A task as it was named: its spec, the file it stands in and the folder of its items."""

    spec: TaskSpec
    path: Path
    folder: Path


class _Left:
    """An item that cannot be asked, with the reason that is counted."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def build_tasks(dataset: Artifact, pack: Pack, settings: EvaluationSettings, languages: Sequence[str], *, project: Path) -> tuple[list[Task], list[str]]:
    """Return the tasks to ask and notes on those that have no item here.

    Raises InputError with every fault: unknown names, task files outside the project, bad files, unknown metrics or parsers.
    """
    sources = named_sources(pack, settings.tasks, project)
    corpus = Corpus(dataset, settings.seed)
    tasks: list[Task] = []
    notes: list[str] = []
    for source in sources:
        task = spec_task(source, corpus, settings, languages)
        if task.items:
            tasks.append(task)
        else:
            left = "; ".join(f"{reason}: {count}" for reason, count in task.left_out.items())
            notes.append(f"{task.name}: not asked, no item for it" + (f" ({left})" if left else ""))
    if "held-out" in settings.tasks:
        own = [source.spec for source in sources if source.spec.dataset_path == "dataset"]
        covered = {spec.records or spec.task for spec in own}
        chosen = {spec.records or spec.task for spec in own if spec.output_type == "multiple_choice"}
        held_out = _held_out(corpus, settings, languages, covered=covered, chosen=chosen)
        tasks += held_out
        if not held_out:
            notes.append(
                "held-out: not asked, every test record belongs to a choice task above"
                if covered
                else "held-out: not asked, the test split has no conversations and no texts"
            )
    if "retention" in settings.tasks:
        tasks.append(retention_task(settings.retention_items, settings.seed, languages))
    if not tasks:
        remedy = "add `retention` or `held-out` to evaluation.tasks, or give the dataset a test split"
        raise InputError(Fault("nothing to evaluate: no task has an item", key="evaluation.tasks", remedy=remedy))
    return tasks, notes


def item_files(settings: EvaluationSettings, project: Path) -> tuple[str, ...]:
    """Return the files of items that lie beside the project's own task files, relative to the project.

    Raises ConfigError for a task file that cannot be read.
    """
    found = []
    for name in settings.tasks:
        if name.endswith(_TASK_FILE):
            spec = read_task(project / name)
            if spec.dataset_path != "dataset":
                found.append((Path(name).parent / spec.dataset_path).as_posix())
    return tuple(dict.fromkeys(found))


def task_files_digest(settings: EvaluationSettings, project: Path) -> str:
    """Return a digest of the task files that the settings name and of the items beside them: what the settings alone do not say.

    Raises ConfigError for a task file that cannot be read.
    """
    found: dict[str, str] = {}
    for name in settings.tasks:
        if name.endswith(_TASK_FILE):
            spec = read_task(project / name)
            items = (project / name).parent / spec.dataset_path
            found[name] = digest_file(project / name)
            if spec.dataset_path != "dataset" and items.is_file():
                found[f"{name}/{spec.dataset_path}"] = digest_file(items)
    return digest_of(found)


def named_sources(pack: Pack, names: Sequence[str], project: Path, *, key: str = "evaluation.tasks") -> list[Source]:
    """Return the specs behind the names that stand under `key`, each once; built-in names are left to the caller.

    Raises InputError with every fault: unknown names, task files outside the project, bad files, unknown metrics or parsers.
    """
    faults: list[Fault] = []
    sources: dict[str, Source] = {}
    own = {spec.task: Source(spec, pack.folder / "evaluation.yaml", pack.folder) for spec in pack.tasks}
    for name in names:
        found: dict[str, Source] = {}
        if name == "pack":
            found = own
        elif name.endswith(_TASK_FILE):
            found = _from_file(name, project, faults, key)
        elif name in own:
            found = {name: own[name]}
        elif name not in ("held-out", "retention"):
            valid = ["pack", "held-out", "retention", *own]
            faults.append(Fault(f"no task {name!r}", key=key, remedy=nearest(name, valid)))
        sources.update(found)
    for source in sources.values():
        faults += _spec_faults(source, pack)
    if faults:
        raise InputError(faults)
    return list(sources.values())


def _from_file(name: str, project: Path, faults: list[Fault], key: str) -> dict[str, Source]:
    path = project / name
    if not path.resolve().is_relative_to(project.resolve()):
        faults.append(Fault("the task file lies outside the project folder", path, key=key, remedy="copy it into the project"))
        return {}
    try:
        spec = read_task(path)
    except ConfigError as error:
        faults += error.faults
        return {}
    return {spec.task: Source(spec, path, path.parent)}


def _spec_faults(source: Source, pack: Pack) -> list[Fault]:
    spec, path = source.spec, source.path
    faults = metric_faults(spec, pack, path)
    if spec.parser is not None and spec.parser not in pack.parsers:
        faults.append(Fault(f"the pack has no parser {spec.parser!r}", path, key=f"{spec.task}.parser", remedy=nearest(spec.parser, list(pack.parsers))))
    if spec.dataset_path != "dataset":
        needed = {"doc_to_text": spec.doc_to_text, "doc_to_target": spec.doc_to_target}
        if spec.output_type == "multiple_choice":
            needed["doc_to_choice"] = "".join(spec.doc_to_choice or ()) or None
        faults += [Fault("needed with a file of items", path, key=f"{spec.task}.{key}", remedy="add it") for key, value in needed.items() if value is None]
        if spec.num_fewshot:
            faults.append(
                Fault("solved examples come from the dataset", path, key=f"{spec.task}.num_fewshot", remedy="write num_fewshot: 0 with a file of items")
            )
    known = {"max_gen_toks", "max_new_tokens", "until", "do_sample", "temperature"}
    for key, value in spec.generation_kwargs.items():
        if key not in known:
            faults.append(Fault("unknown key", path, key=f"{spec.task}.generation_kwargs.{key}", remedy=nearest(key, sorted(known))))
        elif key in ("do_sample", "temperature") and value:
            faults.append(Fault("answers are greedy, so that they repeat", path, key=f"{spec.task}.generation_kwargs.{key}", remedy="leave it out"))
    return faults


def spec_task(source: Source, corpus: Corpus, settings: EvaluationSettings, languages: Sequence[str]) -> Task:
    """Return a task with its items, at most `settings.limit` a language, and why others are not asked."""
    spec = source.spec
    choose = spec.output_type == "multiple_choice"
    candidates = _dataset_items(spec, corpus, languages) if spec.dataset_path == "dataset" else _file_items(source, languages)
    items: list[Item] = []
    left: Counter[str] = Counter()
    for item in candidates:
        if isinstance(item, _Left):
            left[item.reason] += 1
        else:
            items.append(item)
    kwargs = spec.generation_kwargs
    until = kwargs.get("until")
    return Task(
        name=spec.task,
        kind="choose" if choose else "generate",
        items=sample(items, settings.limit, settings.seed),
        metrics=spec.metric_list,
        max_new_tokens=int(kwargs.get("max_gen_toks", kwargs.get("max_new_tokens", settings.max_new_tokens))),
        stop=(str(until),) if until else (),
        parser=spec.parser,
        shots=spec.num_fewshot,
        version=str(spec.metadata.get("version", "")),
        available=len(items),
        left_out=dict(sorted(left.items())),
        config=spec.model_dump(mode="json", exclude_none=True),
    )


def _dataset_items(spec: TaskSpec, corpus: Corpus, languages: Sequence[str]) -> Iterator[Item | _Left]:
    wanted = spec.records or spec.task
    for record in corpus.records(spec.test_split):
        if record.task != wanted:
            continue
        language = record_language(record)
        if language not in languages or (spec.language is not None and language != spec.language):
            continue
        place = learnt_at(record)
        if place is None and (spec.doc_to_text is None or spec.doc_to_target is None):
            yield _Left("no answer in the record")
            continue
        choices: tuple[str, ...] = ()
        if spec.output_type == "multiple_choice" and spec.doc_to_choice is None:
            choices = corpus.labels(wanted, language)
        yield _record_item(spec, record, choices, corpus.shots(wanted, language, spec.num_fewshot))


def _record_item(spec: TaskSpec, record: Record, choices: tuple[str, ...], shots: Sequence[Shot]) -> Item | _Left:
    language, place = record_language(record), learnt_at(record)
    fields = {**record.metadata, "text": record.text, "label": record.label, "language": language}
    answer = "" if place is None else record.messages[place].content
    target = answer
    if spec.doc_to_target is not None:
        target = render(spec.doc_to_target, fields)
    elif choices:
        target = answer if record.label is None else record.label
    if spec.doc_to_choice is not None:
        choices = tuple(render(choice, fields) for choice in spec.doc_to_choice)
    prompt = record.messages[:place]
    if spec.doc_to_text is not None:
        prompt = conversation(render(spec.doc_to_text, fields))
    # A prompt's own system message stays first; the solved examples stand between it and the question.
    head = 1 if prompt and prompt[0].role == "system" else 0
    solved = [message for question, reply in shots for message in (question[-1], Message("assistant", reply))]
    item = Item(record.id, language, (*prompt[:head], *solved, *prompt[head:]), target, choices, record.id, fields=fields)
    return _checked(spec, item)


def _checked(spec: TaskSpec, item: Item) -> Item | _Left:
    """Return the item, or why it cannot be asked; a target that is an index of the choices becomes that choice (as in lm-eval)."""
    if spec.output_type != "multiple_choice":
        return item if item.target.strip() else _Left("empty reference answer")
    if len(set(item.choices)) < 2:
        return _Left("fewer than two choices")
    if item.target in item.choices:
        return item
    if item.target.isdecimal() and int(item.target) < len(item.choices):
        return replace(item, target=item.choices[int(item.target)])
    return _Left("the right answer is not among the choices")


def _file_items(source: Source, languages: Sequence[str]) -> Iterator[Item | _Left]:
    spec = source.spec
    for number, row in enumerate(read_rows(source.folder / spec.dataset_path, source.folder), start=1):
        text = render(spec.doc_to_text or "", row)
        language = str(row.get("language") or spec.language or language_of(text))
        if language not in languages or (spec.language is not None and language != spec.language):
            yield _Left(f"language {language} is not asked")
            continue
        choices = tuple(render(choice, row) for choice in spec.doc_to_choice or ())
        name = digest_of([number, row])[:32]
        yield _checked(spec, Item(name, language, conversation(text), render(spec.doc_to_target or "", row), choices, str(row.get("id", number)), fields=row))


def _held_out(corpus: Corpus, settings: EvaluationSettings, languages: Sequence[str], *, covered: set[str], chosen: set[str]) -> list[Task]:
    """Return the built-in tasks over test records: likelihood of the reference answer, and written answers.

    The likelihood is asked of every record but those of choice tasks (`chosen`), which measure it themselves, and of plain texts; answers are
    written only for records that no other task (`covered`) asks.
    """
    items, texts = [], []
    for record in corpus.records("test"):
        place, language = learnt_at(record), record_language(record)
        if not record.messages and record.text.strip() and language in languages:
            texts.append(Item(record.id, language, (), record.text, (record.text,), record.id, record.task or "", {**record.metadata, "language": language}))
        if (record.task or "") in chosen or place is None or language not in languages or not record.messages[place].content.strip():
            continue
        fields: Mapping[str, Any] = {**record.metadata, "label": record.label, "language": language}
        items.append(Item(record.id, language, record.messages[:place], record.messages[place].content, (), record.id, record.task or "", fields))
    bits = (Metric(metric="bits_per_character", higher_is_better=False),)
    read = sample(texts, settings.limit, settings.seed)
    tasks = [Task(HELD_OUT_TEXTS, "likelihood", tuple(read), bits, available=len(texts))] if read else []
    if not items:
        return tasks
    scored = tuple(replace(item, choices=(item.target,)) for item in sample(items, settings.limit, settings.seed))
    tasks.append(Task(HELD_OUT, "likelihood", scored, bits, available=len(items)))
    free = [item for item in items if item.family not in covered]
    if settings.free_text_limit and free:
        overlap = (Metric(metric="chrf"), Metric(metric="rouge_l"))
        written = sample(free, settings.free_text_limit, settings.seed)
        tasks.append(Task(HELD_OUT_ANSWERS, "generate", written, overlap, max_new_tokens=settings.max_new_tokens, available=len(free)))
    return tasks
