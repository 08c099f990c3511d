"""Exports of a finished project: what is written, what it says of itself, what is refused, and that each is on record."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file, save_file

import decided
from metier import deploy, flow
from metier import export as way_out
from metier.deploy import merged
from metier.deploy.place import aside
from metier.deploy.vllm import RANKS, vllm_faults
from metier.digest import digest_file, digest_of
from metier.errors import GateRefused, InputError, LedgerError, ModelError, StoreError
from metier.events import Event
from metier.models import LocalModel, resolve
from metier.models.parity import Limits, golden
from metier.models.runtime import at_hand
from metier.project import Project
from metier.records import Message

QUESTION = (Message("user", "春天的蜂箱有几张子脾？"),)


class Book:
    """Keeps events as the ledger does, or refuses them."""

    def __init__(self, *, full: bool = False) -> None:
        self.events: list[Event] = []
        self.full = full

    def __call__(self, event: Event) -> int:
        if self.full:
            raise LedgerError("the log cannot be written")
        self.events.append(event)
        return len(self.events)


def run(project: Project, out: Path, form: Any = "merged", **wishes: Any) -> deploy.Exported:
    means = {name: wishes.pop(name) for name in ("adapter", "record") if name in wishes}
    wishes.setdefault("unreleased", True)
    return way_out.export(project, deploy.Wish(form, **wishes), out, ledger=decided.intact, **means)


def approve(project: Project) -> None:
    evidence = project.store.newest("decision")
    assert evidence is not None
    open_ones = [name for name, entry in evidence.facts["controls"].items() if entry["blocks"] and name != "SX-01"]
    flow.approve(project, by=decided.OTHER, controls=open_ones, ledger=decided.intact)


def answer(project: Project, *, tokens: int = 16) -> tuple[list[int], tuple[int, ...]]:
    """Return the prompt and the greedy answer of the project's expert."""
    adapter = project.store.newest("adapter")
    assert adapter is not None
    ours = LocalModel.open(resolve(project.settings.base, root=project.root), adapter.path, dtype=torch.float32)
    (row,) = golden(ours, [QUESTION], answer_tokens=tokens)
    return list(row.prompt), row.tokens[row.first + 1 :]


def test_a_merged_folder_loads_with_plain_transformers_and_answers_alike(project: Project, tmp_path: Path) -> None:
    done = run(project, tmp_path / "out")
    prompt, expected = answer(project)
    model = transformers.AutoModelForCausalLM.from_pretrained(done.folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(done.folder)
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": QUESTION[0].content}], add_generation_prompt=True, return_dict=False)
    assert rendered == prompt
    found = model.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False)[0, len(prompt) :].tolist()
    assert tuple(found[: len(expected)]) == expected
    assert len(expected) > 0
    names = {path.name for path in done.folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "README.md", "export.json", "generation_config.json"} <= names


def test_the_manifest_names_digests_and_figures_and_the_card_says_them(project: Project, tmp_path: Path) -> None:
    book = Book()
    done = run(project, tmp_path / "out", record=book)
    manifest = json.loads((done.folder / "export.json").read_bytes())
    assert manifest["digest"] == done.digest == digest_of({key: value for key, value in manifest.items() if key != "digest"})
    assert {name: facts["sha256"] for name, facts in manifest["files"].items()} == {
        path.name: digest_file(path) for path in done.folder.iterdir() if path.name != "export.json"
    }
    adapter = project.store.newest("adapter")
    assert adapter is not None
    assert manifest["adapter"] == adapter.digest
    assert {manifest["run"], manifest["dataset"], manifest["base"]["digest"]} == set(adapter.parents)
    assert manifest["measured"]["places"] >= manifest["measured"]["conversations"] > 0
    assert manifest["measured"]["largest"] <= manifest["limits"]["largest"]
    assert len(manifest["conversations"]) == manifest["measured"]["conversations"]
    card = (done.folder / "README.md").read_text(encoding="utf-8")
    for said in (adapter.digest, manifest["run"], manifest["dataset"], manifest["base"]["digest"], "license: cc0-1.0", "mean divergence, nats a token"):
        assert said in card
    (event,) = book.events
    assert (event.kind, event.actor, event.facts["export"], event.facts["released"]) == ("export", decided.AUTHOR, done.digest, False)
    assert str(done.folder) not in json.dumps(dict(event.facts)), "where it lies is nobody's business but the owner's"


