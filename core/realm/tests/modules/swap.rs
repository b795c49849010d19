//! Programs that are exchanged while requests run.

use std::sync::atomic::{AtomicBool, Ordering};

use realm::{Program, Realm};

use crate::common::story;
use crate::{GREEDY, start};

/// Greedy decoding, one forward pass at a time, with `mark` sent before the text.
fn program(realm: &Realm, mark: &str) -> Program {
    let begin = "(local.set $sequence (i32.wrap_i64 (call $open)))";
    assert!(GREEDY.contains(begin));
    let marked = format!(
        "(drop (call $emit (i32.const 50000) (i32.const {}) (i32.const 0) (i32.const 0))) {begin}",
        mark.len()
    );
    let memory = r#"(memory (export "memory") 1)"#;
    let module = GREEDY
        .replace(begin, &marked)
        .replace(memory, &format!(r#"{memory} (data (i32.const 50000) "{mark}")"#));
    realm.compile_program(&wat::parse_str(&module).unwrap()).unwrap()
}

#[test]
fn running_requests_end_on_the_old_program_and_new_ones_begin_on_the_new() {
    let (realm, model, tenant) = start();
    let plain = model.generate(story(24)).unwrap().text;
    let seen = tenant.model(&model).unwrap();
    tenant.set_program(Some(&program(&realm, "old: ")));
    let running: Vec<_> = (0..8)
        .map(|_| {
            let mut chunks = seen.stream(story(24)).unwrap().into_iter();
            // The run has begun.
            assert_eq!(chunks.next().unwrap().unwrap().text, "old: ");
            chunks
        })
        .collect();
    tenant.set_program(Some(&program(&realm, "new: ")));
    // The new program answers while the old ones still run.
    assert_eq!(seen.generate(story(24)).unwrap().text, format!("new: {plain}"));
    for chunks in running {
        assert_eq!(chunks.map(|chunk| chunk.unwrap().text).collect::<String>(), plain);
    }
    tenant.set_program(None);
    assert_eq!(seen.generate(story(24)).unwrap().text, plain);
}

#[test]
fn a_model_answered_by_a_program_leaves_the_tenants_own_as_it_is() {
    let (realm, model, tenant) = start();
    let plain = model.generate(story(4)).unwrap().text;
    let seen = tenant.model(&model).unwrap();
    let one = seen.answered_by(&program(&realm, "one: "));
    let text = |model: &realm::Model| model.generate(story(4)).unwrap().text;
    assert_eq!((text(&one), text(&seen)), (format!("one: {plain}"), plain.clone()));
    tenant.set_program(Some(&program(&realm, "own: ")));
    assert_eq!((text(&one), text(&seen)), (format!("one: {plain}"), format!("own: {plain}")));
    let other = one.answered_by(&program(&realm, "two: "));
    assert_eq!((text(&other), text(&model)), (format!("two: {plain}"), plain));
}

#[test]
fn no_request_is_lost_while_programs_are_exchanged_all_the_time() {
    let (realm, model, tenant) = start();
    let plain = model.generate(story(3)).unwrap().text;
    let programs = ["a: ", "b: ", "c: "].map(|mark| program(&realm, mark));
    tenant.set_program(Some(&programs[0]));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for program in programs.iter().cycle() {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                tenant.set_program(Some(program));
                std::thread::sleep(std::time::Duration::from_micros(500));
            }
        });
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let seen = tenant.model(&model).unwrap();
                let plain = &plain;
                scope.spawn(move || {
                    for _ in 0..40 {
                        let text = seen.generate(story(3)).unwrap().text;
                        let (mark, rest) = text.split_at(3);
                        assert!(["a: ", "b: ", "c: "].contains(&mark) && rest == plain, "{text:?}");
                    }
                })
            })
            .collect();
        let ended: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        over.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|client| client.unwrap());
    });
}
