"""The limits of a tenant. Those of a run of a program are a struct in core and have names with `program_` in front elsewhere."""

from __future__ import annotations

import re
import sys
import textwrap

from languages.core import WIDTH, Item, appended, camel, comment, defaults, fields, number, pascal, prose, ts_comment

UNITS = {"": 1, "s": 1, "MiB": 1 << 20, "GiB": 1 << 30}


def limits() -> list[Item]:
    out = []
    for struct, before in (("realm_engine::Limits", ""), ("realm_engine::ProgramLimits", "program.")):
        default = defaults(struct)
        for item in fields(struct):
            if item.name != "program":
                path = before + item.name
                out.append(Item(path.replace(".", "_"), item.doc, item.type, default[item.name], path))
    for item in out:
        said = re.search(r"By default (\d+)(?: (s|MiB|GiB))?\.", item.doc)
        if said and int(said[1]) * UNITS[said[2] or ""] != number(item.default):
            sys.exit(f"ci/api: {item.name} is {item.default}, and its documentation says {said[0]}")
    return out


LIMITS = limits()
TIME, NAMES = "Duration", "Vec<String>"
COUNTS = {"usize", "u32"}
NUMBERS = [item for item in LIMITS if item.inner in COUNTS | {TIME}]


def doc(item: Item, language: str) -> str:
    unit = f" In {'milliseconds' if language in ('c', 'node') else 'seconds'}." if item.inner == TIME else ""
    text, default, rest = item.doc.partition(" By default")
    return prose(text + unit + default + rest, language)


def scenario(item: Item) -> str:
    """A limit's name in scenarios, where times are in milliseconds."""
    return item.name + ("_ms" if item.inner == TIME else "")


def c(indent: int, old: str) -> str:
    variants = appended([(pascal(scenario(item)), item) for item in NUMBERS], old)
    lines = "\n".join(f"{comment(doc(item, 'c'), indent + 4)}\n{name}," for name, item in variants)
    sets = " ".join(f"Limit::{name} => limits.{item.path} = Number::of(value)," for name, item in variants)
    gets = " ".join(f"Limit::{name} => limits.{item.path}.number()," for name, item in variants)
    return f"""/// A limit that is a number.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum Limit {{
{lines}
}}

choice!(Limit {{ {", ".join(name for name, _ in variants)} }});

fn set(limits: &mut realm::Limits, limit: Limit, value: u64) {{
    match limit {{ {sets} }}
}}

fn get(limits: &realm::Limits, limit: Limit) -> u64 {{
    match limit {{ {gets} }}
}}
"""


def node(_indent: int, _old: str) -> str:
    declared, given, made, said = [], [], [], []
    for item in LIMITS:
        time = item.inner == TIME
        declared.append(f"{item.name}: Option<{'f64' if time else item.inner}>,")
        value = f"options.{item.name}" + (".map(duration).transpose()?" if time else "")
        if item.optional:
            given.append(f"{item.path}: {value},")
        else:
            made.append(f"set(&mut limits.{item.path}, {value});")
        value = f"limits.{item.path}"
        value = f"{value}.map(milliseconds)" if time and item.optional else f"milliseconds({value})" if time else value
        said.append(f'"{camel(item.name)}": {value},')
    return f"""#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LimitOptions {{
    {" ".join(declared)}
}}

/// Builds limits from JSON; missing ones have their defaults.
pub(crate) fn limits(json: &str) -> napi::Result<realm::Limits> {{
    let options: LimitOptions = read(json)?;
    let mut limits = realm::Limits {{ {" ".join(given)} ..realm::Limits::default() }};
    {" ".join(made)}
    Ok(limits)
}}

/// Returns limits as JSON.
pub(crate) fn limits_json(limits: &realm::Limits) -> Value {{
    json!({{
{textwrap.indent(chr(10).join(said), "        ")}
    }})
}}
"""


def ts(indent: int, _old: str) -> str:
    out = []
    for item in LIMITS:
        kind = "readonly string[]" if item.inner == NAMES else "number"
        out += [ts_comment(doc(item, "node"), indent), f"{camel(item.name)}?: {kind}{' | null' if item.optional else ''} | undefined"]
    return "\n".join(out)


