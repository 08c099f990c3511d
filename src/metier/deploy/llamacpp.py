"""One GGUF file for runtimes of the llama.cpp family, read back, run in llama.cpp where it is installed, and compared before anybody sees it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from metier.deploy.merged import check_merged, limit_facts, measured_facts, plain_model, refuse, write_merged
from metier.deploy.runtimes import check_installed, run_in_llama
from metier.deploy.subject import Made, Subject, Wish
from metier.errors import GateRefused
from metier.models.chat import Chat
from metier.models.gguf import GgufType, Plan, plan_gguf, write_gguf
from metier.models.ggufcheck import read_model, read_tokenizer, shape_faults, token_faults
from metier.models.parity import Limits, compare, plain_logits
from metier.models.runtime import at_hand
from metier.models.tokenizer import load_tokenizer
from metier.progress import Progress
from metier.store import remove_folder

__all__ = ["LIMITS", "check_gguf", "write_file"]

LIMITS: Mapping[str, Limits] = {
    "f32": Limits(divergence=1e-6, largest=0.01, tie=0.01),
    "f16": Limits(divergence=1e-3, largest=1.0, tie=0.1),
    "bf16": Limits(divergence=1e-3, largest=1.0, tie=0.1),
    "q8_0": Limits(divergence=1e-2, largest=8.0, tie=0.5),
}
"""What may differ from the merged model, by the type of the file. Measured with Gemma 3 270M stored in bf16: nothing in f32 and bf16, 5e-5 of a
logit in f16, 1.5e-4 nats a token and 0.9 of a logit (in 262,144) in q8_0, and the same greedy choice at every place.
An adapter that is very sure has larger logits."""


def _plan(subject: Subject, wish: Wish, folder: Path, chat: Chat) -> Plan:
    others = sorted(chat.stop_tokens - {chat.tokenizer.eos_token_id})
    about = {
        "general.name": subject.project,
        "general.license": subject.base.licence,
        "metier.adapter": subject.adapter.digest,
        "metier.run": subject.run.digest,
        "metier.dataset": subject.dataset.digest,
        "metier.base": subject.base.digest,
        "metier.released": "yes" if subject.refusal is None else "no",
    }
    stop = others[0] if others else chat.tokenizer.eos_token_id
    return plan_gguf(folder, chat.tokenizer, type=cast("GgufType | None", wish.type), stop=stop, about=about)


def check_gguf(subject: Subject, wish: Wish) -> None:
    """Raise ModelError for a model that llama.cpp would compute or cut into tokens otherwise. Merging changes no shape: the base is looked at."""
    check_merged(subject)
    check_installed(wish)
    _plan(subject, wish, subject.base.folder, Chat(load_tokenizer(subject.base)))


def write_file(subject: Subject, folder: Path, wish: Wish, progress: Progress) -> Made:
    """Merge, write the file, read it back and compare: shape, template, tokens, logits, greedy choices. Raises GateRefused on a mismatch."""
    between = folder / "merged"
    between.mkdir()
    merged, original = write_merged(subject, between, wish, progress)
    plan = _plan(subject, wish, between, original.chat)
    path = folder / f"{subject.project}-{plan.type.upper()}.gguf"
    progress.start("writing", len(plan.tensors), "tensors")
    write_gguf(plan, path, step=lambda _: progress.advance("writing"))
    progress.finish("writing")
    progress.start("reading back", 3, "checks")
    faults = list(shape_faults(path, between))
    progress.advance("reading back")
    whole = original.whole
    template = str(original.chat.tokenizer.chat_template)
    faults += token_faults(read_tokenizer(path), [text for text, _ in whole], [row for _, row in whole], template)
    progress.advance("reading back")
    if faults:
        lines = "\n".join(f"  {fault}" for fault in faults)
        raise GateRefused(f"not exported: the file, read back, is not the merged model:\n{lines}\n    -> nothing was published; export with --format merged")
    reference = list(plain_logits(plain_model(between), original.rows))
    parity = compare(reference, plain_logits(read_model(path, between), original.rows))
    progress.finish("reading back")
    refuse(parity, LIMITS[plan.type], f"the file ({plan.type}), read back, does not answer as the merged model does")
    measured = {"merged": merged.measured, "file": measured_facts(parity)}
    limits = {"merged": merged.limits, "file": limit_facts(LIMITS[plan.type])}
    notes = [*merged.notes, *plan.notes]
    if at_hand():
        progress.start("llama.cpp", 1, "run")
        measured["llama.cpp"], limits["llama.cpp"], more = run_in_llama(path, original, reference, plan.type)
        progress.finish("llama.cpp")
        notes += more
    else:
        notes.append("The file was read back by transformers and not run in llama.cpp, for llama-cpp-python is not installed (metier[llama]).")
    remove_folder(between)
    use = f"llama-server -m {path.name} --jinja\n# or: llama-cli -m {path.name} --jinja"
    return Made(measured, limits, tuple(notes), use, merged.conversations)