def test_nothing_of_the_records_is_in_an_export(project: Project, tmp_path: Path) -> None:
    run(project, tmp_path / "out")
    texts = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "out").iterdir() if path.suffix in {".md", ".jinja"} or path.name == "export.json")
    assert "蜂箱有" not in texts
    assert "brood frames" not in texts


def test_an_adapter_without_a_passing_decision_needs_the_word_unreleased_and_the_card_says_so(project: Project, tmp_path: Path) -> None:
    with pytest.raises(GateRefused, match=r"(?s)not exported: the verdict is awaiting.*SX-01.*--unreleased"):
        run(project, tmp_path / "out", unreleased=False)
    assert not (tmp_path / "out").exists()
    run(project, tmp_path / "out")
    assert "**Not released.**" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    approve(project)
    done = run(project, tmp_path / "passed", unreleased=False)
    card = (done.folder / "README.md").read_text(encoding="utf-8")
    assert "Not released" not in card
    assert "no signed release yet" in card
    assert decided.OTHER in card
    assert done.manifest["released"] is True
    assert done.manifest["decision"]["approved_by"] == [decided.OTHER]
    made = flow.release(project, decided.Key(), ledger=decided.intact)
    assert run(project, tmp_path / "released", unreleased=False).manifest["release"] == {"digest": made.digest, "name": "hives"}


def test_a_newer_decision_that_fails_stands_before_an_older_one_that_passed(project: Project, tmp_path: Path) -> None:
    approve(project)
    passed = project.store.newest("decision")
    assert passed is not None
    later = tmp_path / "decision"
    shutil.copytree(passed.path, later)
    made = project.store.commit("decision", later, parents=passed.parents, facts={**passed.facts, "verdict": "fail"})
    os.utime(made.path / "manifest.json", ns=(2**62, 2**62))
    with pytest.raises(GateRefused, match="the verdict is fail"):
        run(project, tmp_path / "out", unreleased=False)


