"""What ci/template-differential runs: jinja2's answers, and how core/template's differ."""

import copy
import itertools
import json
import pathlib
import subprocess
import sys
from datetime import datetime

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

FOLDER = pathlib.Path("core/template/tests/differential")
CLOCK = "2026-03-09T07:05:02.000123+00:00[UTC]"
NOW = datetime(2026, 3, 9, 7, 5, 2, 123)


class Generation(jinja2.ext.Extension):
    """The tag `generation`, which prints what it holds."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_print"), [], [], body).set_lineno(line)

    def _print(self, caller):
        return caller()


def environment():
    """The environment that transformers renders chat templates in."""
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda format: NOW.strftime(format)
    return env


ENV = environment()
SKIPPED = object()


def answer(template, variables):
    """The text that jinja2 renders, or None if it fails."""
    try:
        compiled = template if isinstance(template, jinja2.Template) else ENV.from_string(template)
        text = compiled.render(**variables)
        text.encode()
        # An object without a spelling of its own shows its address.
        return SKIPPED if " at 0x" in text else text
    except Exception:
        return None


def compiled(template):
    try:
        return ENV.from_string(template)
    except Exception:
        return template


def products():
    """Expressions that are made by putting values into places."""
    texts = ["''", "'a'", "' Ab c\\n'", "'ÀßΣ x'", "'A-1,b'", "'12'", "text", "uni", "multi"]
    methods = (
        "capitalize casefold isalnum isalpha isascii isdecimal isdigit isidentifier islower isnumeric isprintable "
        "isspace istitle isupper lower lstrip rsplit rstrip split splitlines strip swapcase title upper"
    ).split()
    yield from (f"{t}.{m}()" for t, m in itertools.product(texts, methods))
    filters = "capitalize first last length list lower reverse string striptags title trim upper urlencode wordcount e int float tojson indent unique|list sort sum join max min".split()
    yield from (f"{t} | {f}" for t, f in itertools.product(texts, filters))
    values = "none true 0 5 -3 2.5 1e20 [] [2,1] (1,) {} {'b':1} missing nothing d words range(3) 'x'".split()
    yield from (f"{v} | {f}" for v, f in itertools.product(values, filters + "abs items dictsort default pprint round".split()))
    tests = "boolean callable defined even float integer iterable lower mapping none number odd sequence string undefined upper true false".split()
    yield from (f"{v} is {t}" for v, t in itertools.product(values, tests))
    operators = "+ - * / // % ** ~ == != < <= > >= in and or".split() + ["not in"]
    operands = "none true 0 5 -3 2.5 'x' '' [1] (1,) {'x':1} missing".split()
    yield from (f"{a} {o} {b}" for a, o, b in itertools.product(operands, operators, operands) if not (o == "**" and a == "-3" and b == "2.5"))
    specs = ["", "d", "5", "<5", ">5", "^5", "05", "+", " ", ",", "_", "x", "#x", "b", "o", "e", ".2e", "f", ".1f", ".0f", "g", ".3g", "%", ".1%", "s", ".2", "*^9", "=+7", "010.3f", "#.0f", "c", "n", "E", "G", "X"]
    numbers = ["0", "7", "-12345", "2.5", "-0.000012345", "1234567.891", "1e22", "'abc'", "true"]
    yield from (f"'[{{:{s}}}]'.format({n})" for s, n in itertools.product(specs, numbers))
    conversions = "%d %5d %-5d| %05d %+d %x %#x %o %e %.2e %f %.1f %.0f %g %.3g %#g %s %r %5s %.2s %c %a %i".split()
    yield from (f"'[{c}]' % ({n},)" for c, n in itertools.product(conversions, numbers))
    bounds = ["", "0", "1", "-1", "-2", "9", "-9"]
    for start, stop, step in itertools.product(bounds, bounds, ["", "2", "-1", "-2"]):
        yield f"'abcde'[{start}:{stop}:{step}], [1,2,3][{start}:{stop}:{step}]"
    floats = "0.1 1.0 100.0 1e15 1e16 123456789.123 1e-4 1e-5 1.5e300 5e-324 0.30000000000000004 2.5e-7 1e21".split()
    yield from floats
    yield from (f"{v} | round({p})" for v, p in itertools.product(["2.675", "1.005", "0.5", "1234.5678", "-7.5", "25", "-35"], [0, 1, 2, 3, -1, -2]))
    yield from (f"{v} | round({p}, '{m}')" for v, p, m in itertools.product(["2.675", "-7.5", "25"], [0, 1, 2], ["ceil", "floor"]))
    yield from (f"strftime_now('%{c}')" for c in "aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYzZ%fQ" if c != "s")
    yield from (f"strftime_now('{f}')" for f in ("%d %b %Y", "%Y-%m-%d", "%-d %B %Y", "%H:%M:%S", "x%", "%A, %d %B %Y, %I:%M%p", "%-m/%-d/%y", "", "%%d", "%e|%k|%l|%_d|%^a|%#b"))
    strips = ["'x'", "'ab'", "' '", "none"]
    yield from (f"' abcba '.{m}({s}) ~ '|'" for m, s in itertools.product(["strip", "lstrip", "rstrip"], strips))
    wrapped = ["'The quick brown fox, jumping-over the lazy-dog'", "'aaaaaaaaaaaaaaaaaaaa bb'", "'a-b-c-d-e-f well-to-do e-mail x--y'", "multi", "uni", "'   '"]
    yield from (f"{t} | wordwrap({w}{o})" for t, w, o in itertools.product(wrapped, [1, 4, 8, 13, 40], ["", ", false", ", true, '/'", ", true, none, false"]))
    yield from (f"{t} | truncate({n}{o})" for t, n, o in itertools.product(wrapped, [3, 8, 20], ["", ", true", ", false, '…', 0"]))
    indents = ["''", "'a'", "'a\\nb'", "'a\\n\\nb\\n'", "'\\n'", "'a\\r\\n b'"]
    yield from (f"{t} | indent({o}) ~ '|'" for t, o in itertools.product(indents, ["", "2", "2, true", "2, true, true", "2, false, true", "'> '"]))
    spaces = ["", "-", "+"]
    for a, b, before, after in itertools.product(spaces, spaces, ["x", " ", "\n ", "x\n  "], ["y", " ", "\n", "\n\n y"]):
        yield f"{before}{{%{a} if true {b}%}}{after}{{%{b} endif {a}%}}{after}|"
        yield f"{before}{{#{a} c {b}#}}{after}|"
        if a != "+" and b != "+":
            yield f"{before}{{{{{a} 1 {b}}}}}{after}|"


def expressions():
    """The templates of single expressions."""
    lines = (FOLDER / "expressions.txt").read_text().split("\n")
    for line in itertools.chain(lines, products()):
        if not line or line.startswith("# ") or line.startswith("## "):
            continue
        line = line.replace("⏎", "\n").replace("␍", "\r").replace("⇥", "\t")
        tag = any(mark in line for mark in ("{{", "{%", "{#")) and not line.startswith("'")
        yield line if tag or "\n" in line or line.endswith("|") and "'" not in line else "{{ " + line + " }}"


def answer_expressions():
    variables = json.loads((FOLDER / "variables.json").read_text())
    merged = variables["foreign"] | variables["trusted"]
    seen = set()
    for template in expressions():
        if template not in seen:
            seen.add(template)
            # A filter of jinja2's may change a list, so each template gets its own.
            text = answer(template, copy.deepcopy(merged))
            if text is not SKIPPED:
                yield {"template": template, "text": text}


def styles():
    """The names and sources of chat templates."""
    for path in sorted((FOLDER / "styles").glob("*.jinja")):
        yield path.stem, path.read_text()


def conversations():
    """The variables that each chat template is rendered with: every shape of messages, with options."""
    data = json.loads((FOLDER / "conversations.json").read_text())
    for shape, messages in data["shapes"].items():
        for options in data["options"]:
            foreign = {"messages": messages, "documents": None, "tools": data["tools"] if options.get("tools") else None}
            foreign |= options.get("variables", {})
            trusted = data["trusted"] | {"add_generation_prompt": options["add_generation_prompt"]}
            yield f"{shape}, {options['name']}", foreign, trusted


def answer_style(source):
    template = compiled(source)
    for name, foreign, trusted in conversations():
        yield {"name": name, "text": answer(template, foreign | trusted)}


def lines(answers):
    return "".join(json.dumps(a, ensure_ascii=False) + "\n" for a in answers)


def files():
    """The committed files and what should be in them."""
    yield FOLDER / "expressions.jsonl", lines(answer_expressions())
    for name, source in styles():
        yield FOLDER / "styles" / f"{name}.jsonl", lines(answer_style(source))


def ours(cases):
    """What core/template makes of cases."""
    run = subprocess.run(["target/debug/examples/render"], input=lines(cases), capture_output=True, text=True, check=True)
    return [json.loads(line) for line in run.stdout.split("\n") if line]


def show():
    """Prints every difference between core/template's answers and the committed ones."""
    variables = json.loads((FOLDER / "variables.json").read_text())
    expected = [json.loads(line) for line in (FOLDER / "expressions.jsonl").open()]
    names = [json.dumps(e["template"], ensure_ascii=False) for e in expected]
    cases = [{"template": e["template"], "clock": CLOCK} | variables for e in expected]
    for style, source in styles():
        answers = [json.loads(line) for line in (FOLDER / "styles" / f"{style}.jsonl").open()]
        for a, (name, foreign, trusted) in zip(answers, conversations(), strict=True):
            names.append(f"{style}: {name}")
            expected.append(a)
            cases.append({"template": source, "foreign": foreign, "trusted": trusted, "clock": CLOCK})
    different = 0
    for name, right, got in zip(names, expected, ours(cases), strict=True):
        if got.get("text") != right["text"]:
            different += 1
            print(f"{name}\n  right {right['text']!r}\n  got   {got.get('text')!r} {got.get('error', '')}")
    print(f"{different} of {len(cases)} differ")
    return different


def main():
    if "--show" in sys.argv:
        sys.exit(1 if show() else 0)
    stale = [(path, text) for path, text in files() if not path.exists() or path.read_text() != text]
    if "--update" in sys.argv:
        for path, text in stale:
            path.write_text(text)
        print(f"{len(stale)} files written")
    elif stale:
        sys.exit(f"not what jinja2 answers: {', '.join(str(path) for path, _ in stale)}; run ci/template-differential --update")


if __name__ == "__main__":
    main()
