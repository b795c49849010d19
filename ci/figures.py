"""The files of docs/data, which hold the figures of docs/performance.md: read and written so that a changed figure is a changed line."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parent.parent / "docs/data"


def path(machine: str) -> Path:
    return DATA / f"{machine}.json"


def load(machine: str) -> dict[str, Any]:
    return json.loads(path(machine).read_text())


def section(data: dict[str, Any], title: str) -> dict[str, Any]:
    return next(section for section in data["sections"] if section["title"] == title)


def spell(value: Any, indent: int = 0) -> str:
    """JSON with each result, row of a table and short list on a line of its own."""
    plain = json.dumps(value, ensure_ascii=False)
    pad = " " * indent
    if isinstance(value, dict) and "measure" not in value:
        inner = ",\n".join(f"{pad}  {json.dumps(key)}: {spell(each, indent + 2)}" for key, each in value.items())
        return f"{{\n{inner}\n{pad}}}"
    if isinstance(value, list):
        flat = not any(isinstance(each, (list, dict)) for each in value)
        if (flat and len(plain) < 130) or (flat and indent > 8):
            return plain
        return "[\n" + ",\n".join(f"{pad}  {spell(each, indent + 2)}" for each in value) + f"\n{pad}]"
    return plain


def spelled(data: dict[str, Any]) -> str:
    return spell(data) + "\n"


def replace_peers(machine: str, results: list[dict[str, Any]], command: str) -> None:
    """Puts new results beside llama.cpp, of today, into a machine's file; results of other measures and models stay."""
    data = load(machine)
    into = section(data, "Beside llama.cpp")
    new = {(result["model"], result["measure"]): result for result in results}
    old = into["peers"]["results"]
    kept = [{**result, **new.pop((result["model"], result["measure"]), {})} for result in old]
    into["peers"]["results"] = kept + list(new.values())
    into["date"], into["command"] = datetime.date.today().isoformat(), [command]
    path(machine).write_text(spelled(data))
