//! A template is an untrusted program: it always ends within its limits, and never in a panic.

use std::collections::BTreeMap;

use proptest::prelude::*;
use realm_template::{Error, Input, Limits, Template};
use serde_json::{Map, json};

const LIMITS: Limits = Limits { steps: 300_000, bytes: 4 << 20, clock: None };

fn render(template: &str, limits: &Limits) -> Result<String, Error> {
    let foreign =
        json!({"messages": [{"role": "user", "content": "a b"}], "u": "ü", "n": 3, "list": [1, "x", null]});
    let foreign = foreign.as_object().expect("an object");
    let trusted = Map::new();
    let template = Template::parse(template)?;
    template.render(&Input { trusted: &trusted, foreign }, limits).map(|rendered| rendered.text)
}

#[test]
fn no_way_to_much_memory_is_open() {
    for template in [
        "{{ 'a' * 10**9 }}",
        "{{ 'ab' * 10**30 }}",
        "{{ [1] * 10**9 }}",
        "{% set ns = namespace(x=['a']) %}{% for i in range(100000) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x='a') %}{% for i in range(100000) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x='a') %}{% for i in range(100000) %}{% set ns.x = ns.x.replace('a', 'aa') %}{% endfor %}",
        "{% set ns = namespace(x='a') %}{% for i in range(100000) %}{% set ns.x = [ns.x, ns.x] | join %}{% endfor %}",
        "{% set ns = namespace(x='a') %}{% for i in range(100000) %}{% set ns.x = '%s%s' % (ns.x, ns.x) %}{% endfor %}",
        "{% set ns = namespace(x='a') %}{% for i in range(100000) %}{% set ns.x = '{0}{0}'.format(ns.x) %}{% endfor %}",
        "{% set ns = namespace(x='a') %}{% for i in range(100000) %}{% set ns.x = ns.x | tojson %}{% endfor %}",
        "{% set ns = namespace(x='<') %}{% for i in range(100000) %}{% set ns.x = ns.x | forceescape %}{% endfor %}",
        "{% set ns = namespace(x='\n' * 1000) %}{% for i in range(100000) %}{% set ns.x = ns.x | indent(1000, blank=true) %}{% endfor %}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%.1000000000f' % 1 }}",
        "{{ '%*d' % (10**9, 1) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{:01000000000,}'.format(1) }}",
        "{{ '{:.1000000000f}'.format(1.5) }}",
        "{{ '{:{}}'.format('a', 10**9) }}",
        "{{ '{:99999999999999999999999}'.format('a') }}",
        "{{ 'a'.center(10**9) }}{{ 'a'.zfill(10**12) }}",
        "{{ 'a' | center(10**9) }}",
        "{{ '\t'.expandtabs(10**9) }}",
        "{{ 'a' | indent(10**9, true) }}",
        "{{ [1] | tojson(indent=10**9) }}",
        "{{ [1] | batch(10**9, 'x') | list }}",
        "{{ [1] | slice(10**9, 'x') | list }}",
        "{{ range(10**9) | list }}",
        "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x={}) %}{% for i in range(100000) %}{% set ns.x = dict(ns.x, **{i ~ '': [ns.x]}) %}{% endfor %}",
        "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}",
        "{% set ns = namespace(x=()) %}{% for i in range(100000) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ ns.x }}",
        "{% set x = [1] * 50 %}{% set y = [x] * 50 %}{% set z = [y] * 50 %}{% set a = [z] * 50 %}{{ [a] * 50 }}",
        "{% set x = [1] * 50 %}{% set y = [x] * 50 %}{% set z = [y] * 50 %}{% set a = [z] * 50 %}{{ ([a] * 50) == ([a] * 49 + [[1]]) }}{{ [a] * 50 | tojson }}",
        "{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{{ s in s }}{% endfor %}",
        "{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{% set t = s.upper() %}{% endfor %}",
        "{% set s = 'ä' * 1000000 %}{% for i in range(100000) %}{% set t = s[500000] %}{% endfor %}",
        "{% set s = ('a ' * 1000000).split() %}",
        "{% set s = ('a ' * 1000000) | list %}",
        "{% set s = ('a ' * 1000000) | wordwrap(1) %}",
        "{% macro m(x) %}{{ x }}{{ m(x ~ x) }}{% endmacro %}{{ m('a') }}",
        "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{{ m() }}",
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
        "{% set ns = namespace() %}{% set ns.x = [ns] %}{{ [ns, ns] | tojson }}",
        "{% set ns = namespace() %}{% for i in range(100000) %}{% set ns.x = namespace(y=ns.x) %}{% endfor %}",
        "{{ 2 ** (10 ** 30) }}",
        "{{ 10 ** 30 * 10 ** 30 }}",
        "{{ [1] * (10 ** 30) }}",
        "{{ (range(100000) | list) | sort | unique | list | groupby('real') }}",
        "{{ 'a' | replace('', 'b' * 1000000) | replace('', 'c' * 1000) }}",
        "{{ raise_exception('a' * 10**9) }}",
        "{% for i in range(100000) %}{% set x = strftime_now('%c' * 10000) %}{% endfor %}",
    ] {
        match render(template, &LIMITS) {
            Err(Error::TooManyBytes | Error::TooManySteps | Error::Render { .. }) => {}
            other => panic!("{template}: {:?}", other.map(|text| text.len())),
        }
    }
}

