"""Files that are written, in a real llama.cpp: tokens, template, logits and greedy answers of every architecture and type. Skipped without llama-cpp-python."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

import decided
from metier import deploy
from metier import export as way_out
from metier.deploy import llamacpp, runtimes
from metier.deploy.runtimes import LIMITS, answer_faults, probes, text_faults
from metier.errors import GateRefused, MissingExtra, ModelError
from metier.models import Base, LocalModel
from metier.models.gguf import plan_gguf, write_gguf
from metier.models.parity import Golden, compare, golden, own_logits
from metier.models.runtime import Question, Runtime, ask, at_hand
from metier.project import Project
from models.exported import LLAMA3, PROMPTS, QWEN, byte_level, model_folder, sentencepiece

needed = pytest.mark.skipif(not at_hand(), reason="llama-cpp-python is not installed (extra llama): no file is run in llama.cpp")

TOKENIZERS: dict[str, Callable[[], Any]] = {
    "llama": lambda: byte_level(LLAMA3, first=True, ignore_merges=True),
    "qwen2": lambda: byte_level(QWEN),
    "qwen3": lambda: byte_level(QWEN),
    "gemma3": lambda: sentencepiece(first=True),
}


@pytest.fixture(scope="module", params=sorted(TOKENIZERS))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Base, LocalModel, list[Golden], list[torch.Tensor]]:
    base = model_folder(tmp_path_factory.mktemp(request.param) / "model", request.param, TOKENIZERS[request.param]())
    ours = LocalModel.open(base, dtype=torch.float32)
    rows = golden(ours, PROMPTS, answer_tokens=12)
    return base, ours, rows, own_logits(ours, rows)


def written(base: Base, ours: LocalModel, kind: Any, folder: Path) -> Path:
    path = folder / "model.gguf"
    write_gguf(plan_gguf(base.folder, ours.chat.tokenizer, type=kind, stop=ours.chat.tokenizer.eos_token_id, about={}), path)
    return path


def asked(ours: LocalModel, rows: list[Golden], path: Path, **how: Any) -> Runtime:
    texts = [*(ours.chat.render(row.messages, answering=True) for row in rows), *probes()]
    return ask(path, Question(texts, rows, [ours.chat.plain(row.messages) for row in rows], 12, ours.chat.stop_tokens, **how))


@needed
@pytest.mark.parametrize("kind", sorted(LIMITS))
def test_llama_cpp_answers_as_the_model_does(made: tuple[Base, LocalModel, list[Golden], list[torch.Tensor]], kind: str, tmp_path: Path) -> None:
    base, ours, rows, logits = made
    found = asked(ours, rows, written(base, ours, kind, tmp_path))
    assert compare(logits, found.logits).faults(LIMITS[kind]) == []
    assert list(answer_faults(found, rows, logits, LIMITS[kind].tie)) == []
    rendered = [ours.chat.render(row.messages, answering=True) for row in rows]
    assert list(text_faults(found, ours.chat.tokenizer, rendered, rows)) == []
    for text, tokens in zip(probes(), found.tokens[len(rows) :], strict=True):
        assert list(tokens) == ours.chat.tokenizer(text, add_special_tokens=False)["input_ids"], ascii(text)


@needed
def test_in_fp32_throughout_the_logits_are_those_of_the_model(made: tuple[Base, LocalModel, list[Golden], list[torch.Tensor]], tmp_path: Path) -> None:
    """What is left is llama.cpp's own table of the GELU in fp16, which Gemma uses."""
    base, ours, rows, logits = made
    parity = compare(logits, asked(ours, rows, written(base, ours, "f32", tmp_path), exact=True).logits)
    assert parity.largest < (5e-3 if "Gemma" in type(ours.model).__name__ else 5e-5)
    assert parity.same == 1.0


