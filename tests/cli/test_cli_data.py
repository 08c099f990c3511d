"""`metier data inspect` and `preview`, and `metier chat`: what they must show, in both languages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from cli.conftest import Finished, Invoke, as_process
from metier.cli.console import clean
from metier.models import Chat, load_tokenizer, resolve
from metier.project import load_project
from metier.shards import dataset_records


def test_inspect_shows_counts_lengths_drops_sources_and_examples(finished: Finished, invoke: Invoke) -> None:
    shown = invoke("data", "inspect", finished.folder, "-n", 4).out
    for title in ("records by split", "records by language", "records by task", "records by licence", "length in characters", "dropped", "sources"):
        assert title in shown
    rows = [line.split() for line in shown.splitlines()]
    assert ["CC0-1.0", "200"] in rows
    assert ["zh", "100"] in rows
    for split, count in finished.document["dataset"]["splits"].items():
        assert [split, str(count)] in rows
    source = next(line for line in shown.splitlines() if line.startswith("data/hives.jsonl"))
    assert "utf-8" in source
    assert shown.count("\nexample ") == 4
    assert any(f"user: {asked}" in shown for asked in ("子脾数：", "季节：", "Brood frames: ", "Season: "))


def test_inspect_gives_machines_the_same(finished: Finished, invoke: Invoke) -> None:
    facts = invoke("data", "inspect", finished.folder, "--json", "-n", 2).document
    assert facts["digest"] == finished.document["dataset"]["digest"]
    assert facts["counts"]["split"] == finished.document["dataset"]["splits"]
    assert facts["register"][0]["encoding"] == "utf-8"
    assert len(facts["examples"]) == 2


def test_inspect_shows_the_rows_that_were_dropped_for_a_reason(project: Path, invoke: Invoke) -> None:
    with (project / "data" / "hives.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"note": "弱", "keeper": "k"}, ensure_ascii=False) + "\n")
    invoke("data", "build", project)
    shown = invoke("data", "inspect", project, "-n", 1, "--reason", "missing_key").out
    assert ["missing_key", "1"] in [line.split() for line in shown.splitlines()]
    assert "by sources: missing_key:frames  (data/hives.jsonl, line 101)" in shown
    assert "keyed_digest" in shown and "弱" not in shown  # its text was never de-identified


def test_preview_marks_exactly_the_learnt_text(finished: Finished, invoke: Invoke) -> None:
    project = load_project(finished.folder)
    chat = Chat(load_tokenizer(resolve(project.settings.base, root=project.root)))
    dataset = project.store.open("dataset", finished.document["dataset"]["digest"])
    records = {record.id: record for record in dataset_records(dataset, "test")}
    for line in invoke("data", "preview", finished.folder, "-n", 5, "--split", "test", "--json").out.splitlines():
        shown = json.loads(line)
        record = records[shown["id"]]
        assert "".join(piece["text"] for piece in shown["pieces"]) == chat.render(record.messages)
        assert [piece["text"] for piece in shown["pieces"] if piece["learn"]] == [record.messages[-1].content + chat.tokenizer.eos_token]
        encoded = chat.encode(record.messages)
        assert (tuple(shown["tokens"]), tuple(shown["learn"])) == (encoded.tokens, encoded.learn)


def test_preview_for_people_brackets_what_is_learnt_and_counts_tokens(finished: Finished, invoke: Invoke) -> None:
    shown = invoke("data", "preview", finished.folder, "-n", 40).out
    assert "User:\n季节：" in shown
    assert any(f"[[{season}<eos>]]" in shown for season in "春夏秋冬")
    assert shown.count(" tokens, ") == 40
    assert "\x1b" not in shown


def test_preview_lists_tokens_on_demand(finished: Finished, invoke: Invoke) -> None:
    shown = invoke("data", "preview", finished.folder, "-n", 1, "--tokens").out
    count = int(shown.split(" tokens, ")[0].split()[-1])
    listed = [line for line in shown.splitlines() if line[:8].strip().isdigit() and line[9:15] in ("learnt", "      ")]
    assert len(listed) == count
    assert listed[-1].endswith("learnt '<eos>'")


def test_without_a_dataset_or_an_adapter_the_message_says_what_to_run(project: Path, invoke: Invoke) -> None:
    for command in (("data", "inspect"), ("data", "preview"), ("chat", "--question", "?")):
        ended = invoke(*command[:1], *command[1:], project) if command[0] == "data" else invoke("chat", project, *command[1:])
        assert ended.code == 2
        made_by = "data build" if command[0] == "data" else "run"
        assert f"-> make it with: metier {made_by} {project}" in ended.err
    assert not (project / ".metier" / "artifacts").exists()


def test_chat_answers_one_question_from_both_sides(finished: Finished, invoke: Invoke) -> None:
    asked = invoke("chat", finished.folder, "--question", "春天的蜂箱有几张子脾？", "--max-new-tokens", 6, "--json")
    assert asked.code == 0
    answer = asked.document
    assert list(answer) == ["question", "base", "expert"]
    assert answer["question"] == "春天的蜂箱有几张子脾？"
    assert answer["base"] != answer["expert"]
    assert list(invoke("chat", finished.folder, "--question", "a", "--max-new-tokens", 2, "--base-only", "--json").document) == ["question", "base"]
    assert invoke("chat", finished.folder, "--question", "a", "--max-new-tokens", 2, "--expert-only").out.startswith("expert: ")
    assert invoke("chat", finished.folder, "--base-only", "--expert-only").code == 2


def test_chat_reads_questions_until_quit(finished: Finished) -> None:
    talk = as_process(
        "chat", finished.folder, "--max-new-tokens", 3, "--json", "--temperature", 0.8, stdin="几张子脾？\n\n/new\nHow many?\n/quit\nnever asked\n"
    )
    assert talk.code == 0, talk.err
    assert [json.loads(line)["question"] for line in talk.out.splitlines()] == ["几张子脾？", "How many?"]


def test_a_stale_adapter_is_used_with_a_note(finished: Finished, tmp_path: Path, invoke: Invoke) -> None:
    folder = tmp_path / "stale"
    shutil.copytree(finished.folder, folder)
    file = folder / "metier.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("rank: 4", "rank: 2"), encoding="utf-8")
    asked = invoke("chat", folder, "--question", "a", "--max-new-tokens", 2, "--json")
    assert asked.code == 0
    assert f"have changed since this adapter ({finished.document['adapter']['digest'][:12]})" in asked.err


def test_data_cannot_steer_the_terminal() -> None:
    assert clean("\x1b[2J红\u202e色\r\n\t好\u3000。") == "\ufffd[2J红\ufffd色\ufffd\n\t好\u3000。"