def test_a_merge_that_does_not_answer_alike_is_refused_with_what_was_measured(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Good in the trainer, bad after the export: the weights are as right as ever, and the limit is what a wrong one would break."""
    monkeypatch.setattr(merged, "LIMITS", {kind: Limits(0.0, 0.0, 0.0, 0.0) for kind in merged.LIMITS})
    book = Book()
    with pytest.raises(
        GateRefused, match=r"(?s)the merged model \(F32\) does not answer .* over \d+ places in \d+ conversations:\n  .*at most 0.*nothing was published"
    ):
        run(project, tmp_path / "out", record=book)
    assert not book.events
    assert [path.name for path in tmp_path.iterdir()] == ["hives"]


def spoil(monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Let the merged weights be changed after they were written."""
    write = merged.merge_weights

    def wrong(base: Path, adapter: Any, target: Path, **rest: Any) -> int:
        count = write(base, adapter, target, **rest)
        tensors = load_file(target / "model.safetensors")
        change(tensors)
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
        return count

    monkeypatch.setattr(merged, "merge_weights", wrong)


@pytest.mark.parametrize("form", ["merged", "gguf"])
def test_good_in_the_trainer_and_bad_after_the_export_is_refused(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    spoil(monkeypatch, lambda tensors: tensors["model.layers.1.mlp.up_proj.weight"].mul_(1.2))
    with pytest.raises(GateRefused, match=r"(?s)does not answer as the adapter on its base does.*mean divergence"):
        run(project, tmp_path / "out", form)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_put_on_record_is_not_exported(project: Project, tmp_path: Path) -> None:
    with pytest.raises(LedgerError):
        run(project, tmp_path / "out", "vllm", record=Book(full=True))
    assert [path.name for path in tmp_path.iterdir()] == ["hives"]


def test_a_log_that_does_not_verify_and_a_changed_adapter_stop_an_export(project: Project, tmp_path: Path) -> None:
    broken = decided.LedgerFacts(7, "00" * 32, intact=False, fault="entry 3 was changed")
    with pytest.raises(GateRefused, match="entry 3 was changed"):
        way_out.export(project, deploy.Wish("vllm", unreleased=True), tmp_path / "out", ledger=lambda: broken)
    adapter = project.store.newest("adapter")
    assert adapter is not None
    path = adapter.file("adapter_model.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(GateRefused, match="was changed after it was made"):
        run(project, tmp_path / "out", "vllm")


def test_a_gguf_file_is_checked_twice_and_says_whose_it_is(project: Project, tmp_path: Path) -> None:
    done = run(project, tmp_path / "out", "gguf", type="q8_0")
    assert sorted(path.name for path in done.folder.iterdir()) == ["README.md", "export.json", "hives-Q8_0.gguf"]
    assert set(done.manifest["measured"]) == {"merged", "file"} | ({"llama.cpp"} if at_hand() else set())
    assert done.manifest["measured"]["merged"]["largest"] < done.manifest["measured"]["file"]["largest"] <= done.manifest["limits"]["file"]["largest"]
    plain = run(project, tmp_path / "plain", "gguf")
    assert (plain.folder / "hives-F32.gguf").is_file(), "the base's own format"
    prompt, expected = answer(project)
    model = transformers.AutoModelForCausalLM.from_pretrained(plain.folder, gguf_file="hives-F32.gguf", dtype=torch.float32).eval()
    found = model.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False, pad_token_id=0)[0, len(prompt) :].tolist()
    assert tuple(found[: len(expected)]) == expected


def test_a_vllm_folder_loads_with_peft_and_gives_the_adapter_s_logits(project: Project, tmp_path: Path) -> None:
    done = run(project, tmp_path / "out", "vllm")
    names = {path.name for path in done.folder.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "tokenizer.json", "tokenizer_config.json"} <= names
    base = resolve(project.settings.base, root=project.root)
    theirs = PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32), str(done.folder)).eval()
    prompt, expected = answer(project)
    logits = theirs(input_ids=torch.tensor([[*prompt, *expected]])).logits[0, len(prompt) - 1 : -1]
    assert tuple(logits.argmax(dim=1).tolist()) == expected
    card = (done.folder / "README.md").read_text(encoding="utf-8")
    assert "--enable-lora --max-lora-rank 8 --lora-modules hives=FOLDER" in card, "rank 4 needs the next value that vLLM takes"
    tokenizer = transformers.AutoTokenizer.from_pretrained(done.folder)
    assert tokenizer.apply_chat_template([{"role": "user", "content": QUESTION[0].content}], add_generation_prompt=True, return_dict=False) == prompt


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"r": 1024}, "rank 1024: vLLM takes at most 512"),
        ({"modules_to_save": ["lm_head", "embed_tokens"]}, "modules that are saved whole (lm_head, embed_tokens)"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "trained biases (all)"),
        ({"target_modules": ["q_proj", "router"]}, "updates of router"),
    ],
)
def test_what_vllm_would_refuse_is_said(changed: dict[str, Any], message: str) -> None:
    sound = {"r": 16, "target_modules": ["q_proj", "v_proj"], "bias": "none", "modules_to_save": None}
    assert list(vllm_faults(sound)) == []
    (fault,) = vllm_faults({**sound, **changed})
    assert message in fault
    assert max(RANKS) == 512


def test_everything_that_vllm_would_refuse_is_said_before_anything_is_written(project: Project, tmp_path: Path) -> None:
    """In one message, also for an adapter that Metier itself would not make."""
    adapter = project.store.newest("adapter")
    assert adapter is not None
    folder = tmp_path / "changed"
    shutil.copytree(adapter.path, folder)
    (folder / "manifest.json").unlink()
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True, "bias": "all"}))
    made = project.store.commit("adapter", folder, parents=adapter.parents, facts=adapter.facts)
    with pytest.raises(InputError, match=r"(?s)vLLM would refuse this adapter:.*DoRA.*trained biases.*--format merged"):
        run(project, tmp_path / "out", "vllm", adapter=made.digest[:12])
    assert not (tmp_path / "out").exists()