@needed
@pytest.mark.parametrize("spoilt", ["blk.0.attn_q.weight", "blk.1.attn_norm.weight", "output_norm.weight"])
def test_a_wrong_tensor_is_seen_there(made: tuple[Base, LocalModel, list[Golden], list[torch.Tensor]], spoilt: str, tmp_path: Path) -> None:
    base, ours, rows, logits = made
    path = written(base, ours, "f32", tmp_path)
    tensor = next(item for item in gguf.GGUFReader(path, mode="r+").tensors if item.name == spoilt)
    tensor.data[:] = np.roll(tensor.data, 1, axis=0)
    tensor.data.flush()
    assert compare(logits, asked(ours, rows, path).logits).faults(LIMITS["q8_0"])


@needed
def test_llama_3_s_rotary_scaling_is_that_of_the_model(tmp_path: Path) -> None:
    rope = {"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    base = model_folder(tmp_path / "model", "llama", byte_level(LLAMA3, ignore_merges=True), rope_parameters={**rope, "original_max_position_embeddings": 64})
    ours = LocalModel.open(base, dtype=torch.float32)
    rows = golden(ours, PROMPTS, answer_tokens=12)
    parity = compare(own_logits(ours, rows), asked(ours, rows, written(base, ours, "f32", tmp_path), exact=True).logits)
    assert parity.largest < 5e-5


@needed
def test_an_export_is_run_in_llama_cpp_where_it_is_installed(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wish = deploy.Wish("gguf", type="q8_0", unreleased=True, runtime=True)
    done = way_out.export(project, wish, tmp_path / "out", ledger=decided.intact)
    measured = done.manifest["measured"]["llama.cpp"]
    assert measured["version"].startswith("llama-cpp-python ")
    assert measured["largest"] <= done.manifest["limits"]["llama.cpp"]["largest"]
    assert "The file in llama.cpp, against the merged weights:" in (done.folder / "README.md").read_text(encoding="utf-8")
    monkeypatch.setattr(runtimes, "LIMITS", {kind: replace(limits, largest=0.0) for kind, limits in LIMITS.items()})
    with pytest.raises(GateRefused, match=r"(?s)llama.cpp, given the file \(q8_0\), does not answer as the merged model does.*largest difference of a logit"):
        way_out.export(project, wish, tmp_path / "again", ledger=decided.intact)
    assert not (tmp_path / "again").exists()


@needed
def test_a_file_that_llama_cpp_does_not_load_is_an_error_with_what_it_said(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF and nothing else")
    with pytest.raises(ModelError, match=r"(?s)llama.cpp does not take bad.gguf: .*does not load the file"):
        ask(tmp_path / "bad.gguf", Question())


def test_without_llama_cpp_the_card_says_that_it_was_not_run_there(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (llamacpp, runtimes):
        monkeypatch.setattr(module, "at_hand", lambda: False)
    done = way_out.export(project, deploy.Wish("gguf", unreleased=True), tmp_path / "out", ledger=decided.intact)
    assert set(done.manifest["measured"]) == {"merged", "file"}
    assert "not run in llama.cpp" in (done.folder / "README.md").read_text(encoding="utf-8")
    with pytest.raises(MissingExtra, match=r"(?s)--check llama.cpp needs the package 'llama-cpp-python'.*metier\[llama\]"):
        way_out.check(project, deploy.Wish("gguf", unreleased=True, runtime=True), tmp_path / "again", ledger=decided.intact)


def test_a_python_without_llama_cpp_is_an_error_that_says_so(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nshift\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(ModelError, match=r"(?s)llama.cpp does not take model.gguf: .*No module named"):
        ask(tmp_path / "model.gguf", Question(), interpreter=bare)


def test_an_answer_may_part_where_two_tokens_are_nearly_as_likely() -> None:
    row = Golden(PROMPTS[0], (5, 6, 7, 1), 1)
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.95, 0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], [0.0] * 8])
    same = Runtime("1", "", None, [], [], [], [[7, 1, 2]], [])
    assert list(answer_faults(same, [row], [logits], 0.0)) == []
    near, far = replace(same, answers=[[3, 4]]), replace(same, answers=[[7, 4]])
    assert list(answer_faults(near, [row], [logits], 0.1)) == []
    (fault,) = answer_faults(near, [row], [logits], 0.01)
    assert "parts at token 0, where the merged model prefers its own by 0.05" in fault
    assert len(list(answer_faults(far, [row], [logits], 0.5))) == 1
