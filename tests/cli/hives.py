"""A small project in the example domain, in Chinese and English, that the tests of the command line run on."""

from __future__ import annotations

import json
import random
from pathlib import Path

_FLOWERS = {"zh": ("油菜", "洋槐", "荆条", "枇杷", "荔枝", "椴树"), "en": ("rape", "acacia", "heather", "loquat", "lime", "clover")}
_PLACES = {
    "zh": ("河边", "山坡", "果园", "林间", "田埂", "屋后"),
    "en": ("by the river", "on the slope", "in the orchard", "in the wood", "at the field", "behind the house"),
}
_SEASONS = {"zh": ("春", "夏", "秋", "冬"), "en": ("spring", "summer", "autumn", "winter")}


def rows(count: int, *, seed: int = 0) -> list[dict[str, object]]:
    """Return seeded rows of notes, half Chinese and half English, no two of them near-duplicates."""
    draw = random.Random(seed)
    found: list[dict[str, object]] = []
    for number in range(count):
        language = ("zh", "en")[number % 2]
        flowers, places, seasons = _FLOWERS[language], _PLACES[language], _SEASONS[language]
        frames, season = draw.randint(1, 9), draw.choice(seasons)
        words = [draw.choice(flowers), draw.choice(places), draw.choice(flowers), draw.choice(places)]
        code = "".join(draw.choice("甲乙丙丁戊己庚辛壬癸天地玄黄宇宙洪荒" if language == "zh" else "abcdefghijklmnopqrstuvwxyz") for _ in range(24))
        if language == "zh":
            note = f"{code}：{words[0]}开花，{words[1]}的蜂箱有{frames}张子脾；{words[2]}在{words[3]}，{season}季。"
        else:
            note = f"{code}: {words[0]} flowers, {frames} brood frames {words[1]}; {words[2]} {words[3]}, in {season}."
        found.append({"note": note, "frames": frames, "season": season, "keeper": f"keeper {draw.randint(0, count // 2)}"})
    return found


def write_jsonl(path: Path, items: list[dict[str, object]]) -> None:
    """Write rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), encoding="utf-8")


def write_project(folder: Path, base: Path, *, count: int = 100, training: str = "", question: str = "春天的蜂箱有几张子脾？") -> Path:
    """Write a project of `count` rows on the base model in `base` and return its folder."""
    write_jsonl(folder / "data" / "hives.jsonl", rows(count))
    text = f"""metier: 1
project: hives
pack: example
base: {base}
sources:
  - path: data/*.jsonl
    licence: CC0-1.0
    columns: {{note: note, frames: frames, season: season}}
    subject: keeper
training:
  epochs: 1
  learning_rate: 0.005
  adaptation: {{rank: 4}}
  precision: float32
  batch: {{row_tokens: 2048}}
{training}
evaluation:
  retention_items: 20
  examples: 2
  limit: 10
  resamples: 100
  max_new_tokens: 8
  question: {question}
"""
    (folder / "metier.yaml").write_text(text, encoding="utf-8")
    return folder
