"""Enums."""

from __future__ import annotations

import re

from languages.core import CORE, appended, bullet, comment, declaration, lower, prose, snake


def write(title: str, language: str, indent: int, old: str) -> str:
    """An enum as a language declares it, with conversions."""
    path, *words = title.split()
    name = path.rpartition("::")[2]
    renamed = dict(word.split("=") for word in words if "=" in word)
    doc, items = declaration("enum", path)
    open_ended = any(re.search(rf"^#\[non_exhaustive\]\n(?:#\[.*\n)*pub enum {name} \{{", text, re.M) for _, text in CORE)
    if language == "node":
        values = " | ".join(f"'{snake(item.name)}'" for item in items)
        about = [comment(prose(doc, language), indent, " * "), " *"]
        for item in items:
            about += bullet(f"`{snake(item.name)}`: {lower(prose(item.doc, language))}", indent, " * ")
        text = "\n".join(about)
        return f"/**\n{text}\n */\nexport type {renamed.get(name, name)} = {values}"
    if language == "python":
        return f"_{name}: TypeAlias = Literal[{', '.join(chr(34) + snake(item.name) + chr(34) for item in items)}]"
    own, core = renamed.get(name, name), f"realm::{name}"
    variants = [(renamed.get(item.name, item.name), item) for item in items]
    if language == "c":
        variants = appended(variants, old)
    derived = "#[repr(C)]\n#[derive(Clone, Copy)]" if language == "c" else "#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]"
    first = next((int(word) for word in words if word.isdecimal()), None)
    lines = "\n".join(f"{comment(prose(item.doc, language), indent + 4)}\n{variant}{'' if first is None else f' = {first + i}'},"
                      for i, (variant, item) in enumerate(variants))
    out = [f"{comment(prose(doc, language), indent)}\n{derived}\npub enum {own} {{\n{lines}\n}}"]
    for word, source, target in (("to", own, core), ("from", core, own)):
        if word in words:
            arms = " ".join(f"{source}::{variant if word == 'to' else item.name} => Self::{item.name if word == 'to' else variant},"
                            for variant, item in variants)
            # What stands for variants that core may add.
            arms += f" _ => Self::{renamed['else']}," if word == "from" and open_ended else ""
            out.append(f"impl From<{source}> for {target} {{\nfn from(value: {source}) -> Self {{\nmatch value {{ {arms} }}\n}}\n}}")
    if language == "c" and "to" in words:
        out.append(f"choice!({own} {{ {', '.join(variant for variant, _ in variants)} }});")
    return "\n\n".join(out)
