"""A folder that vLLM loads as a LoRA adapter, and what vLLM would refuse, said before anything is written.

The rules are vLLM's own: `max_lora_rank` of vllm/config/lora.py, the checks of vllm/lora/peft_helper.py, and the layers that it knows
how to adapt by their names. https://docs.vllm.ai/en/latest/features/lora.html
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from metier.deploy.subject import Made, Subject
from metier.deploy.tokenizers import copy_tokenizer
from metier.errors import InputError
from metier.models.adapterfile import CONFIG
from metier.store import write_atomically

__all__ = ["RANKS", "vllm_faults", "write_vllm"]

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM takes for --max-lora-rank."""

_LAYERS = frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "qkv_proj", "gate_up_proj"})
_KNOWN = frozenset(
    [
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen3ForCausalLM",
        "GemmaForCausalLM",
        "Gemma2ForCausalLM",
        "Gemma3ForCausalLM",
        "Phi3ForCausalLM",
    ]
)


def vllm_faults(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what vLLM would refuse in an adapter's configuration."""
    ranks = [config["r"], *(config.get("rank_pattern") or {}).values()]
    if max(ranks) > RANKS[-1]:
        yield f"rank {max(ranks)}: vLLM takes at most {RANKS[-1]}"
    if config.get("rank_pattern") or config.get("alpha_pattern"):
        yield "ranks or strengths of their own for some layers: vLLM reads one rank and one strength from the configuration"
    if config.get("modules_to_save"):
        yield f"modules that are saved whole ({', '.join(config['modules_to_save'])}): vLLM only takes low-rank updates"
    if config.get("use_dora"):
        yield "DoRA: vLLM has no magnitudes of weights"
    if config.get("bias", "none") != "none":
        yield f"trained biases ({config['bias']}): vLLM does not take them"
    targets = config.get("target_modules")
    if isinstance(targets, list) and (odd := sorted(set(targets) - _LAYERS)):
        yield f"updates of {', '.join(odd)}: vLLM adapts {', '.join(sorted(_LAYERS))}"


def write_vllm(subject: Subject, folder: Path) -> Made:
    """Write adapter, template and tokenizer into a folder. Raises InputError, naming each point, for what vLLM would refuse."""
    config, architecture = _checked(subject)
    for name in subject.adapter.files:
        shutil.copyfile(subject.adapter.file(name), folder / name)
    # The name of a base model in another project's folder says nothing to vLLM, which is told the base on its command line.
    write_atomically(folder / CONFIG, (json.dumps(config, indent=2, sort_keys=True) + "\n").encode())
    copy_tokenizer(subject.base.folder, folder, subject.template)
    rank = next(size for size in RANKS if size >= config["r"])
    use = (
        f"vllm serve BASE --enable-lora --max-lora-rank {rank} --lora-modules {subject.project}=FOLDER --chat-template FOLDER/chat_template.jinja\n"
        f"# BASE: {subject.base.name}, with the digest named above"
    )
    notes = ["vLLM computes the update in the base's own number format; this adapter's numbers are fp32."]
    if architecture not in _KNOWN:
        notes.append(f"{architecture} is not among the architectures of which it is known here that vLLM adapts them: {', '.join(sorted(_KNOWN))}.")
    return Made({"rank": config["r"], "targets": config["target_modules"]}, {"largest_rank": RANKS[-1]}, tuple(notes), use)


def _checked(subject: Subject) -> tuple[dict[str, Any], str]:
    config: dict[str, Any] = json.loads(subject.adapter.file(CONFIG).read_bytes())
    if faults := list(vllm_faults(config)):
        raise InputError(
            "vLLM would refuse this adapter:\n" + "\n".join(f"  {fault}" for fault in faults) + "\n    -> export with --format merged, which has no such limits"
        )
    described = json.loads((subject.base.folder / "config.json").read_bytes())
    return config, (described.get("architectures") or ["unknown"])[0]


def check_vllm(subject: Subject) -> None:
    """Raise InputError for what vLLM would refuse; nothing is written."""
    _checked(subject)
