"""What the documents show works: project files parse, Python runs, command lines are real, links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from docs.blocks import DOCUMENTS, ROOT, Block, blocks
from metier import packs
from metier.cli.main import app
from metier.evaluation.scorers import CHOOSE, GENERATE, LIKELIHOOD
from metier.evaluation.taskfile import read_task
from metier.flow import run
from metier.packs import conformance, scaffold
from metier.project import load_project
from metier.training import TrainingSettings

_PROJECTS = list(blocks("yaml", check="project"))
_COMMANDS = [(block, line[2:]) for block in blocks("console") for line in block.text.splitlines() if line.startswith("$ ")]
_ROWS: dict[str, dict[str, str]] = {
    "consultations": {"department": "内科", "title": "第{n}个问题", "ask": "血压{n}，头晕怎么办？", "answer": "请测量{n}天血压后复诊。"},
    "xml": {"Question": "What is condition number {n}?", "Answer": "It is described in chapter {n} of the book."},
    "nested": {"question": "第{n}份合同的租期多长？", "text": "第{n}份合同的租期是{n}个月。"},
    "json": {"问题": "第{n}条可以口头约定吗？", "答案文本": "可以，请看第{n}条的规定。", "关键词": "约定"},
}


def _project(block: Block, folder: Path) -> Path:
    path = folder / "metier.yaml"
    path.write_text(block.text, encoding="utf-8")
    return path


@pytest.mark.parametrize("block", _PROJECTS, ids=str)
def test_a_project_file_in_a_document_is_valid(block: Block, tmp_path: Path) -> None:
    settings = load_project(_project(block, tmp_path)).settings
    if settings.pack not in {item.name for item in packs.available()}:
        assert settings.pack == "library", "only the guide's own pack need not be installed"
        return
    names = {template.name for template in packs.load(settings.pack).templates}
    assert {name for source in settings.sources for name in source.templates} <= names


@pytest.mark.parametrize("block", [block for block in _PROJECTS if len(block.check) > 1], ids=str)
def test_a_guide_s_project_builds_from_files_of_the_form_it_describes(block: Block, tmp_path: Path) -> None:
    kind = block.check[1]
    rows = [{name: text.format(n=number) for name, text in _ROWS[kind].items()} for number in range(100, 130)]
    (tmp_path / "data").mkdir()
    if kind == "consultations":
        lines = [",".join(_ROWS[kind]), *(",".join(row.values()) for row in rows)]
        (tmp_path / "data" / "consultations.csv").write_bytes("\n".join(lines).encode("gb18030"))
    elif kind == "xml":
        pairs = "".join(f'<QAPair><Question qtype="x">{row["Question"]}</Question><Answer>{row["Answer"]}</Answer></QAPair>' for row in rows)
        (tmp_path / "data" / "one.xml").write_text(f"<Document><QAPairs>{pairs}</QAPairs></Document>", encoding="utf-8")
    elif kind == "nested":
        asked = [{"question": row["question"], "answers": [{"text": row["text"]}]} for row in rows]
        contracts = [{"title": f"{number}", "paragraphs": [{"context": "约定", "qas": [item]}]} for number, item in enumerate(asked)]
        (tmp_path / "data" / "contracts.json").write_text(json.dumps({"data": contracts}, ensure_ascii=False), encoding="utf-8")
    else:
        (tmp_path / "data" / "questions.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    facts = run(load_project(_project(block, tmp_path)), goal="dataset").dataset.facts
    expected = {
        "consultations": {"consultation-chat": 30, "department": 30},
        "xml": {"consultation-chat": 30},
        "nested": {"question": 30},
        "json": {"question": 30},
    }
    assert facts["counts"]["task"] == expected[kind]
    assert facts["register"][0]["encoding"] == ("gb18030" if kind == "consultations" else "utf-8")


def test_the_tutorial_shows_the_demo_s_own_project_file() -> None:
    (block,) = blocks("yaml", check="demo")
    demo = yaml.safe_load((ROOT / "src" / "metier_medical" / "demo" / "data" / "project.yaml").read_text(encoding="utf-8"))
    assert yaml.safe_load(block.text) == demo["sources"][:1]


@pytest.mark.parametrize("block", list(blocks("yaml", check="task")), ids=str)
def test_a_task_file_in_a_document_is_read(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(block.text, encoding="utf-8")
    assert read_task(path).task == "triage-questions"


def test_the_pack_that_the_guide_writes_conforms(tmp_path: Path) -> None:
    scaffold.write(tmp_path / "library", "library")
    written = [block for language in ("yaml", "python") for block in blocks(language, check="pack")]
    for block in written:
        (tmp_path / "library" / "metier_library" / block.check[1]).write_text(block.text, encoding="utf-8")
    pack = packs.load_path(tmp_path / "library")
    assert conformance.check(pack) == []
    assert {block.check[1] for block in written} == {"identifiers.yaml", "templates.yaml", "evaluation.yaml", "corpora.yaml", "rules.py", "pack.py"}
    assert pack.scorers["days_match"]("For 30 days.", {"target": "可以借30天。"}) == 1.0


@pytest.mark.parametrize("block", [block for block in blocks("python") if not block.check], ids=str)
def test_python_in_a_document_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block.text, str(block), "exec"), {"__name__": "document"})


@pytest.mark.parametrize(("block", "line"), _COMMANDS, ids=[f"{block}: {line}" for block, line in _COMMANDS])
def test_a_command_in_a_document_is_one_that_metier_takes(block: Block, line: str) -> None:
    words = shlex.split(line)
    assert words[0] in ("metier", "python"), line
    if words[:2] == ["python", "-m"]:
        assert find_spec(words[2]) is not None
        return
    if words[0] == "python":
        assert (block.path.parent / words[1]).is_file()
        return
    command: Any = typer.main.get_command(app)
    words = words[1:]
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"{line}: valid are {sorted(command.commands)}"
        command, words = command.commands[words[0]], words[1:]
    command.make_context(command.name, words)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_to_files(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", path.read_text(encoding="utf-8")):
        if "reference/" not in target:
            assert (path.parent / target).exists(), f"{path.name} points to {target}"


def test_both_readmes_leave_room_for_the_results_and_name_the_same_commands() -> None:
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))
    for text in (english, chinese):
        assert text.index("<!-- results:start -->") < text.index("<!-- results:end -->")
    assert re.findall(r"^\$ .*$", english, re.MULTILINE) == re.findall(r"^\$ .*$", chinese, re.MULTILINE)
    assert english.count("\n## ") == chinese.count("\n## ")


def test_the_trees_of_both_readmes_name_the_same_folders_which_exist() -> None:
    trees = [re.findall(r"^((?:[a-z_]+/)+)\s{2,}\S", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE) for name in ("README.md", "README.zh.md")]
    assert trees[0] == trees[1]
    assert len(trees[0]) >= 15
    assert [folder for folder in trees[0] if not (ROOT / folder).is_dir()] == []


def test_the_guide_to_evaluation_defines_every_metric() -> None:
    text = (ROOT / "docs" / "guides" / "evaluation.md").read_text(encoding="utf-8")
    assert [name for name in {**CHOOSE, **GENERATE, **LIKELIHOOD} if f"`{name}`" not in text] == []


def test_the_guide_to_training_explains_every_key() -> None:
    text = (ROOT / "docs" / "guides" / "training.md").read_text(encoding="utf-8")
    for name, field in TrainingSettings.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        for key in [name] if inner is None else [f"{name}.{below}" for below in inner]:
            assert f"`{key}`" in text, f"{key} is not explained"


def test_the_guide_to_data_lists_every_template_of_the_packs() -> None:
    text = (ROOT / "docs" / "guides" / "data.md").read_text(encoding="utf-8")
    for name in ("medical", "finance", "law"):
        for template in packs.load(name).templates:
            assert f"`{template.name.removesuffix('-en').removesuffix('-zh')}-zh`" in text, template.name


def _pages() -> dict[str, str]:
    spec = spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    pages: dict[str, str] = module.pages()
    return pages


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="mkdocs is not installed (extra docs)")
def test_the_reference_covers_every_setting_command_and_error() -> None:
    pages = _pages()
    for key in ("`learning_rate`", "`maximum_tokens`", "`subject`", "`threshold`", "`free_text_limit`"):
        assert f"| {key} |" in pages["settings"]
    assert not re.findall(r"^\| `\w+` \|.*\|\s*\|$", pages["settings"], re.MULTILINE), "a setting has no description"
    assert re.findall(r"^## (metier .*)$", pages["cli"], re.MULTILINE)[:3] == ["metier init", "metier run", "metier train"]
    assert "`--pack NAME` | required |" in pages["cli"]
    assert "## PrivacyError" in pages["errors"]
    assert "CN_RESIDENT_ID" in pages["identifiers"]
    assert "| `doc_to_text` |" in pages["packs"]
    assert "run(project: Project, *, goal: Goal = 'decision', recorder: Recorder = ignore" in pages["python"]
    assert " at 0x" not in "".join(pages.values()), "an address makes the page differ from build to build"


@pytest.mark.skipif(find_spec("material") is None, reason="mkdocs-material is not installed (extra docs)")
def test_the_documentation_builds_without_a_warning_and_asks_no_other_machine(tmp_path: Path) -> None:
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=True))
    page = (tmp_path / "site" / "guides" / "data.html").read_text(encoding="utf-8")
    assert "fonts.googleapis" not in page
    assert re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"', page) == []
    assert (tmp_path / "site" / "reference" / "settings.html").is_file()