/// The work of each step is bounded. Without that, each of these templates took minutes or hours within the
/// default limits, because one step did work that grows with a value's or a name's length.
#[test]
fn no_way_to_much_time_is_open() {
    let name = "n".repeat(200_000);
    let sets: String = (0..40_000).map(|i| format!("{{% set v{i} = 1 %}}")).collect();
    let parameters = (0..1000).map(|i| format!("p{i}=0")).collect::<Vec<_>>().join(", ");
    let forever = |body: &str| {
        format!(
            "{{% for i in range(100000) %}}{{% for j in range(100000) %}}{body}{{% endfor %}}{{% endfor %}}"
        )
    };
    let prepared = |before: &str, body: &str| format!("{before}{}", forever(body));
    for template in [
        // Names that a scope sets are created again in each pass and each call.
        forever(&format!("{{% continue %}}{sets}")),
        prepared(
            &format!("{{% macro m() %}}{{% if 0 %}}{{% else %}}{{% endif %}}{sets}{{% endmacro %}}"),
            "{{ m() }}",
        ),
        prepared(&format!("{{% macro m({parameters}) %}}{{% endmacro %}}"), "{{ m() }}"),
        prepared(
            &format!("{{% macro m({parameters}) %}}{{% endmacro %}}"),
            &format!("{{{{ m({parameters}) }}}}"),
        ),
        // Names as long as a template.
        forever(&format!("{{% set x = u.{name} %}}")),
        forever(&format!("{{% set x = {name} %}}")),
        prepared("{% set d = {} %}", &format!("{{% set x = d.{name} %}}")),
        prepared(&format!("{{% macro {name}() %}}{{% endmacro %}}"), &format!("{{% set x = {name}.name %}}")),
        prepared("{% set p = 'a' * 3000000 %}", "{% set x = [] | map(attribute=p) %}"),
        // Printing takes time for each item, however short it is.
        prepared("{% set l = [1] * 50000 %}", "{% set x = l ~ '' %}"),
        prepared("{% set l = range(50000) | list %}", "{% set x = l | tojson %}"),
        prepared("{% set s = '\\x01' * 500000 %}", "{% set x = [s] ~ '' %}"),
        prepared("{% set s = '\\n' * 500000 %}", "{% set x = s | tojson %}"),
        prepared("{% set s = '<' * 500000 %}", "{% set x = s | forceescape %}"),
        prepared("{% set s = 'é' * 500000 %}", "{% set x = s.isalnum() %}"),
        prepared("{% set s = 'é' * 500000 %}", "{% set x = s | reverse %}"),
        prepared("{% set s = '1_' * 500000 %}", "{% set x = s | int %}"),
        prepared("{% set s = 'é ' * 500000 %}", "{% set x = s | wordcount %}"),
        // Nested searches.
        "{{ ('&' * 3000000) | striptags | length }}".to_owned() + &forever(""),
        prepared("{% set t = ('x',) * 50000 %}", "{% set x = 'a'.startswith(t) %}"),
        prepared(
            "{% set d = dict(range(40000) | map('string') | batch(2)) %}",
            "{% set x = '{39998}'.format_map(d) ~ '{0}'.format(1, **d) %}",
        ),
        prepared(
            "{% set d = dict(range(40000) | batch(2)) %}{% set e = dict(range(40000) | batch(2)) %}",
            "{% set x = d.keys() == e.keys() %}",
        ),
        // Keys with the same hash in a dict.
        "{% set d = dict([('nan' | float, 1)] * 100000) %}".to_owned() + &forever(""),
        "{% set d = dict(([1.5] * 60000) | map(attribute='is_integer') | batch(2)) %}".to_owned()
            + &forever(""),
        "{% set d = dict((range(60000) | map('string')) | map(attribute='upper') | batch(2)) %}".to_owned()
            + &forever(""),
        "{% set d = dict((range(60000) | map('batch', 2)) | list | batch(2)) %}".to_owned() + &forever(""),
    ] {
        match render(&template, &Limits { steps: 1_000_000, bytes: 64 << 20, clock: None }) {
            Err(Error::TooManyBytes | Error::TooManySteps | Error::Render { .. }) => {}
            other => panic!("{}: {:?}", &template[..template.len().min(200)], other.map(|text| text.len())),
        }
    }
}

