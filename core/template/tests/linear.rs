//! Work grows linearly with its input: twice the source takes twice the memory to parse, twice the value
//! twice the steps. The tests count steps and bytes, and read no clock.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use realm_template::{Error, Input, Limits, Template};
use serde_json::{Map, json};

/// Counts the bytes that all threads allocate, because parsing runs on a thread of its own.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on unchanged to the system's allocator; the counter does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the promises of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the promises of `dealloc`, and `ptr` came from the system's allocator.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Held by tests that count, so that they do not run at the same time.
static ALONE: Mutex<()> = Mutex::new(());

/// Asserts that twice the input takes at most 2.5 times as much: a table may double in size at that point.
fn is_linear(what: &str, once: u64, twice: u64) {
    assert!(twice <= once * 5 / 2 + 2_000, "{what}: {once} for the one, {twice} for twice as much");
}

#[test]
fn twice_the_source_takes_twice_the_memory() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let allocated = |source: &str| {
        let before = ALLOCATED.load(Ordering::Relaxed);
        let parsed = Template::parse(source);
        drop(parsed);
        (ALLOCATED.load(Ordering::Relaxed) - before) as u64
    };
    for (before, piece, behind) in [
        ("", "text ", ""),
        ("", " ", "{{ 1 }}"),
        ("{{", " ", "}}"),
        ("{#", " -", "#}"),
        ("", "{# c #}\n", ""),
        ("{% raw %}", "{% {{ ", "{% endraw %}"),
        ("{% raw %}", "{%   ", ""),
        ("", "{% raw %}x{% endraw %}", ""),
        ("", "{{ a }}", ""),
        ("", "{{- 'a' -}}  \n ", ""),
        ("", "{% set a = 1 %}", ""),
        ("", "{% if a %}x{% endif %}", ""),
        ("{% if 0 %}", "{% elif a %}x", "{% endif %}"),
        ("", "{% for i in a %}{{ i }}{% endfor %}", ""),
        ("", "{% macro m(a, b=1) %}{{ caller() }}{% endmacro %}", ""),
        ("", "{% call m() %}x{% endcall %}", ""),
        ("", "{% filter upper %}x{% endfilter %}", ""),
        ("", "{% with a = 1 %}x{% endwith %}", ""),
        ("", "{% extends 'a' %}", ""),
        ("{% include", " 'a'", "%}"),
        ("{{ a", " + 1", "}}"),
        ("{{ a", " ~ 'x'", "}}"),
        ("{{ a", " and 1", "}}"),
        ("{{ a", " == 1", "}}"),
        ("{{ a", " ** 1", "}}"),
        ("{{ a", ".b", "}}"),
        ("{{ a", "[0]", "}}"),
        ("{{ a", "()", "}}"),
        ("{{ a", " | trim", "}}"),
        ("{{ [", "1, ", "] }}"),
        ("{{ {", "'k': 1, ", "} }}"),
        ("{{ (", "a, ", ") }}"),
        ("{{ f(", "1, ", ") }}"),
        ("{{ ", "'text' ", " }}"),
        ("{{ '", "\\n", "' }}"),
        ("{{ ", "9", " }}"),
        ("{{ ", "name", " }}"),
        ("{% print ", "a, ", "1 %}"),
        ("{% set ", "a, ", "b = c %}"),
        ("{{ ", "not ", "1 }}"),
        ("{{ ", "(", "1 }}"),
        ("", "{{ ", ""),
        ("", "{% if 1 %}", ""),
        ("", "\r\n", ""),
        ("", "{", ""),
        ("{{ ", "'", " }}"),
    ] {
        let source = |times: usize| format!("{before}{}{behind}", piece.repeat(times));
        let once = allocated(&source(4_000));
        is_linear(&format!("{before}{piece}…{behind}"), once, allocated(&source(8_000)));
    }
    // Names that are all different.
    let names =
        |count: usize| (0..count).map(|i| format!("{{% set v{i} = w{i}.x{i} %}}")).collect::<String>();
    is_linear("names", allocated(&names(3_000)), allocated(&names(6_000)));
}

