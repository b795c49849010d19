//! No template overflows a stack: every production of the grammar is nested in every other one ten thousand
//! levels deep, values are nested as deep as allowed, and all of it is parsed, rendered and freed on a thread
//! with a small stack.

use realm_template::{Error, Input, Limits, Template};
use serde_json::{Map, Value, json};

const LIMITS: Limits = Limits { steps: 300_000, bytes: 4 << 20, clock: None };

/// Expressions that contain an expression: the text before it, and the text behind it.
const EXPRESSIONS: [(&str, &str); 46] = [
    ("not ", ""),
    ("-", ""),
    ("+", ""),
    ("(", ")"),
    ("[", "]"),
    ("(1, ", ")"),
    ("{'k': ", "}"),
    ("{", ": 1}"),
    ("[1, ", ", 2]"),
    ("", " + 1"),
    ("1 + ", ""),
    ("1 - (", ")"),
    ("", " ~ 'a'"),
    ("'a' ~ ", ""),
    ("2 * ", ""),
    ("", " // 2"),
    ("", " % 2"),
    ("2 ** ", ""),
    ("", " ** 2"),
    ("", " and 1"),
    ("1 and ", ""),
    ("", " or 1"),
    ("0 or ", ""),
    ("", " if 1 else 2"),
    ("1 if ", " else 2"),
    ("1 if 0 else ", ""),
    ("", " if 1"),
    ("", " == 1"),
    ("1 < ", ""),
    ("1 in ", ""),
    ("", " not in [1]"),
    ("", ".a"),
    ("", "[0]"),
    ("a[", "]"),
    ("a[", ":]"),
    ("a[::", "]"),
    ("", "()"),
    ("f(", ")"),
    ("f(x=", ")"),
    ("f(*", ")"),
    ("f(**", ")"),
    ("", " | trim"),
    ("a | default(", ")"),
    ("", " is defined"),
    ("a is eq ", ""),
    ("a is in (", ")"),
];

/// Statements that contain statements. `E` marks the place of an expression.
const STATEMENTS: [(&str, &str); 17] = [
    ("{% if E %}", "{% endif %}"),
    ("{% if 0 %}{% elif E %}", "{% endif %}"),
    ("{% if 0 %}{% else %}", "{% endif %}"),
    ("{% for i in [E] %}", "{% endfor %}"),
    ("{% for i in [1] if E %}", "{% endfor %}"),
    ("{% for i in [] %}{% else %}", "{% endfor %}"),
    ("{% for i in [1] recursive %}", "{{ loop([]) }}{% endfor %}"),
    ("{% macro m(p=E) %}", "{% endmacro %}{{ m() }}"),
    ("{% call f(E) %}", "{% endcall %}"),
    ("{% call(p=E) f() %}", "{% endcall %}"),
    ("{% set x %}", "{% endset %}"),
    ("{% set x | default(E) %}", "{% endset %}"),
    ("{% filter default(E) %}", "{% endfilter %}"),
    ("{% with x = E %}", "{% endwith %}"),
    ("{% generation %}", "{% endgeneration %}"),
    ("{% autoescape false %}", "{% endautoescape %}"),
    ("{% extends 'a' %}{% include E %}{{ E }}", ""),
];

fn on_thread(stack: usize, run: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(stack).spawn(run).expect("a thread");
    thread.join().expect("no panic");
}

fn render(template: &Template) -> Result<String, Error> {
    let foreign = json!({"a": [1, 2], "messages": []});
    let input = Input { trusted: &Map::new(), foreign: foreign.as_object().expect("an object") };
    template.render(&input, &LIMITS).map(|rendered| rendered.text)
}

/// Nests the productions in each other, `depth` times, around `core`. The source is at most 1 MiB, the
/// parser's limit.
fn nested(productions: &[(&str, &str)], depth: usize, core: &str) -> String {
    let each: usize = productions.iter().map(|(before, behind)| before.len() + behind.len()).sum();
    let times = (depth / productions.len()).min(1_000_000 / each);
    let before: String = productions.iter().map(|(before, _)| *before).collect();
    let behind: String = productions.iter().rev().map(|(_, behind)| *behind).collect();
    [before.repeat(times), core.to_owned(), behind.repeat(times)].concat()
}

fn try_all(sources: impl IntoIterator<Item = String>) -> [usize; 2] {
    let mut counts = [0; 2];
    for source in sources {
        let Ok(template) = Template::parse(&source) else { continue };
        counts[0] += 1;
        counts[1] += usize::from(render(&template).is_ok());
    }
    counts
}

#[test]
fn every_production_in_every_other_one_is_read_or_refused_on_a_small_stack() {
    on_thread(256 << 10, || {
        for depth in [6, 20, 40, 78, 160, 10_000] {
            let mut sources = Vec::new();
            for a in EXPRESSIONS {
                for b in EXPRESSIONS {
                    sources.push(format!("{{{{ {} }}}}", nested(&[a, b], depth, "1")));
                }
            }
            let [read, rendered] = try_all(sources);
            println!("{depth} deep: {read} were read, {rendered} rendered");
            assert!(if depth < 10 { read > 1500 } else { read > 0 || depth > 1000 });
        }
    });
}

