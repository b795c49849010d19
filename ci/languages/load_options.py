"""The options of loading a model."""

from __future__ import annotations

from languages.core import NUMBERS, bullet, camel, comment, fields, known, last, lower, names_of, prose, ts_comment

LOAD = fields("LoadOptions")
# Texts that name a model, for which Python takes paths too.
MODELS = {"draft_model"}
# Swift's `q8` was there before there was another one.
RENAMED = {"q8_0": "q8"}


def c(indent: int, _old: str) -> str:
    out = []
    for item in LOAD:
        kind, name = known(item.inner), item.name
        what, argument = f"Sets {lower(item.doc)}", last(name)
        if kind == "text":
            what += " Copies the text. Errors: `invalid-argument` for text that is not UTF-8."
        head = f"{comment(what, indent)}\n#[unsafe(no_mangle)]\npub unsafe extern \"C\" fn realm_load_options_set_{name}("
        if kind == "text":
            out.append(f"""{head}options: *mut LoadOptions, {argument}: *const c_char, error: *mut *mut Error) -> bool {{
    // SAFETY: options of ours, the caller's text and place for an error.
    unsafe {{
        attempt(error, false, || {{
            object_mut(options, "options")?.options.{name} = Some(text({argument}, "{argument}")?.into());
            Ok(true)
        }})
    }}
}}
""")
            continue
        plain = kind in ("number", "bool")
        argument = argument if plain else name
        kind = item.inner if plain else f"MaybeUninit<{item.inner}>"
        value = argument if plain else f"{argument}.into()"
        value = f"Some({value})" if item.optional else value
        pattern = "Some(options)" if plain else f"(Some(options), Some({argument}))"
        matched = "unsafe { options.as_mut() }" if plain else f"(unsafe {{ options.as_mut() }}, known({argument}))"
        out.append(f"""{head}options: *mut LoadOptions, {argument}: {kind}) {{
    // SAFETY: options of ours, or NULL.
    if let {pattern} = {matched} {{
        options.options.{name} = {value};
    }}
}}
""")
    return "\n".join(out)


def node(_indent: int, _old: str) -> str:
    declared, made = [], []
    for item in LOAD:
        plain = known(item.inner) in ("number", "text", "bool")
        declared.append(f"{item.name}: Option<{item.inner if plain else f'Named<{item.inner}>'}>,")
        value = f"options.{item.name}" if plain else f"options.{item.name}.map(|named| named.0)"
        made.append(f"{item.name}: {value}{'' if item.optional else '.unwrap_or_default()'},")
    return f"""#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LoadModelOptions {{
    {" ".join(declared)}
}}

/// Builds load options from JSON.
pub(crate) fn load_options(json: &str) -> napi::Result<LoadOptions> {{
    let options: LoadModelOptions = read(json)?;
    Ok(LoadOptions {{ {" ".join(made)} }})
}}
"""


def ts(indent: int, _old: str) -> str:
    out = []
    for item in LOAD:
        kind = known(item.inner)
        union = kind if kind == "Speculation" else " | ".join(f"'{name}'" for name in names_of(kind)) if kind[0].isupper() else ""
        kind = {"number": "number", "text": "string", "bool": "boolean"}.get(kind, union)
        out += [ts_comment(prose(item.doc, "node"), indent), f"{camel(item.name)}?: {kind} | undefined"]
    return "\n".join(out)


def python(_indent: int, _old: str) -> str:
    arms = []
    for item in LOAD:
        kind = known(item.inner)
        value = "count(key, Some(value))?" if kind == "number" and item.inner[0] == "u" else None
        if not value:
            value = {"number": "value.extract()?", "bool": "value.extract()?", "text": "value.extract::<Text>()?.0"}.get(kind, "chosen(value)?")
            value = "text(value.extract()?)?" if item.name in MODELS else value
            value = f"Some({value})" if item.optional else value
        arms.append(f'"{item.name}" => options.{item.name} = {value},')
    names = [f'"{item.name}",' for item in LOAD]
    return f"""const OPTIONS: [&str; {len(LOAD) + 1}] = [{" ".join(names)} "progress"];

fn apply(options: &mut LoadOptions, key: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {{
    match key {{
        {" ".join(arms)}
        _ => return Err(unexpected(key)),
    }}
    Ok(())
}}
"""


