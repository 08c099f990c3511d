"""`metier import-config`: what it prints and refuses."""

from __future__ import annotations

from pathlib import Path

from cli.conftest import Invoke

FILE = """\
model_name_or_path: Qwen/Qwen3-4B
trust_remote_code: true
stage: sft
finetuning_type: lora
lora_rank: 16
lora_rnak: 8
dataset: absent
output_dir: saves
eval_steps: 500
"""


def test_the_command_says_everything_and_writes_nothing_over(tmp_path: Path, invoke: Invoke) -> None:
    (tmp_path / "train.yaml").write_text(FILE, encoding="utf-8")
    done = invoke("import-config", tmp_path / "train.yaml", "--out", tmp_path / "metier.yaml", "--pack", "example")
    assert done.code == 0, done.err
    for text in ("a file of LLaMA-Factory", "not taken over", "unknown keys", "lora_rnak", "done anyway"):
        assert text in done.out
    again = invoke("import-config", tmp_path / "train.yaml", "--out", tmp_path / "metier.yaml")
    assert again.code == 2
    assert "there is a file already" in again.err
    shown = invoke("import-config", tmp_path / "train.yaml", "--out", tmp_path / "two.yaml", "--name", "two", "--json")
    assert shown.document["tool"] == "llama-factory"
    assert {"key": "lora_rank", "state": "taken", "line": 5, "to": "training.adaptation.rank", "note": ""} in shown.document["keys"]
    wrong = invoke("import-config", tmp_path / "train.yaml", "--out", tmp_path / "three.yaml", "--pack", "exampel")
    assert wrong.code == 2
    assert "did you mean 'example'" in wrong.err
