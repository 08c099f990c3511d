"""Every method in every form: what can hold it gives the expert's logits to the runtime that reads it, what cannot says why and what does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file

import decided
from metier import deploy
from metier import export as way_out
from metier.artifacts import Artifact
from metier.deploy.forms import FORMATS, REASONS, reason, table
from metier.errors import InputError, ModelError
from metier.models import Base, LocalModel, load_weights, resolve
from metier.models.methods import METHODS, Shape, attach_method
from metier.models.parity import Golden, golden, own_logits, plain_logits
from metier.models.saved import write_saved
from metier.project import Project
from metier.records import Message

SHAPE = Shape(rank=4, alpha=8, size=16, tokens=5, layers=1)
RANKS = Shape(rank=4, alpha=8, ranks={"layers.0.self_attn.q_proj": 2, "mlp.down_proj": 6})
ASKED = [(Message("user", "春天的蜂箱有几张子脾？"),), (Message("user", "How many brood frames, and where?"),)]


def base_of(project: Project) -> Base:
    return resolve(project.settings.base, root=project.root)


def taught(project: Project, method: str, folder: Path, shape: Shape = SHAPE) -> Artifact:
    """Commit an adapter of a method whose numbers are far from their start, beside the project's own."""
    known = project.store.newest("adapter")
    assert known is not None
    base = base_of(project)
    model = load_weights(base, torch.float32)
    tuned = attach_method(model, method, shape, seed=0)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if parameter.requires_grad and not name.endswith("place"):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    if method == "adalora":  # Directions that were given up leave layers of other ranks, and one without any.
        for number, (_, layer) in enumerate(sorted(tuned._layers.items())):
            layer.directions.data[: 1 + number % 4 if number else None] = 0
    write_saved(folder, tuned.config() | {"base_model_name_or_path": base.name}, tuned.state())
    (folder / "chat_template.jinja").write_bytes(known.file("chat_template.jinja").read_bytes())
    rank = shape.rank if METHODS[method].low_rank else None
    return project.store.commit("adapter", folder, parents=known.parents, facts={**known.facts, "method": method, "rank": rank})


def expert(project: Project, adapter: Artifact) -> tuple[list[Golden], list[torch.Tensor], list[torch.Tensor]]:
    """Return golden rows of an adapter, its logits there and the base's own."""
    ours = LocalModel.open(base_of(project), adapter.path, dtype=torch.float32)
    rows = golden(ours, ASKED, answer_tokens=8)
    logits = own_logits(ours, rows)
    virtual = ours.chat.virtual
    bare = [Golden(row.messages, row.tokens[virtual:], row.first - virtual) for row in rows]
    with ours.without_adapter():
        return bare, logits, own_logits(ours, bare)


def run(project: Project, adapter: Artifact, out: Path, form: Any, **wishes: Any) -> deploy.Exported:
    return way_out.export(project, deploy.Wish(form, unreleased=True, **wishes), out, adapter=adapter.digest, ledger=decided.intact)


def read(done: deploy.Exported, form: str, base: Base) -> torch.nn.Module:
    """Load an export as the runtime that it is for does: plain transformers, its reader of GGUF, or PEFT."""
    kind = transformers.AutoModelForCausalLM
    if form == "merged":
        return kind.from_pretrained(done.folder, dtype=torch.float32).eval()
    if form == "gguf":
        (file,) = done.folder.glob("*.gguf")
        return kind.from_pretrained(done.folder, gguf_file=file.name, dtype=torch.float32).eval()
    return PeftModel.from_pretrained(kind.from_pretrained(base.folder, dtype=torch.float32), str(done.folder)).eval()


def theirs(model: Any, form: str, rows: list[Golden]) -> Iterator[torch.Tensor]:
    if form not in ("peft", "vllm"):
        yield from plain_logits(model, rows)
        return
    for row in rows:
        ids = torch.tensor([row.tokens])
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
        yield logits[-(len(row.tokens) - row.first) :].float()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("method", METHODS)
def test_a_cell_of_the_table_is_what_it_says(project: Project, method: str, form: str, tmp_path: Path) -> None:
    adapter = taught(project, method, tmp_path / "adapter")
    why = reason(form, method, "generation")
    if why is not None:
        with pytest.raises(ModelError) as refused:
            run(project, adapter, tmp_path / "out", form)
        assert why in str(refused.value)
        held = [other for other in FORMATS if reason(other, method, "generation") is None]
        assert all(f"--format {other}" in str(refused.value) for other in held)
        assert held or "metier serve" in str(refused.value)
        assert not (tmp_path / "out").exists()
        return
    done = run(project, adapter, tmp_path / "out", form)
    rows, expected, plain = expert(project, adapter)
    found = list(theirs(read(done, form, base_of(project)), form, rows))
    for ours, other, base in zip(expected, found, plain, strict=True):
        assert torch.allclose(other[:, : ours.shape[1]], ours, atol=2e-4)
        assert not torch.allclose(base, ours, atol=0.05), "an expert that does nothing would prove nothing"
    assert method in (done.folder / "README.md").read_text(encoding="utf-8")


def test_the_guide_shows_the_table() -> None:
    text = (Path(__file__).parents[2] / "docs" / "guides" / "export.md").read_text(encoding="utf-8")
    shown = text[text.index("<!-- export-table:start -->") : text.index("<!-- export-table:end -->")]
    rows = [tuple(cell.strip().strip("`") for cell in line.strip().strip("|").split("|")) for line in shown.splitlines()[3:] if line.startswith("|")]
    assert rows == table()
    assert [cell.strip("` ") for cell in shown.splitlines()[1].strip("|").split("|")][1:] == list(FORMATS)


def test_the_table_has_a_row_for_every_method_and_every_reason_is_of_one() -> None:
    assert [row[0] for row in table()] == list(METHODS)
    assert set(REASONS) == set(FORMATS)
    assert all(set(reasons) <= set(METHODS) for reasons in REASONS.values())


@pytest.mark.parametrize("method", ["lora", "rslora"])
def test_layers_of_other_ranks_are_filled_up_for_vllm_and_the_update_stays(project: Project, method: str, tmp_path: Path) -> None:
    adapter = taught(project, method, tmp_path / "adapter", RANKS)
    assert "rank_pattern" in json.loads(adapter.file("adapter_config.json").read_bytes())
    done = run(project, adapter, tmp_path / "out", "vllm", prompts=ASKED)
    config = json.loads((done.folder / "adapter_config.json").read_bytes())
    assert (config["r"], config["rank_pattern"], config["alpha_pattern"]) == (6, {}, {})
    shapes = {tensor.shape[0 if "lora_A" in name else 1] for name, tensor in load_file(done.folder / "adapter_model.safetensors").items()}
    assert shapes == {6}
    assert done.manifest["measured"]["largest"] < 1e-3
    assert "filled up with zeros to rank 6" in (done.folder / "README.md").read_text(encoding="utf-8")
    rows, expected, _ = expert(project, adapter)
    for ours, other in zip(expected, theirs(read(done, "vllm", base_of(project)), "vllm", rows), strict=True):
        assert torch.allclose(other, ours, atol=2e-4)
    even = taught(project, method, tmp_path / "even")
    with pytest.raises(InputError, match="hands this adapter's own bytes on"):
        run(project, even, tmp_path / "again", "vllm", prompts=ASKED)