def python_doc(indent: int, _old: str) -> str:
    out = []
    for item in LOAD:
        out += bullet(f"`{item.name}`: {lower(prose(item.doc, 'python'))}", indent)
    return "\n".join(out)


def stub(_indent: int, _old: str) -> str:
    kinds = {"text": "str", "bool": "bool"}
    number = lambda item: "int" if item.inner[0] == "u" else "float"
    return "\n".join(
        f"{item.name}: {'_Path' if item.name in MODELS else number(item) if item.inner in NUMBERS else kinds.get(known(item.inner), f'_{item.inner}')} | None"
        for item in LOAD)


def swift(indent: int, _old: str) -> str:
    declared, made = [], []
    for item in LOAD:
        wide = "u64" if item.inner == "usize" else item.inner
        declared.append(f"{comment(prose(item.doc, 'swift'), indent + 4)}\n#[uniffi(default = None)]\npub {item.name}: Option<{wide}>,")
        value = f"options.{item.name}"
        value += ".map(|number| number as usize)" if item.inner == "usize" else ".map(Into::into)" if known(item.inner)[0].isupper() else ""
        made.append(f"{item.name}: {value}{'' if item.optional else '.unwrap_or_default()'},")
    lines = "\n".join(declared)
    return f"""/// The options of loading a model.
#[derive(Debug, Clone, uniffi::Record)]
pub struct LoadOptions {{
{lines}
}}

impl From<LoadOptions> for realm::LoadOptions {{
    fn from(options: LoadOptions) -> Self {{
        Self {{ {" ".join(made)} }}
    }}
}}
"""


# The same options in the runners of the conformance scenarios.


def runner_rust(_indent: int, _old: str) -> str:
    values = {"text": "as_str().map(str::to_owned)", "bool": "as_bool()", "f32": "as_f64().map(|x| x as f32)", "f64": "as_f64()", "u64": "as_u64()"}
    out = []
    for item in LOAD:
        value = values.get(item.inner) or values.get(known(item.inner)) or \
            ("as_str().map(|name| name.parse().unwrap())" if known(item.inner)[0].isupper() else f"as_u64().map(|n| n as {item.inner})")
        out.append(f'{item.name}: o["{item.name}"].{value}{"" if item.optional else ".unwrap_or_default()"},')
    return "\n".join(out)


def runner_c(_indent: int, _old: str) -> str:
    out = []
    for item in LOAD:
        kind, setter = known(item.inner), f"realm_load_options_set_{item.name}(options.get(), "
        if kind == "text":
            call = f"TRY(out, {setter}text.c_str(), &out.error))"
        elif kind[0].isupper():
            values = ", ".join(f'"{name}"' for name in names_of(kind))
            call = f"{setter}one_of<Realm{kind}>(text, {{{values}}}))"
        else:
            call = f"{setter}value)"
        out.append(f'if (key == "{item.name}") {{\n    {call};\n}}')
    return " else ".join(out) + " else"


def runner_swift(_indent: int, _old: str) -> str:
    values = {"number": "value.count", "text": "value.text", "bool": "value == .bool(true)"}
    out = []
    for item in LOAD:
        kind = known(item.inner)
        table = ", ".join(f'"{name}": .{camel(RENAMED.get(name, name))}' for name in names_of(kind)) if kind[0].isupper() else ""
        out.append(f'case "{item.name}": options.{camel(item.name)} = {values.get(kind) or f"([{table}] as [String: {kind}])[value.text!]!"}')
    return "\n".join(out)


def scenarios(_indent: int, _old: str) -> str:
    return comment("- **load options**: " + ", ".join(f"`{item.name}`" for item in LOAD) + ".", 0, "").replace("\n", "\n  ")


PARTS = {
    ("load options", "bindings-c/src"): c,
    ("load options", "bindings-node/src"): node,
    ("load options", "bindings-node/ts"): ts,
    ("load options", "bindings-python/src"): python,
    ("the documentation of load options", "bindings-python/src"): python_doc,
    ("load options", "bindings-python/python"): stub,
    ("load options", "bindings-swift/src"): swift,
    ("load options", "core/realm/tests"): runner_rust,
    ("load options", "bindings-c/tests"): runner_c,
    ("load options", "bindings-swift/Tests"): runner_swift,
    ("load options", "tests/conformance"): scenarios,
}
