//! Huge lists, endless output, and texts that take the host long.

use realm_sandbox::ErrorKind;

use crate::ended;
use crate::guest::program;
use crate::host::{Host, anybody, peak, with};

#[test]
fn lists_that_are_not_in_the_memory_end_the_program() {
    let host = Host::tiny();
    for (at, len) in [("0", "-1"), ("-1", "2"), ("65536", "1073741823"), ("131072", "1")] {
        for call in [
            format!(
                "(call $model.decode (local.get $model) (i32.const {at}) (i32.const {len}) (global.get $R))"
            ),
            format!(
                "(call $model.encode (local.get $model) (i32.const {at}) (i32.const {len}) (global.get $R))"
            ),
            format!(
                "(call $emit (i32.const {at}) (i32.const {len}) (i32.const 0) (i32.const 0) (global.get $R))"
            ),
            format!("(call $forward-each (i32.const {at}) (i32.const {len}) (global.get $R))"),
            format!(
                "(call $tensor.from-values (local.get $model) (i32.const 1) (i32.const {len}) (i32.const {at}) (i32.const {len}) (global.get $R))"
            ),
        ] {
            let wasm =
                program(&format!("(local.set $model (call $model.current)) {call} (global.get $OK)"), "");
            ended(host.run(&wasm, &anybody()), ErrorKind::Trap, "");
        }
    }
    // A result with a false length.
    let lies = program(
        "(i32.store8 (i32.const 3072) (i32.const 1)) (i32.store (i32.const 3080) (i32.const 5)) (i32.store (i32.const 3084) (i32.const -1)) (i32.const 3072)",
        "",
    );
    ended(host.run(&lies, &anybody()), ErrorKind::Trap, "");
    let nowhere = program("(i32.const -4)", "");
    ended(host.run(&nowhere, &anybody()), ErrorKind::Trap, "");
    let discriminant = program("(i32.store8 (i32.const 3072) (i32.const 9)) (i32.const 3072)", "");
    ended(host.run(&discriminant, &anybody()), ErrorKind::Trap, "");
}

#[test]
fn text_without_end_reaches_the_output_limit() {
    let host = Host::tiny();
    let emits = program(
        "(loop $l (call $emit (i32.const 0) (i32.const 65536) (i32.const 0) (i32.const 0) (global.get $R)) (br_if $l (i32.eqz (call $failed))))
         (global.get $R)",
        "",
    );
    ended(host.run(&emits, &anybody()), ErrorKind::LimitExceeded, "program.output");
    // As tokens.
    let tokens = program(
        "(loop $l (call $emit (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 16384) (global.get $R)) (br_if $l (i32.eqz (call $failed))))
         (global.get $R)",
        "",
    );
    ended(host.run(&tokens, &anybody()), ErrorKind::LimitExceeded, "program.output");
    // To another program of the tenant: that program's output counts, too.
    let mut who = anybody();
    let child = host.compile(&emits);
    who.programs.set("child", child);
    let asks = program(
        "(call $run-program (i32.const 8192) (i32.const 5) (i32.const 8200) (i32.const 2) (global.get $R)) (global.get $R)",
        r#"(data (i32.const 8192) "child") (data (i32.const 8200) "{}")"#,
    );
    ended(host.run(&asks, &who), ErrorKind::LimitExceeded, "program.output");
    // To the log.
    who = who.granted(realm_sandbox::Grants::none().log_to(|_, _, _| {}));
    let logs = program(
        "(loop $l (call $log (i32.const 0) (i32.const 0) (i32.const 65536) (global.get $R)) (br_if $l (i32.eqz (call $failed))))
         (global.get $R)",
        "",
    );
    ended(host.run(&logs, &who), ErrorKind::LimitExceeded, "program.output");
}