/// Values of a few bytes that refer to long names.
#[test]
fn what_is_held_is_counted() {
    let name = "n".repeat(100_000);
    for template in [
        format!(
            "{{% set ns = namespace(l=[]) %}}{{% for i in range(2000) %}}{{% set ns.l = ns.l + [{name}] %}}{{% endfor %}}"
        ),
        "{% macro m(p) %}{% set ns.l = ns.l + [p] %}{% endmacro %}{% set ns = namespace(l=[]) %}{% for i in range(2000) %}{{ m() }}{% endfor %}"
            .to_owned(),
    ] {
        // Without the names, the lists fit.
        assert_eq!(
            render(&template, &Limits { steps: 5_000_000, bytes: 1 << 20, clock: None }).as_deref(),
            Ok("")
        );
    }
    let macro_name = format!(
        "{{% macro {name}() %}}{{% endmacro %}}{{% set ns = namespace(l=[]) %}}{{% for i in range(2000) %}}{{% set ns.l = ns.l + \
         [{name}.name] %}}{{% endfor %}}"
    );
    assert_eq!(render(&macro_name, &LIMITS), Err(Error::TooManyBytes));
    // Scopes that macros keep.
    let sets: String = (0..5_000).map(|i| format!("{{% set v{i} = 1 %}}")).collect();
    let kept = format!("{{% for i in range(100) %}}{{% macro m() %}}{{% endmacro %}}{sets}{{% endfor %}}");
    let limits = Limits { steps: 50_000_000, bytes: 4 << 20, clock: None };
    assert_eq!(render(&kept, &limits), Err(Error::TooManyBytes));
    // Trees with shared parts: they take no memory until they are written.
    for written in ["{{ ns.x | tojson }}", "{{ ns.x }}", "{{ ns.x | pprint }}", "{{ ns.x == ns.y }}"] {
        let doubled = format!(
            "{{% set ns = namespace(x=[1], y=[1]) %}}{{% for i in range(24) %}}{{% set ns.x = [ns.x, ns.x] %}}\
             {{% set ns.y = [ns.y, ns.y] %}}{{% endfor %}}{written}"
        );
        assert!(
            matches!(render(&doubled, &LIMITS), Err(Error::TooManyBytes | Error::TooManySteps)),
            "{written}"
        );
    }
}

#[test]
fn what_refers_to_itself_is_freed() {
    // Each of these builds a chain or cycle that naive freeing would free by deep recursion, or never.
    for template in [
        "{% set ns = namespace() %}{% for i in range(20000) %}{% set ns.x = namespace(y=ns.x) %}{% endfor %}",
        "{% set ns = namespace() %}{% for i in range(20000) %}{% for j in [1] %}{% set prev = ns.l %}{% set ns.l = loop %}{% endfor %}{% endfor %}",
        "{% set ns = namespace() %}{% macro o(p) %}{% macro i() %}{{ p }}{% endmacro %}{% set ns.f = i %}{% endmacro %}{% for i in range(5000) %}{{ o(ns.f) }}{% endfor %}",
        "{% set ns = namespace() %}{% macro m() %}{% set ns.c = caller %}{% endmacro %}{% for i in range(5000) %}{% set prev = ns.c %}{% call m() %}{{ prev }}{% endcall %}{% endfor %}",
        "{% macro m() %}{{ m }}{% endmacro %}{{ m() }}",
    ] {
        let limits = Limits { steps: 2_000_000, bytes: 64 << 20, clock: None };
        if let Err(error) = render(template, &limits) {
            panic!("{template}: {error}");
        }
    }
}

