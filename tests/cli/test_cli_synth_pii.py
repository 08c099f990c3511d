import json
from pathlib import Path

from typer.testing import CliRunner

from metier.cli.main import app

RUN = CliRunner()


def test_sentences_are_written_with_their_identifiers(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "zh.jsonl"
    done = RUN.invoke(app, ["data", "synth-pii", "--language", "zh", "-n", "40", "--seed", "5", "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 40
    assert json.loads(done.stdout)["texts"] == 40
    again = tmp_path / "again.jsonl"
    RUN.invoke(app, ["data", "synth-pii", "--language", "zh", "-n", "40", "--seed", "5", "--out", str(again)])
    assert again.read_bytes() == out.read_bytes()


def test_only_the_variants_that_are_asked_for_are_written(tmp_path: Path) -> None:
    out = tmp_path / "en.jsonl"
    assert RUN.invoke(app, ["data", "synth-pii", "--language", "en", "-n", "30", "--out", str(out), "--variants", "plain,edge"]).exit_code == 0
    ways = {span["variant"] for line in out.read_text(encoding="utf-8").splitlines() for span in json.loads(line)["spans"]}
    assert ways <= {"plain", "edge"}
