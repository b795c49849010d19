"""Counters and gauges: tokens and requests by kind, pages of a KV cache, and memory by kind. C and Swift have the counters of tokens and
requests side by side, the others as objects of their own."""

from __future__ import annotations

from languages.core import Item, camel, comment, declaration, fields, pascal, prose, snake, ts_comment

TOKENS, REQUESTS = fields("realm_engine::Tokens"), fields("realm_engine::Requests")
PAGES = fields("realm_engine::KvPages")
MEMORY = [Item(snake(kind.name), kind.doc, "usize") for kind in declaration("enum", "MemoryKind")[1]]
TOTAL = Item("total", "The sum of all kinds.", "usize")


def flat(item: Item) -> str:
    """A counter of tokens, where it stands beside those of requests."""
    return "draft_tokens" if item.name == "drafted" else f"{item.name}_tokens"


COUNTERS = [*((flat(item), f"tokens.{item.name}", item) for item in TOKENS),
            *((item.name, f"requests.{item.name}", item) for item in REQUESTS)]


def declared(items: list[tuple[str, Item]], kind: str, language: str, indent: int) -> str:
    return "\n".join(f"{comment(prose(item.doc, language), indent)}\npub {name}: {kind}," for name, item in items)


def counters(language: str, indent: int) -> str:
    return declared([(name, item) for name, _, item in COUNTERS], "u64", language, indent)


def counters_set(_indent: int, _old: str) -> str:
    return "\n".join(f"{name}: served.{path}," for name, path, _ in COUNTERS)


def pages(language: str, kind: str, derived: str, indent: int) -> str:
    cast = "" if kind == "usize" else f" as {kind}"
    return f"""/// Pages of a KV cache.
{derived}
pub struct KvPages {{
{declared([(item.name, item) for item in PAGES], kind, language, indent + 4)}
}}

impl From<realm::KvPages> for KvPages {{
    fn from(pages: realm::KvPages) -> Self {{
        Self {{ {" ".join(f"{item.name}: pages.{item.name}{cast}," for item in PAGES)} }}
    }}
}}
"""


def kinds(cast: str) -> str:
    made = [f"{item.name}: memory.of(realm::MemoryKind::{pascal(item.name)}){cast}," for item in MEMORY]
    return f"Self {{ {' '.join(made)} total: memory.total(){cast} }}"


def swift_memory(indent: int, _old: str) -> str:
    return f"""/// The bytes of memory that a tenant holds, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Record)]
pub struct MemoryUse {{
{declared([(item.name, item) for item in [*MEMORY, TOTAL]], "u64", "swift", indent + 4)}
}}

impl From<realm::MemoryUse> for MemoryUse {{
    fn from(memory: realm::MemoryUse) -> Self {{
        {kinds(" as u64")}
    }}
}}
"""


def record(name: str, about: str, items: list[Item], made: str) -> str:
    """A class of Python, and how it is made of core's."""
    lines = "\n".join(f"        {line}" for item in items
                      for line in [*comment(prose(item.doc, "python"), 8).splitlines(), f"{item.name}: {item.type},"])
    argument = "memory" if name == "MemoryUse" else "core"
    return f"""record! {{
    /// {about}
    {name} {{
{lines}
    }}
}}

impl {name} {{
    pub(crate) fn of({argument}: realm::{name}) -> Self {{
        {made}
    }}
}}
"""


def same(items: list[Item]) -> str:
    return f"Self {{ {' '.join(f'{item.name}: core.{item.name},' for item in items)} }}"


CLASSES = {"Tokens": TOKENS, "Requests": REQUESTS, "KvPages": PAGES, "MemoryUse": [*MEMORY, TOTAL]}


def python(_indent: int, _old: str) -> str:
    return "\n".join((
        record("Tokens", "The numbers of tokens, by kind.", TOKENS, same(TOKENS)),
        record("Requests", "The numbers of ended requests, by outcome.", REQUESTS, same(REQUESTS)),
        record("KvPages", "The KV cache.", PAGES, same(PAGES)),
        record("MemoryUse", "The bytes of memory that a tenant holds, by kind.", [*MEMORY, TOTAL], kinds(""))))