#[test]
fn deep_sources_are_refused() {
    for depth in [50, 100, 1_000, 100_000] {
        for (open, middle, close) in [
            ("(", "1", ")"),
            ("[", "1", "]"),
            ("{'a': ", "1", "}"),
            ("not ", "1", ""),
            ("-", "1", ""),
            ("1 if ", "1", " else 2"),
            ("x if y else ", "1", ""),
            ("m(", "1", ")"),
            ("a[", "1", "]"),
            ("1 + (", "1", ")"),
            ("a | f(", "1", ")"),
            ("a is in (", "1", ")"),
        ] {
            let source = format!("{{{{ {}{middle}{} }}}}", open.repeat(depth), close.repeat(depth));
            let _ = render(&source, &LIMITS);
        }
        for (open, close) in [
            ("{% if 1 %}", "{% endif %}"),
            ("{% for i in [1] %}", "{% endfor %}"),
            ("{% macro m() %}", "{% endmacro %}"),
            ("{% set x %}", "{% endset %}"),
            ("{% with %}", "{% endwith %}"),
            ("{% filter upper %}", "{% endfilter %}"),
            ("{% call m() %}", "{% endcall %}"),
            ("{% generation %}", "{% endgeneration %}"),
        ] {
            let _ = render(&format!("{}x{}", open.repeat(depth), close.repeat(depth)), &LIMITS);
        }
    }
    // Long templates are allowed.
    let many = |piece: &str, times: usize| piece.repeat(times);
    for source in [
        format!("{{{{ 1{} }}}}", many(" + 1", 5_000)),
        format!("{{{{ 1{} }}}}", many(" and 1", 5_000)),
        format!("{{{{ u{} }}}}", many(" | trim", 5_000)),
        format!("{{{{ ''{} }}}}", many(" ~ 'a'", 5_000)),
        format!("{{% if 0 %}}{}{{% endif %}}", many("{% elif 0 %}x", 5_000)),
        many("{{ u }}", 5_000),
    ] {
        assert!(render(&source, &LIMITS).is_ok(), "{}", &source[..40]);
    }
}

#[test]
fn an_error_names_its_line() {
    let line = |template: &str| match render(template, &LIMITS) {
        Err(Error::Syntax { line, .. } | Error::Render { line, .. }) => line,
        other => panic!("{template}: {other:?}"),
    };
    assert_eq!(line("a\nb {{ 1 + }}"), 2);
    assert_eq!(line("a\r\nb\r\n{{ 1 / 0 }}"), 3);
    assert_eq!(line("{% if 1 %}\n\n{{ u.x.y }}\n{% endif %}"), 3);
    assert_eq!(line("{% macro m() %}\n{{ 1 / 0 }}{% endmacro %}\n\n{{ m() }}"), 2);
    assert_eq!(line("\n{{ u\n | nope }}"), 2);
    assert_eq!(line("{% if 1 %}\n"), 1);
    let error = render("{{ raise_exception('No system role') }}", &LIMITS).expect_err("it raises");
    assert_eq!(error, Error::Raised("No system role".into()));
    assert_eq!(error.to_string(), "the template refuses this conversation: No system role");
}

#[test]
fn one_template_serves_several_threads() {
    let template = Template::parse("{% for m in messages %}{{ m.content }}{% endfor %}").expect("a template");
    let texts: Vec<String> = std::thread::scope(|scope| {
        let run = |i: usize| {
            let template = &template;
            scope.spawn(move || {
                let foreign = json!({"messages": [{"role": "user", "content": i.to_string()}]});
                let input = Input { trusted: &Map::new(), foreign: foreign.as_object().expect("an object") };
                template.render(&input, &LIMITS).expect("a prompt").text
            })
        };
        (0..4)
            .map(run)
            .collect::<Vec<_>>()
            .into_iter()
            .map(|thread| thread.join().expect("a thread"))
            .collect()
    });
    assert_eq!(texts, ["0", "1", "2", "3"]);
}