def python_type(item: Item) -> str:
    kind = "f64" if item.inner == TIME else item.inner
    return f"Option<{kind}>" if item.optional else kind


def python(indent: int, _old: str) -> str:
    declared = "\n".join(f"{comment(doc(item, 'python'), indent + 4)}\n{item.name}: {python_type(item)}," for item in LIMITS)
    read, made = [], {"": [], "program": []}
    for item in LIMITS:
        value = f"limits.{item.path}"
        if item.inner == TIME:
            value += ".map(|time| time.as_secs_f64())" if item.optional else ".as_secs_f64()"
        read.append(f"{item.name}: {value}{'.clone()' if item.inner == NAMES else ''},")
        own = f"self.{item.name}{'.clone()' if item.inner == NAMES else ''}"
        if item.inner == TIME:
            own = f'{own}.map(|s| seconds("{item.name}", s)).transpose()?' if item.optional else f'seconds("{item.name}", {own})?'
        struct, _, field = item.path.rpartition(".")
        made[struct].append(f"{field}: {own},")
    return f"""/// The limits of a tenant. `None` means no limit.
#[pyclass(frozen, get_all, module = "realm", skip_from_py_object)]
pub(crate) struct Limits {{
{declared}
}}

const FIELDS: [&str; {len(LIMITS)}] = [{" ".join(f'"{item.name}",' for item in LIMITS)}];

impl Limits {{
    fn of(limits: &realm::Limits) -> Self {{
        Self {{ {" ".join(read)} }}
    }}

    pub(crate) fn core(&self) -> PyResult<realm::Limits> {{
        Ok(realm::Limits {{ {" ".join(made[""])} program: ProgramLimits {{ {" ".join(made["program"])} }} }})
    }}
}}
"""


def python_new(indent: int, _old: str) -> str:
    names = textwrap.wrap(", ".join(["*", *(f"{item.name}=None" for item in LIMITS)]), WIDTH - indent - 24)
    arguments, made = [], []
    for item in LIMITS:
        counts = item.inner in COUNTS
        arguments.append(f"{item.name}: Option<&Bound<'_, PyAny>>," if counts else
                         f"{item.name}: Option<{'f64' if item.inner == TIME else item.inner}>,")
        value = f'count("{item.name}", {item.name})?' if counts else item.name
        value += "" if item.optional else f".unwrap_or(default.{item.name})"
        made.append(f"{item.name}," if value == item.name else f"{item.name}: {value},")
    signature = ("\n" + " " * 24).join(names)
    return f"""#[new]
#[pyo3(signature = ({signature}))]
#[allow(clippy::too_many_arguments)]
fn new({" ".join(arguments)}) -> PyResult<Self> {{
    let default = Self::of(&realm::Limits::default());
    let limits = Self {{ {" ".join(made)} }};
    // Invalid limits are refused here, and not when they are first used.
    limits.core()?.check().map_err(|error| crate::errors::exception(&error.into()))?;
    Ok(limits)
}}
"""


def stub_type(item: Item, names: str) -> str:
    return names if item.inner == NAMES else "int" if item.inner in COUNTS else "float"


def stub_new(_indent: int, _old: str) -> str:
    return "\n".join(f"{item.name}: {stub_type(item, 'Seq[str]')} | None = None," for item in LIMITS)


def stub(_indent: int, _old: str) -> str:
    return "\n".join(
        f"@property\ndef {item.name}(self) -> {stub_type(item, 'list[str]')}{' | None' if item.optional else ''}: ..." for item in LIMITS)


