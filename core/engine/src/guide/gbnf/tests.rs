//! GBNF is followed character by character, whatever its lexemes are.

use std::sync::Arc;

use realm_gguf::Gguf;
use realm_tokenizer::Tokenizer;

use crate::guide::tests::plenty;
use crate::guide::{Grammar, Guides};

const JSON: &str = r#"
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws

string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws

number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws

# Optional space: by convention, applied in this grammar after literal chars when allowed
ws ::= | " " | "\n" [ \t]{0,20}
"#;

const ARITHMETIC: &str = r#"root  ::= (expr "=" ws term "\n")+
expr  ::= term ([-+*/] term)*
term  ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num   ::= [0-9]+ ws
ws    ::= [ \t\n]*
"#;

/// The next character does not suffice here, so every character is a lexeme.
const AMBIGUOUS: &str = r#"root ::= list "end"
list ::= word* | "(" list ")"
word ::= [a-z]+ "."? | "end" "!"
"#;

const LIST: &str = "root ::= item+\nitem ::= \"- \" [^\\r\\n\\x0b\\x0c\\x85\\u2028\\u2029]+ \"\\n\"\n";

fn guides() -> Guides {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/conformance/tiny.gguf");
    let tokenizer = Tokenizer::from_metadata(Gguf::open(path).unwrap().metadata()).unwrap();
    Guides::new(Arc::new(tokenizer), Arc::default())
}

/// Returns whether the grammar allows the whole text; stops at the first token that is not allowed.
fn allows(guides: &Guides, grammar: &str, text: &str) -> bool {
    let mut guide = guides.guide(0, &plenty(), &Grammar::Lark(grammar.into())).unwrap();
    for token in guides.tokenizer.encode_after(text) {
        if guide.is_finished() || !guide.mask().unwrap().allows(token) {
            return false;
        }
        guide.accept(token).unwrap();
    }
    guide.is_finished() || guide.mask().unwrap().allows(guides.tokenizer.end_tokens()[0])
}

#[test]
fn texts_are_those_of_the_grammar() {
    let guides = guides();
    for (grammar, good, bad) in [
        (
            JSON,
            &["{}", "{\"a\": [1, -2.5e3, \"x\\n\"], \"b\":{\"c\":null} }", "{\n  \"a\": true}"][..],
            &["[]", "{", "{\"a\" 1}", "{\"a\": 01}", "{\"a\": \"x\ny\"}", "{a: 1}"][..],
        ),
        (
            ARITHMETIC,
            &["1+2=3\n", "a*(b+12)=x1\n1=1\n", "(a)=b\n\n"],
            &["", "1+=2\n", "1=2", "(1=2\n", "A=1\n"],
        ),
        (
            AMBIGUOUS,
            &["end", "end!end", "abc.deend", "(abc)end", "endend", "((x))end"],
            &["", "en", "(abcend", "end!"],
        ),
        (LIST, &["- a\n", "- a b\n- c\n"], &["", "a\n", "- \n", "- a"]),
        ("root ::= a{2,3} \"x\"?\na ::= \"ab\" | \"b\"", &["abb", "bbbx", "ababab"], &["b", "abx", "bbbb"]),
        ("root ::= \"a\" root \"b\" |", &["", "ab", "aabb"], &["a", "ba", "aab"]),
        ("root ::= .{3}", &["abc", "a b"], &["ab", "abcd"]),
        ("root ::= \"yes\" | \"no\"", &["yes", "no"], &["maybe", "y"]),
    ] {
        for text in good {
            assert!(allows(&guides, grammar, text), "{grammar}: {text:?}");
        }
        for text in bad {
            assert!(!allows(&guides, grammar, text), "{grammar}: {text:?}");
        }
    }
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let guides = guides();
    for (grammar, words) in [
        ("root ::= \"a\n", &["line 1", "`\"` ends"][..]),
        ("root ::= a\nb ::= \"x\"\n", &["line 1", "no rule `a`"]),
        ("start ::= \"a\"\n", &["root"]),
        ("root ::= \"a\"\nroot ::= \"b\"\n", &["line 2", "two rules"]),
        ("root ::= (\"a\"\n", &["`)` ends"]),
        ("root ::= [a-", &["line 1", "`]` ends"]),
        ("root ::= \"a\"\n\nx :: \"b\"\nroot2 ::= \"c\"", &["line 3", "::="]),
        ("root ::= [z-a]\n", &["line 1", "backwards"]),
        ("root ::= \"\\q\"\n", &["line 1", "backslash"]),
        ("root ::= \"a\"{3,2}\n", &["line 1", "count"]),
        ("root ::= \"a\"{99999999}\n", &["line 1", "count"]),
        ("root ::= <think>\n", &["line 1", "Lark"]),
        ("root ::= root \"a\"\n", &["no text"]),
        ("root ::= \"a\" }\n", &["line 1", "ends with its line"]),
    ] {
        let error = guides
            .guide(0, &plenty(), &Grammar::Lark(grammar.into()))
            .err()
            .unwrap_or_else(|| panic!("{grammar}"));
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{grammar}: {text}");
    }
    // Deeply nested groups, and rules that multiply, are refused or followed. Nothing overflows.
    let deep = format!("root ::= {}\"a\"{}", "(".repeat(5000), ")".repeat(5000));
    assert!(guides.guide(0, &plenty(), &Grammar::Lark(deep)).is_err());
    let twice: String = (0..60).map(|i| format!("r{i} ::= r{j} r{j} | \"x\"\n", j = i + 1)).collect();
    let twice = format!("root ::= r0\n{twice}r60 ::= \"y\"\n");
    let _ = guides.guide(0, &plenty(), &Grammar::Lark(twice)).map(|mut guide| guide.mask().map(|_| ()));
}