#[test]
fn every_statement_in_every_other_one_is_read_or_refused_on_a_small_stack() {
    on_thread(256 << 10, || {
        for depth in [4, 16, 40, 78, 10_000] {
            let mut sources = Vec::new();
            for a in STATEMENTS {
                for b in STATEMENTS {
                    sources.push(nested(&[a, b], depth, "x").replace('E', "a"));
                }
                // The deepest possible expression in every statement, which is nested in itself.
                for b in EXPRESSIONS {
                    let inner = nested(&[b], depth.min(60), "1");
                    sources.push(nested(&[a], depth.min(12), "x").replace('E', &inner));
                }
            }
            let [read, rendered] = try_all(sources);
            println!("{depth} deep: {read} were read, {rendered} rendered");
            assert!(depth > 4 || read > 500);
        }
    });
}

#[test]
fn what_is_no_deeper_than_real_templates_renders_on_a_smaller_stack() {
    on_thread(112 << 10, || {
        for production in EXPRESSIONS {
            let source = format!("{{{{ {} }}}}", nested(&[production], 12, "a"));
            let _ = Template::parse(&source).map(|template| render(&template));
        }
        // Twenty nested calls.
        let source = "{% macro m(n) %}{% if n %}({{ m(n - 1) }}){% endif %}{% endmacro %}{{ m(20) }}";
        let template = Template::parse(source).expect("a template");
        assert_eq!(
            render(&template).as_deref(),
            Ok([["("; 20].concat(), [")"; 20].concat()].concat().as_str())
        );
    });
}

#[test]
fn a_hundred_calls_in_each_other_run_on_a_small_stack() {
    on_thread(256 << 10, || {
        let source = "{% macro m(n) %}{% for i in [1] %}{% if n %}{% set x = [m(n - 1)] %}({{ x[0] }}){% endif %}{% endfor %}\
                      {% endmacro %}{{ m(90) }}";
        let template = Template::parse(source).expect("a template");
        assert_eq!(render(&template).expect("a prompt").len(), 180);
        let endless = Template::parse("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}").expect("a template");
        assert!(matches!(render(&endless), Err(Error::Render { .. })));
    });
}

#[test]
fn values_as_deep_as_they_may_be_are_printed_compared_hashed_and_freed_on_a_small_stack() {
    on_thread(256 << 10, || {
        let mut used = 0;
        for (empty, wrap) in [
            ("[]", "[ns.x]"),
            ("()", "(ns.x,)"),
            ("{}", "{'k': ns.x}"),
            ("()", "(1, ns.x)"),
            ("[]", "[ns.x, ns.x]"),
        ] {
            let build = format!(
                "{{% set ns = namespace(x={empty}, y={empty}) %}}{{% for i in range(148) %}}{{% set ns.x = {wrap} %}}\
                 {{% if i < 147 %}}{{% set ns.y = {} %}}{{% endif %}}{{% endfor %}}",
                wrap.replace("ns.x", "ns.y")
            );
            for operation in [
                "",
                "{{ ns.x }}",
                "{{ ns.x | string | length }}",
                "{{ ns.x == ns.y }}",
                "{{ [ns.x, ns.y] | sort }}",
                "{{ ns.x < ns.y }}",
                "{{ ns.x in [ns.y] }}",
                "{{ {ns.x: 1}[ns.y] }}",
                "{{ [ns.x, ns.y] | unique | list | length }}",
                "{{ [ns.x, ns.y] | groupby(0) }}",
                "{{ ns.x | tojson }}",
                "{{ ns.x | tojson(indent=2) }}",
                "{{ ns.x | pprint }}",
                "{{ '%s' % [ns.x] }}",
                "{{ '{}'.format(ns.x) }}",
                "{{ [ns.x] | join }}",
                "{{ ns.x ~ ns.y }}",
                "{{ [ns.x] | map('string') | list }}",
                "{{ ns.x | list }}",
                "{{ [ns.x] * 3 }}",
                "{{ [ns.x] + [ns.y] }}",
                "{{ ns.x.copy() }}",
                "{{ [ns.x].count(ns.y) }}",
                "{{ raise_exception(ns.x) }}",
                "{{ [[ns.x]] }}",
            ] {
                let template = Template::parse(&format!("{build}{operation}")).expect("a template");
                used += usize::from(render(&template).is_ok());
            }
        }
        assert!(used > 60, "{used} operations were done");
    });
}

#[test]
fn input_as_deep_as_it_may_be_is_taken_on_a_small_stack() {
    let deep = |depth: usize| {
        (0..depth).fold(json!("x"), |inner, i| if i % 2 == 0 { json!([inner]) } else { json!({"k": inner}) })
    };
    let (fits, deeper): (Value, Value) = (deep(140), deep(400));
    on_thread(256 << 10, move || {
        let template = Template::parse("{{ messages | tojson | length }}").expect("a template");
        for (messages, taken) in [(&fits, true), (&deeper, false)] {
            let foreign = Map::from_iter([("messages".to_owned(), messages.clone())]);
            let rendered = template.render(&Input { trusted: &Map::new(), foreign: &foreign }, &LIMITS);
            assert_eq!(rendered.is_ok(), taken, "{rendered:?}");
        }
        drop((fits, deeper));
    });
}