/// Pieces of templates that sometimes form a valid template.
fn soup() -> impl Strategy<Value = String> {
    let pieces = [
        "{{ ",
        " }}",
        "{% ",
        " %}",
        "{# ",
        " #}",
        "{%- ",
        "-%}",
        "if ",
        "else",
        "elif ",
        "endif",
        "for ",
        "in ",
        "endfor",
        "set ",
        "endset",
        "macro m(",
        "endmacro",
        "call m()",
        "endcall",
        "filter ",
        "endfilter",
        "with ",
        "endwith",
        "break",
        "continue",
        "raw",
        "endraw",
        "generation",
        "endgeneration",
        "recursive",
        "loop",
        "loop(",
        "loop.",
        "ns.x",
        "namespace(",
        "messages",
        "u",
        "n",
        "list",
        "x",
        "y",
        "'a'",
        "\"ü\"",
        "1",
        "0",
        "-1",
        "2.5",
        "1e400",
        "none",
        "true",
        "10**9",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        ".",
        "|",
        "~",
        "+",
        "-",
        "*",
        "/",
        "//",
        "%",
        "**",
        "==",
        "<",
        ">=",
        "=",
        " is ",
        " not ",
        " and ",
        " or ",
        "'%s'",
        "'{}'",
        ".format(",
        ".split(",
        ".items()",
        ".strip()",
        ".replace(",
        "upper",
        "tojson",
        "join(",
        "map(",
        "select(",
        "sort",
        "groupby(",
        "batch(",
        "slice(",
        "indent(",
        "truncate(",
        "wordwrap(",
        "round(",
        "int",
        "float",
        "list",
        "first",
        "last",
        "sum",
        "min",
        "unique",
        "defined",
        "odd",
        "mapping",
        "[::-1]",
        "[1:",
        "range(",
        "dict(",
        "cycler(",
        "joiner(",
        "raise_exception(",
        "strftime_now(",
        "'%c'",
        "*x",
        "**x",
        "\n",
        " ",
        "text",
        "{% for x in list %}",
        "{% endfor %}",
        "{{ x }}",
        "{% if x %}",
        "{% endif %}",
        "{% set x = ",
        "{% macro m(a, b=a) %}",
        "{% endmacro %}",
        "{{ m(x) }}",
    ];
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 1..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn soups_of_tokens_never_panic(source in soup()) {
        let _ = render(&source, &Limits { steps: 20_000, bytes: 1 << 20, clock: None });
    }

    #[test]
    fn any_text_never_panics(source in ".{0,60}", format in "[%{}:a-z0-9.*<>^#+_,! -]{0,20}", n in any::<i64>(), f in any::<f64>()) {
        let _ = render(&source, &LIMITS);
        let foreign = json!({"s": source, "f": format, "n": n, "x": f});
        let foreign = foreign.as_object().expect("an object");
        let trusted = Map::new();
        for expression in [
            "f % s", "f % n", "f % x", "f % (s, n, x)", "f.format(s, n, x)", "('{:' ~ f ~ '}').format(x)",
            "('{:' ~ f ~ '}').format(n)", "('{:' ~ f ~ '}').format(s)", "('%' ~ f) % x", "strftime_now(f)",
            "s.title() ~ s.swapcase() ~ s.casefold() ~ s.capitalize()", "s.split(f)", "s.rsplit(none, 2)",
            "s.splitlines()", "s | wordwrap(5)", "s | truncate(5)", "s | indent", "s | tojson", "s | striptags",
            "s | urlencode", "s | title", "s.expandtabs(3)", "s[n:]", "s[::n]", "s[n]", "s.find(f)", "s.center(n % 50)",
            "s | int", "s | float", "x | round(n % 20)", "x | int", "n // 7", "n % 7", "x // 0.3", "n ** 2", "x | string",
            "n | filesizeformat", "s.isidentifier()", "s.istitle()", "s | wordcount", "(s ~ f) | reverse", "s | replace(f, s)",
        ] {
            let Ok(template) = Template::parse(&format!("{{{{ {expression} }}}}")) else {
                panic!("{expression}");
            };
            let _ = template.render(&Input { trusted: &trusted, foreign }, &LIMITS);
        }
    }
}

#[test]
fn memory_that_is_given_back_counts_once() {
    // A conversation that is built piece by piece holds little memory at a time.
    let template = "{% set ns = namespace(t='') %}{% for i in range(2000) %}{% set ns.t = ns.t ~ 'abcdefgh' %}{% endfor %}{{ ns.t | length }}";
    assert_eq!(render(template, &Limits { bytes: 100_000, ..LIMITS }).as_deref(), Ok("16000"));
    let mut seen = BTreeMap::new();
    for bytes in [1_000, 10_000, 40_000] {
        seen.insert(bytes, render(template, &Limits { bytes, ..LIMITS }).is_ok());
    }
    assert_eq!(seen.into_values().collect::<Vec<_>>(), [false, false, true]);
}