/// The host memory of a call is bounded by the program's memory limit.
#[test]
fn arguments_do_not_make_the_host_hold_much_more_than_they_are() {
    let host = Host::smollm2();
    let fill = |word: &str| {
        format!(
            "(local.set $model (call $model.current))
             (if (i32.eq (i32.const -1) (memory.grow (i32.const 700))) (then unreachable))
             (local.set $i (i32.const 131072))
             (loop $f (i32.store (local.get $i) (i32.const {word}))
               (br_if $f (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 4))) (i32.const 45000000))))"
        )
    };
    // The token with the longest text, over and over.
    let longest = (0..host.model.tokenizer.vocabulary_len() as u32)
        .max_by_key(|&token| host.model.tokenizer.decode(&[token], false).map_or(0, |text| text.len()))
        .unwrap();
    let brackets = i32::from_le_bytes(*b"[],[").to_string();
    let spaces = i32::from_le_bytes(*b"ab c").to_string();
    let tries = [
        (fill(&longest.to_string()), "(call $model.decode (local.get $model) (i32.const 131072) (i32.const 11000000) (global.get $R))"),
        (
            // A sampler's prompt and banned tokens, again and again.
            fill("3") + "(i32.store (i32.const 8192) (local.get $model))
              (f32.store (i32.const 8208) (f32.const 1)) (f32.store (i32.const 8216) (f32.const 1)) (f32.store (i32.const 8220) (f32.const 1.1))
              (i32.store (i32.const 8224) (i32.const -1))
              (i32.store (i32.const 8244) (i32.const 131072)) (i32.store (i32.const 8248) (i32.const 5000000))
              (i32.store (i32.const 8272) (i32.const 131072)) (i32.store (i32.const 8276) (i32.const 5000000))
              (loop $l",
            "(call $sampler.open (i32.const 8192) (global.get $R)) (br_if $l (i32.eqz (call $failed))))",
        ),
        (
            fill(&brackets) + "(i32.store8 (i32.const 131072) (i32.const 91))",
            "(call $matcher.open (local.get $model) (i32.const 0) (i32.const 131072) (i32.const 44000000) (global.get $R))",
        ),
        (
            fill(&brackets) + "(i32.store8 (i32.const 131072) (i32.const 91))",
            "(call $run-program (i32.const 0) (i32.const 1) (i32.const 131072) (i32.const 44000000) (global.get $R))",
        ),
        (
            // The same megabyte a thousand times, in a list of 8000 bytes.
            fill("1000000"),
            "(drop (call $text-decoder.new (local.get $model) (i32.const 131072) (i32.const 1000)))",
        ),
        (fill(&spaces), "(call $model.encode (local.get $model) (i32.const 131072) (i32.const 44000000) (global.get $R))"),
        (fill(&spaces), "(call $matcher.open (local.get $model) (i32.const 2) (i32.const 131072) (i32.const 44000000) (global.get $R))"),
        (fill(&spaces), "(call $token-set.matching (local.get $model) (i32.const 131072) (i32.const 44000000) (global.get $R))"),
        (
            fill(&spaces),
            "(call $model.tokenize (local.get $model) (i32.const 0) (i32.const 131072) (i32.const 44000000) (i32.const 0) (i32.const 0)
              (i32.const 0) (i32.const 0) (global.get $R))",
        ),
    ];
    let before = peak();
    for (fill, call) in tries {
        let wasm = program(&format!("{fill} {call} (global.get $R)"), "");
        let run =
            host.run(&wasm, &with(|limits| limits.program.cpu_time = std::time::Duration::from_secs(5)));
        let kind = run.as_ref().map_err(|error| error.kind());
        let refused =
            matches!(kind, Err(ErrorKind::LimitExceeded | ErrorKind::InvalidArgument | ErrorKind::Trap));
        assert!(refused, "{call}: {run:?}");
        // The program's own memory, a copy of its argument, and the result.
        #[cfg(target_os = "linux")]
        assert!(peak() - before < 600 << 20, "{call}: {} MB", (peak() - before) >> 20);
    }
}
