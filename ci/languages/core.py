"""What core declares, and how a language spells it."""

from __future__ import annotations

import re
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
WIDTH = 110
# What is generated declares the protocol's messages, which have the same names.
CORE = [(file.relative_to(ROOT / "core").parts[0], file.read_text()) for file in sorted(ROOT.glob("core/*/src/**/*.rs"))
        if "generated" not in file.parts]


@dataclass
class Item:
    """A field or a variant."""

    name: str
    doc: str
    type: str = ""
    default: str = ""
    path: str = ""

    @property
    def inner(self) -> str:
        return re.sub(r"^Option<(.*)>$", r"\1", self.type)

    @property
    def optional(self) -> bool:
        return self.inner != self.type


# Reading core.


def doc_of(comment: str) -> str:
    """The first paragraph of a documentation, as one line, without Rust's links."""
    lines = [line.strip().removeprefix("///").strip() for line in comment.strip().splitlines() if "///" in line]
    text = " ".join("\n".join(lines).split("\n\n")[0].split())
    return re.sub(r"\[(`[^`]+`)\](\([^)]*\))?", r"\1", text)


def declaration(kind: str, path: str) -> tuple[str, list[Item]]:
    """The documentation and the items of a struct or an enum, with its crate where several have that name: `realm::FinishReason`."""
    crate, _, name = path.rpartition("::")
    pattern = re.compile(rf"((?:^(?:///|#\[)[^\n]*\n)*)^pub {kind} {name} \{{\n(.*?)^\}}", re.M | re.S)
    texts = (text for place, text in CORE if f"pub {kind} {name} {{" in text and crate.removeprefix("realm_") in ("", place))
    found = [match for text in texts for match in pattern.finditer(text)]
    if len(found) != 1:
        sys.exit(f"ci/api: {len(found)} declarations of {kind} {path}")
    item = r"^    (?:pub (\w+): (.*)|(\w+)),\n"
    items = [Item(each[1] or each[3], doc_of(each[0]), each[2]) for each in
             (("".join(before), *rest) for before, *rest in re.findall(rf"((?:^    (?:///|#\[).*\n)*){item}", found[0][2], re.M))]
    return doc_of(found[0][1]), items


def fields(path: str) -> list[Item]:
    return declaration("struct", path)[1]


ERRORS = {snake.lower(): name for name, snake in
          ((item.name, re.sub(r"(?<!^)(?=[A-Z])", "-", item.name)) for item in declaration("enum", "ErrorCode")[1])}


def defaults(path: str) -> dict[str, str]:
    """The values that `impl Default` gives to a struct's fields."""
    crate, _, name = path.rpartition("::")
    pattern = re.compile(rf"impl Default for {name} \{{.*?Self \{{(.*?)\}}\n", re.S)
    found = [match[1] for place, text in CORE if place == crate.removeprefix("realm_") for match in pattern.finditer(text)]
    return {name: value.strip() for name, value in re.findall(r"(\w+): ((?:[^,(]|\([^)]*\))+)", found[0])}


def number(value: str) -> float:
    """A number as Rust spells it: `1_024`, `64 << 20`, `Duration::from_secs(10)`."""
    value, _, shift = re.sub(r"Duration::from_secs\((.*)\)|_", r"\1", value).partition("<<")
    return float(value) * (1 << int(shift or 0))


# Writing for a language.


def language_of(place: str) -> str:
    return place.split("/")[0].removeprefix("bindings-")


def camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(word.capitalize() for word in tail)


def pascal(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def prose(text: str, language: str) -> str:
    """Documentation with names as a language spells them."""
    def spelled(match: re.Match[str]) -> str:
        name = match[1]
        if name in ERRORS and language in ("python", "swift"):
            return f"`{ERRORS[name]}{'Error' if language == 'python' else ''}`"
        return f"`{camel(name)}`" if language in ("node", "swift") and re.fullmatch(r"[a-z]+(_[a-z]+)+", name) else match[0]

    return re.sub(r"`([^`]+)`", spelled, text)


def comment(text: str, indent: int, mark: str = "/// ") -> str:
    wide = WIDTH - indent - len(mark)
    return "\n".join(mark + line for line in textwrap.wrap(text, wide, break_long_words=False, break_on_hyphens=False))


def bullet(text: str, indent: int, mark: str = "/// ") -> list[str]:
    """The lines of an item of a list."""
    first, *rest = comment(f"- {text}", indent + 2, mark).splitlines()
    return [first, *(line.replace(mark, f"{mark}  ", 1) for line in rest)]


def ts_comment(text: str, indent: int) -> str:
    if len(text) + indent + 7 <= WIDTH:
        return f"/** {text} */"
    return f"/**\n{comment(text, indent, ' * ')}\n */"


def appended(variants: list[tuple[str, Item]], old: str) -> list[tuple[str, Item]]:
    """The variants of an enum of C with those first that were there before, so that their numbers stay."""
    before = re.findall(r"^\s+(\w+)(?: = \d+)?,$", old[:old.find("\n}")], re.M)
    return sorted(variants, key=lambda variant: before.index(variant[0]) if variant[0] in before else len(before))


def lower(text: str) -> str:
    return text[0].lower() + text[1:]


def last(name: str) -> str:
    """A parameter's name: a field's last word."""
    word = name.rsplit("_", 1)[-1]
    return name if word == "type" else word


NUMBERS = {"usize", "u64", "u32", "f32", "f64"}


def known(kind: str) -> str:
    """The kind of a field's type: `number`, `text`, `bool` or the name of an enum."""
    kinds = {**{number: "number" for number in NUMBERS}, "String": "text", "bool": "bool"}
    if kind not in kinds and not re.fullmatch(r"[A-Z]\w+", kind):
        sys.exit(f"ci/api: no language knows the type {kind}; say here what it is in each")
    return kinds.get(kind, kind)


def names_of(kind: str) -> list[str]:
    """The names of an enum's values, as texts."""
    return [snake(item.name) for item in declaration("enum", kind)[1]]