def stub(_indent: int, _old: str) -> str:
    out = []
    for name, items in CLASSES.items():
        arguments = "\n".join(f"        {item.name}: int," for item in items)
        attributes = "\n".join(f"    @property\n    def {item.name}(self) -> int: ..." for item in items)
        matched = ", ".join(f'Literal["{item.name}"]' for item in items)
        out.append(f"""@final
class {name}:
    def __new__(
        cls,
{arguments}
    ) -> Self: ...
{attributes}
    def to_dict(self) -> dict[str, Any]: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self, /) -> int: ...
    __match_args__: ClassVar[tuple[{matched}]]
""")
    return "\n".join(out)


def node(_indent: int, _old: str) -> str:
    out = []
    for name, kind, items in (("tokens", "Tokens", TOKENS), ("requests", "Requests", REQUESTS), ("pages", "KvPages", PAGES)):
        values = "\n".join(f'        "{camel(item.name)}": {name}.{item.name},' for item in items)
        out.append(f"fn {name}({name}: &realm::{kind}) -> Value {{\n    json!({{\n{values}\n    }})\n}}\n")
    return "\n".join(out)


def ts(items: list[Item], indent: int) -> str:
    return "\n".join(f"{ts_comment(prose(item.doc, 'node'), indent)}\n{camel(item.name)}: number" for item in items)


# The runners of the conformance scenarios.


def runner_rust(_indent: int, _old: str) -> str:
    return "\n".join(f'"{name}": served.{path},' for name, path, _ in COUNTERS)


def runner_rust_pages(_indent: int, _old: str) -> str:
    return "\n".join(f'"{item.name}": kv.{item.name},' for item in PAGES)


def runner_c(_indent: int, _old: str) -> str:
    return "\n".join(f'{{"{name}", served.{name}}},' for name, _, _ in COUNTERS)


def runner_c_pages(_indent: int, _old: str) -> str:
    return "\n".join(f'{{"{item.name}", kv.{item.name}}},' for item in PAGES)


def runner_swift(_indent: int, _old: str) -> str:
    return "\n".join(f'"{name}": Json(served.{camel(name)}),' for name, _, _ in COUNTERS)


def runner_swift_pages(_indent: int, _old: str) -> str:
    return "\n".join(f'"{item.name}": Json(kv.{camel(item.name)}),' for item in PAGES)


SWIFT = "#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Record)]"
PARTS = {
    ("counters", "bindings-c/src"): lambda indent, _: counters("c", indent),
    ("the values of counters", "bindings-c/src"): counters_set,
    ("pages", "bindings-c/src"): lambda indent, _: pages("c", "usize", "#[repr(C)]\n#[derive(Clone, Copy)]", indent),
    ("counters", "bindings-swift/src"): lambda indent, _: counters("swift", indent),
    ("the values of counters", "bindings-swift/src"): counters_set,
    ("pages", "bindings-swift/src"): lambda indent, _: pages("swift", "u64", SWIFT, indent),
    ("memory", "bindings-swift/src"): swift_memory,
    ("metrics", "bindings-python/src"): python,
    ("metrics", "bindings-python/python"): stub,
    ("metrics", "bindings-node/src"): node,
    ("counters of tokens", "bindings-node/ts"): lambda indent, _: ts(TOKENS, indent),
    ("counters of requests", "bindings-node/ts"): lambda indent, _: ts(REQUESTS, indent),
    ("pages", "bindings-node/ts"): lambda indent, _: ts(PAGES, indent),
    ("memory", "bindings-node/ts"): lambda indent, _: ts([*MEMORY, TOTAL], indent),
    ("counters", "core/realm/tests"): runner_rust,
    ("pages", "core/realm/tests"): runner_rust_pages,
    ("counters", "bindings-c/tests"): runner_c,
    ("pages", "bindings-c/tests"): runner_c_pages,
    ("counters", "bindings-swift/Tests"): runner_swift,
    ("pages", "bindings-swift/Tests"): runner_swift_pages,
}
