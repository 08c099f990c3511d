"""A folder that vLLM loads as a LoRA adapter, and what vLLM would refuse, said before anything is written.

The rules are those of vLLM 0.32.0: `max_lora_rank` of vllm/config/lora.py, the checks of vllm/lora/peft_helper.py, and the layers that it knows
how to adapt by their names. https://docs.vllm.ai/en/latest/features/lora.html
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from metier.deploy.merged import limit_facts, measured_facts, original_of, refuse
from metier.deploy.peft import configuration, hand_on
from metier.deploy.subject import Made, Subject, Wish
from metier.errors import InputError
from metier.models.adapterfile import WEIGHTS
from metier.models.load import load_weights
from metier.models.local import LocalModel
from metier.models.lorafile import evened, lora_weights
from metier.models.parity import Limits, Parity, compare, own_logits
from metier.models.saved import write_tensors
from metier.progress import Progress

__all__ = ["RANKS", "check_vllm", "vllm_faults", "write_vllm"]

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


EXACT = Limits(divergence=1e-6, largest=0.01, tie=0.01, share=0.01)
"""What may differ where an adapter is written anew in fp32: only the order of sums does."""


def vllm_faults(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what vLLM would refuse in an adapter's configuration."""
    ranks = [config["r"], *(config.get("rank_pattern") or {}).values()]
    if max(ranks) > RANKS[-1]:
        yield f"rank {max(ranks)}: vLLM takes at most {RANKS[-1]}"
    if config.get("modules_to_save"):
        yield f"modules that are saved whole ({', '.join(config['modules_to_save'])}): vLLM only takes low-rank updates"
    if config.get("use_dora"):
        yield "DoRA: vLLM has no magnitudes of weights"
    if config.get("bias", "none") != "none":
        yield f"trained biases ({config['bias']}): vLLM does not take them"
    targets = config.get("target_modules")
    # What counts for vLLM is the last part of a layer's name; whole names stand there where only some layers of a kind have an update.
    if isinstance(targets, list) and (odd := sorted({name.rsplit(".", 1)[-1] for name in targets} - _LAYERS)):
        yield f"updates of {', '.join(odd)}: vLLM adapts {', '.join(sorted(_LAYERS))}"


def _uneven(config: Mapping[str, Any]) -> bool:
    """Return whether layers have ranks or strengths of their own: older versions of vLLM pass over what the configuration says of single layers."""
    return bool(config.get("rank_pattern") or config.get("alpha_pattern"))


def write_vllm(subject: Subject, folder: Path, wish: Wish, progress: Progress) -> Made:
    """Write adapter, template and tokenizer into a folder. Layers of smaller rank are filled up with zeros, and the result is compared with the expert.

    Raises InputError, naming each point, for what vLLM would refuse, and GateRefused beyond the limits.
    """
    config, architecture = _checked(subject, wish)
    notes = ["vLLM computes the update in the base's own number format; this adapter's numbers are fp32."]
    measured: dict[str, Any] = {}
    conversations: tuple[str, ...] = ()
    if _uneven(config):
        config, parity, conversations = _evened(subject, folder, config, wish, progress)
        measured = measured_facts(parity)
        notes.append(f"Layers of smaller rank were filled up with zeros to rank {config['r']}: older versions of vLLM read one rank for all.")
    else:
        hand_on(subject, folder, config)
    rank = next(size for size in RANKS if size >= config["r"])
    use = (
        f"vllm serve BASE --enable-lora --max-lora-rank {rank} --lora-modules {subject.project}=FOLDER --chat-template FOLDER/chat_template.jinja\n"
        f"# BASE: {subject.base.name}, with the digest named above"
    )
    if architecture not in _KNOWN:
        notes.append(f"{architecture} is not among the architectures of which it is known here that vLLM adapts them: {', '.join(sorted(_KNOWN))}.")
    about = {"rank": config["r"], "targets": config["target_modules"]} | measured
    limits = {"largest_rank": RANKS[-1]} | (limit_facts(EXACT) if measured else {})
    return Made(about, limits, tuple(notes), use, conversations)


def _evened(subject: Subject, folder: Path, config: Mapping[str, Any], wish: Wish, progress: Progress) -> tuple[dict[str, Any], Parity, tuple[str, ...]]:
    """Write an adapter with one rank and one strength for all layers and compare it; return its configuration, what was measured and on which conversations."""
    original = original_of(subject, wish, progress)
    changed, tensors = evened(lora_weights(load_weights(subject.base, torch.float32), original.saved))
    config = {**config, **changed}
    hand_on(subject, folder, config)
    write_tensors(folder / WEIGHTS, tensors)
    again = LocalModel.open(subject.base, folder, dtype=torch.float32)
    parity = compare(original.logits, own_logits(again, original.rows), effect=original.effect)
    refuse(parity, EXACT, "the adapter with one rank for all layers does not answer as the expert does")
    return config, parity, original.names


def _checked(subject: Subject, wish: Wish) -> tuple[dict[str, Any], str]:
    config = configuration(subject)
    if faults := list(vllm_faults(config)):
        raise InputError(
            "vLLM would refuse this adapter:\n" + "\n".join(f"  {fault}" for fault in faults) + "\n    -> export with --format merged, which has no such limits"
        )
    if wish.prompts is not None and not _uneven(config):
        raise InputError("--prompts are compared where weights are written anew; --format vllm hands this adapter's own bytes on\n    -> leave --prompts out")
    described = json.loads((subject.base.folder / "config.json").read_bytes())
    return config, (described.get("architectures") or ["unknown"])[0]


def check_vllm(subject: Subject, wish: Wish) -> None:
    """Raise InputError for what vLLM would refuse; nothing is written."""
    _checked(subject, wish)
