"""The options of choosing tokens that are single numbers. A seed, a bias and banned tokens are of another kind in each language."""

from __future__ import annotations

from languages.core import Item, bullet, camel, comment, defaults, fields, last, lower, number, prose, ts_comment

DEFAULTS = defaults("realm_engine::Sampling")
SAMPLING = [item for item in fields("realm_engine::Sampling") if item.type in ("f32", "usize")]
# One function of C sets both.
TOGETHER = {"repetition_penalty", "repetition_window"}


def default(item: Item) -> float:
    return number(DEFAULTS[item.name])


def doc(item: Item, language: str) -> str:
    return prose(f"{item.doc} By default {default(item):g}.", language)


def c(indent: int, _old: str) -> str:
    out = []
    for item in SAMPLING:
        if item.name not in TOGETHER:
            argument, text = last(item.name), doc(item, "c")
            out.append(f"""{comment(f"Sets {lower(text)}" if text.startswith("The ") else text, indent)}
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_request_set_{item.name}(request: *mut Request, {argument}: {item.type}) {{
    // SAFETY: a request of ours, or NULL.
    unsafe {{ set(request, |r| r.sampling.{item.name} = {argument}) }}
}}
""")
    return "\n".join(out)


def node(_indent: int, _old: str) -> str:
    return "\n".join(f"{item.name}: Option<{item.type}>," for item in SAMPLING)


def node_set(_indent: int, _old: str) -> str:
    return "\n".join(f"set(&mut sampling.{item.name}, options.{item.name});" for item in SAMPLING)


def ts(indent: int, _old: str) -> str:
    return "\n".join(f"{ts_comment(doc(item, 'node'), indent)}\n{camel(item.name)}?: number | undefined" for item in SAMPLING)


def python(_indent: int, _old: str) -> str:
    return "\n".join(f'"{item.name}",' for item in SAMPLING)


def python_set(_indent: int, _old: str) -> str:
    return "\n".join(f'"{item.name}" => sampling.{item.name} = value.extract()?,' for item in SAMPLING)


def python_doc(indent: int, _old: str) -> str:
    out = []
    for item in SAMPLING:
        out += bullet(f"`{item.name}` ({default(item):g}): {lower(prose(item.doc, 'python'))}", indent)
    return "\n".join(out)


def stub(_indent: int, _old: str) -> str:
    return "\n".join(f"{item.name}: {'float' if item.type == 'f32' else 'int'} | None" for item in SAMPLING)


def swift(indent: int, _old: str) -> str:
    out = []
    for item in SAMPLING:
        value, kind = (str(default(item)), "f32") if item.type == "f32" else (str(int(default(item))), "u64")
        out.append(f"{comment(doc(item, 'swift'), indent)}\n#[uniffi(default = {value})]\npub {item.name}: {kind},")
    return "\n".join(out)


def swift_set(_indent: int, _old: str) -> str:
    return "\n".join(f"{item.name}: self.{item.name}{' as usize' if item.type == 'usize' else ''}," for item in SAMPLING)


# The runners of the conformance scenarios.


def runner_rust(_indent: int, _old: str) -> str:
    return "\n".join(f'"{item.name}" => sampling.{item.name} = {"float" if item.type == "f32" else "count"}(),' for item in SAMPLING)


def runner_c(_indent: int, _old: str) -> str:
    return " else ".join(f'if (key == "{item.name}") {{\n    realm_request_set_{item.name}(r, value);\n}}'
                         for item in SAMPLING if item.name not in TOGETHER) + " else"


def runner_swift(_indent: int, _old: str) -> str:
    return "\n".join(
        f'case "{item.name}": request.{camel(item.name)} = {"float" if item.type == "f32" else "value.count!"}' for item in SAMPLING)


PARTS = {
    ("sampling options", "bindings-c/src"): c,
    ("sampling options", "bindings-node/src"): node,
    ("the use of sampling options", "bindings-node/src"): node_set,
    ("sampling options", "bindings-node/ts"): ts,
    ("sampling options", "bindings-python/src"): python,
    ("the use of sampling options", "bindings-python/src"): python_set,
    ("the documentation of sampling options", "bindings-python/src"): python_doc,
    ("sampling options", "bindings-python/python"): stub,
    ("sampling options", "bindings-swift/src"): swift,
    ("the use of sampling options", "bindings-swift/src"): swift_set,
    ("sampling options", "core/realm/tests"): runner_rust,
    ("sampling options", "bindings-c/tests"): runner_c,
    ("sampling options", "bindings-swift/Tests"): runner_swift,
}