/// Returns the fewest steps within which a template renders.
fn steps(template: &str, size: usize) -> u64 {
    let template = Template::parse(template).unwrap_or_else(|error| panic!("{template}: {error}"));
    let list: Vec<String> = (0..size).map(|i| format!("i{}", i * 7_919 % size)).collect();
    let foreign = json!({"t": "aé <&\n".repeat(size), "l": list, "n": size});
    let input = Input { trusted: &Map::new(), foreign: foreign.as_object().expect("an object") };
    let fits = |steps: u64| match template.render(&input, &Limits { steps, bytes: 256 << 20, clock: None }) {
        Ok(_) => true,
        Err(Error::TooManySteps) => false,
        Err(other) => panic!("{}: {other}", template.source()),
    };
    let (mut low, mut high) = (0, 4);
    while !fits(high) {
        (low, high) = (high, high * 2);
    }
    while high - low > high / 50 + 1 {
        let middle = low + (high - low) / 2;
        if fits(middle) { high = middle } else { low = middle }
    }
    high
}

#[test]
fn twice_the_value_takes_twice_the_steps() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for expression in [
        "t | upper",
        "t | lower",
        "t | title",
        "t | capitalize",
        "t | trim",
        "t | replace('a', 'b')",
        "t | indent",
        "t | wordcount",
        "t | wordwrap(20)",
        "t | truncate(100)",
        "t | striptags",
        "t | escape",
        "t | urlencode",
        "t | reverse",
        "t | tojson",
        "t | pprint",
        "t | list | length",
        "t | int",
        "t.split()",
        "t.split('a')",
        "t.rsplit('a')",
        "t.splitlines()",
        "t.find('b')",
        "t.count('a')",
        "t.partition('b')",
        "t.expandtabs()",
        "t.isalpha()",
        "t.startswith(('x',) * n)",
        "t[::2]",
        "t[::-1]",
        "t ~ t",
        "t + t",
        "t * 3",
        "t == t ~ ''",
        "'b' in t",
        "'%s' % t",
        "'{}{}'.format(t, t)",
        "'%r' % t",
        "l",
        "l | join(', ')",
        "l | length",
        "l | first",
        "l | last",
        "l | list",
        "l | map('upper') | list",
        "l | select('eq', 'i1') | list",
        "l | selectattr('x', 'undefined') | list",
        "l | unique | list",
        "l | batch(3) | list",
        "l | slice(3) | list",
        "l | reverse | list",
        "l | max",
        "l | tojson",
        "l | tojson(indent=2)",
        "l | pprint",
        "l + l",
        "l * 2",
        "l[1:]",
        "l == l * 1",
        "'x' in l",
        "l.index('i1')",
        "l.count('i1')",
        "dict(l | map('list'))",
        "dict(l | batch(2))",
        "dict(l | batch(2)).items() | list",
        "range(n) | sum",
        "range(n) | list",
        "'x' * n",
        "'x'.center(n)",
        "'%*d' % (n, 1)",
        "'{:>{}}'.format('x', n)",
        "[0] * n",
    ] {
        let template = match expression {
            // Pairs of keys and values, and at most two characters of a text.
            "dict(l | map('list'))" => {
                "{{ dict(l | map('truncate', 2, true, '', 0) | map('list')) }}".to_owned()
            }
            _ => format!("{{{{ {expression} }}}}"),
        };
        is_linear(expression, steps(&template, 1_000), steps(&template, 2_000));
    }
    for statement in [
        "{% for x in l %}{{ x }}{{ loop.index }}{{ loop.last }}{% endfor %}",
        "{% for x in l if x != 'i1' %}{{ loop.length }}{% endfor %}",
        "{% for x in l %}{% set y = x %}{{ y }}{% endfor %}",
        "{% macro m(a, b=1, c=2) %}{{ a }}{% endmacro %}{% for x in l %}{{ m(x, c=1) }}{% endfor %}",
        "{% for x in l %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}",
        "{% for x in l %}{% filter upper %}{{ x }}{% endfilter %}{% endfor %}",
        "{% for x in l %}{% with y = x %}{{ y }}{% endwith %}{% endfor %}",
        "{% set ns = namespace(i=0) %}{% for x in l %}{% set ns.i = ns.i + 1 %}{% endfor %}{{ ns.i }}",
        "{% for x in l recursive %}{% if loop.depth0 == 0 %}{{ loop([x]) }}{% endif %}{% endfor %}",
    ] {
        is_linear(statement, steps(statement, 1_000), steps(statement, 2_000));
    }
}