def test_another_base_or_template_is_refused(project: Project, tmp_path: Path) -> None:
    adapter = project.store.newest("adapter")
    assert adapter is not None
    other = tmp_path / "changed"
    shutil.copytree(adapter.path, other)
    (other / "manifest.json").unlink()
    (other / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    made = project.store.commit("adapter", other, parents=adapter.parents, facts={**adapter.facts, "template": digest_of("{{ messages[0]['content'] }}")})
    with pytest.raises(ModelError, match="chat template is not the one that the adapter was trained with"):
        run(project, tmp_path / "out", adapter=made.digest)
    wrong = tmp_path / "wrong"
    shutil.copytree(adapter.path, wrong)
    (wrong / "manifest.json").unlink()
    facts = {**adapter.facts, "base": {**adapter.facts["base"], "digest": "ab" * 32}}
    with pytest.raises(ModelError, match=r"(?s)trained on another base model .*abababababab"):
        run(project, tmp_path / "out", adapter=project.store.commit("adapter", wrong, parents=adapter.parents, facts=facts).digest)


def test_the_adapter_is_named_by_the_beginning_of_its_digest(project: Project, tmp_path: Path) -> None:
    adapter = project.store.newest("adapter")
    assert adapter is not None
    assert run(project, tmp_path / "out", "vllm", adapter=adapter.digest[:8]).manifest["adapter"] == adapter.digest
    with pytest.raises(InputError, match=r"(?s)begins no adapter of this project.*there are: " + adapter.digest[:16]):
        run(project, tmp_path / "again", "vllm", adapter="zzzz")


def test_nothing_is_written_over_and_what_a_killed_export_left_is_cleared(project: Project, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(InputError, match="there is something at"):
        run(project, tmp_path / "taken", "vllm")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is no folder"):
        run(project, tmp_path / "file" / "out", "vllm")
    left = tmp_path / ".out.unfinished-export"
    left.mkdir()
    (left / "half").write_text("x")
    done = run(project, tmp_path / "out", "vllm")
    assert not left.exists()
    assert not (done.folder / "half").exists()
    with pytest.raises(StoreError, match=r"(?s)is full; nothing half-written was kept"), aside(tmp_path / "full") as folder:
        (folder / "half").write_text("x")
        raise OSError(28, "No space left on device")
    assert not list(tmp_path.glob("*full*"))


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"form": "ggml"}, "valid: gguf, merged, peft, vllm"),
        ({"form": "merged", "type": "f16"}, "--type is the type of numbers in a GGUF file"),
        ({"form": "gguf", "type": "q4"}, "no type of numbers that is written"),
        ({"form": "vllm", "prompts": [QUESTION]}, "--prompts are compared where weights are written anew"),
        ({"form": "peft", "prompts": [QUESTION]}, "--prompts are compared where weights are written anew"),
    ],
)
def test_wishes_that_do_not_go_together_are_wrong_input(project: Project, tmp_path: Path, wish: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(project, tmp_path / "out", **wish)


def test_prompts_of_one_s_own_are_compared_and_their_file_is_checked_whole(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "你好"}\n\n{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]}\n', encoding="utf-8")
    prompts = deploy.read_prompts(path)
    done = run(project, tmp_path / "out", prompts=prompts)
    assert done.manifest["conversations"] == ["prompt 1", "prompt 2"]
    path.write_text('{"prompt": ""}\nno json\n{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n', encoding="utf-8")
    with pytest.raises(InputError) as caught:
        deploy.read_prompts(path)
    assert [fault.line for fault in caught.value.faults] == [1, 2, 3]
    assert "ends with a question" in str(caught.value)
    with pytest.raises(InputError, match="more than 1024 tokens"):
        run(project, tmp_path / "long", prompts=[(Message("user", "蜂" * 3000),)])
    with pytest.raises(InputError, match="65 prompts"):
        run(project, tmp_path / "many", prompts=[QUESTION] * 65)