def swift(indent: int, _old: str) -> str:
    declared, made, read = [], {"": [], "program": []}, []
    for item in LIMITS:
        kind = {"usize": "u64", TIME: "f64"}.get(item.inner, item.inner)
        default = "None" if item.optional else str(number(item.default) if kind[0] == "f" else int(number(item.default)))
        kind = f"Option<{kind}>" if item.optional else kind
        declared.append(f"{comment(doc(item, 'swift'), indent + 4)}\n#[uniffi(default = {default})]\npub {item.name}: {kind},")
        own, core = f"limits.{item.name}", f"limits.{item.path}"
        if item.inner == TIME:
            own = f"{own}.map(seconds)" if item.optional else f"seconds({own})"
            core += ".map(|time| time.as_secs_f64())" if item.optional else ".as_secs_f64()"
        elif item.inner == "usize":
            own += ".map(|number| number as usize)" if item.optional else " as usize"
            core += ".map(|number| number as u64)" if item.optional else " as u64"
        struct, _, field = item.path.rpartition(".")
        made[struct].append(f"{field}: {own},")
        read.append(f"{item.name}: {core},")
    lines = "\n".join(declared)
    return f"""/// The limits of a tenant. Nil means no limit.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct Limits {{
{lines}
}}

impl From<Limits> for realm::Limits {{
    fn from(limits: Limits) -> Self {{
        Self {{ {" ".join(made[""])} program: realm::ProgramLimits {{ {" ".join(made["program"])} }} }}
    }}
}}

impl From<realm::Limits> for Limits {{
    fn from(limits: realm::Limits) -> Self {{
        Self {{ {" ".join(read)} }}
    }}
}}
"""


# The runners of the conformance scenarios.


def runner_rust(_indent: int, _old: str) -> str:
    values = {"f32": "value.as_f64().expect(\"a number\") as f32", TIME: "Duration::from_millis(count() as u64)", NAMES: "names()"}
    out = []
    for item in LIMITS:
        value = values.get(item.inner) or f"count() as {item.inner}".removesuffix(" as usize")
        out.append(f'"{scenario(item)}" => limits.{item.path} = {f"Some({value})" if item.optional else value},')
    return "\n".join(out)


def runner_rust_json(_indent: int, _old: str) -> str:
    out = []
    for item in LIMITS:
        value = f"limits.{item.path}"
        if item.inner == TIME:
            value += ".map(|time| time.as_millis() as u64)" if item.optional else ".as_millis() as u64"
        out.append(f'"{scenario(item)}": {value},')
    return "\n".join(out)


def runner_c(_indent: int, _old: str) -> str:
    return "\n".join(f'{{"{scenario(item)}", REALM_LIMIT_{scenario(item).upper()}}},' for item in NUMBERS)


def runner_swift(_indent: int, _old: str) -> str:
    out = []
    for item in LIMITS:
        value = {"f32": "Float(value.double!)", TIME: "value.double! / 1000", NAMES: "value.texts", "u32": "UInt32(value.count!)"}
        out.append(f'case "{scenario(item)}": limits.{camel(item.name)} = {value.get(item.inner, "value.count!")}')
    return "\n".join(out)


def runner_swift_json(_indent: int, _old: str) -> str:
    out = []
    for item in LIMITS:
        name = f"limits.{camel(item.name)}"
        value = f"Json({name})"
        if item.inner == TIME:
            value = f"{name}.map {{ .number($0 * 1000) }} ?? .null" if item.optional else f".number({name} * 1000)"
        elif item.inner == NAMES:
            value = f"{name}.map {{ Json($0) }} ?? .null"
        out.append(f'"{scenario(item)}": {value},')
    return "\n".join(out)


def scenarios(_indent: int, _old: str) -> str:
    text = "- **limits**: " + ", ".join(f"`{scenario(item)}`" for item in LIMITS) + "."
    return "\n".join(textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False))


PARTS = {
    ("limits", "bindings-c/src"): c,
    ("limits", "bindings-node/src"): node,
    ("limits", "bindings-node/ts"): ts,
    ("limits", "bindings-python/src"): python,
    ("the constructor of limits", "bindings-python/src"): python_new,
    ("limits", "bindings-python/python"): stub,
    ("the constructor of limits", "bindings-python/python"): stub_new,
    ("limits", "bindings-swift/src"): swift,
    ("limits", "core/realm/tests"): runner_rust,
    ("limits as JSON", "core/realm/tests"): runner_rust_json,
    ("limits", "bindings-c/tests"): runner_c,
    ("limits", "bindings-swift/Tests"): runner_swift,
    ("limits as JSON", "bindings-swift/Tests"): runner_swift_json,
    ("limits", "tests/conformance"): scenarios,
}
