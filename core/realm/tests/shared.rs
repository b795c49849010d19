//! Generations that one thread reads and another cancels, and Realm's log as a function receives it.

mod common;

use std::time::Duration;

use realm::{ErrorCode, Limits, Model, Realm, SharedGeneration};

use common::story;

fn load() -> (Realm, Model) {
    let realm = Realm::builder().threads(2).device("cpu").build().unwrap();
    let options = realm::LoadOptions { kv_tokens: Some(4096), ..Default::default() };
    let model = realm.load_model_with("smollm2-135m", &options, &mut ()).unwrap();
    (realm, model)
}

#[test]
fn another_thread_cancels_what_waits_in_a_queue() {
    let (realm, model) = load();
    let limits = Limits { max_concurrent: Some(1), ..Limits::default() };
    let tenant = realm.tenant("one", limits).unwrap().model(&model).unwrap();
    let mut running = tenant.stream(story(2000)).unwrap();
    running.next_blocking().unwrap().unwrap();
    // This one sends no chunk while the other runs.
    let waiting = SharedGeneration::from(tenant.stream(story(1)).unwrap());
    let reader = std::thread::spawn({
        let waiting = waiting.clone();
        move || waiting.finish()
    });
    std::thread::sleep(Duration::from_millis(50));
    assert!(!reader.is_finished());
    waiting.cancel();
    assert_eq!(reader.join().unwrap().unwrap_err().code(), ErrorCode::Cancelled);
    assert!(waiting.is_cancelled() && waiting.next_blocking().is_none());
}

#[test]
fn several_readers_share_the_chunks_and_all_see_the_end() {
    let (_realm, model) = load();
    let shared = SharedGeneration::from(model.stream(story(60)).unwrap());
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let shared = shared.clone();
            std::thread::spawn(move || {
                std::iter::from_fn(|| shared.next_blocking()).map(|c| c.unwrap().tokens.len()).sum::<usize>()
            })
        })
        .collect();
    let tokens: usize = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
    assert_eq!(tokens, 60);
    assert!(!shared.is_cancelled());
}

#[tokio::test]
async fn a_task_finishes_what_another_holds() {
    let (_realm, model) = load();
    let alone = model.generate(story(12)).unwrap().text;
    let shared = SharedGeneration::from(model.stream(story(12)).unwrap());
    assert_eq!(shared.clone().finish_async().await.unwrap().text, alone);
    assert!(shared.next_async().await.is_none());
}

#[cfg(feature = "sandbox")]
#[test]
fn a_function_gets_the_lines_of_the_log() {
    use std::sync::{Arc, Mutex};

    use realm::{Grants, Level, Request};

    let (realm, model) = load();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = {
        let lines = Arc::clone(&lines);
        move |level: Level, target: &str, message: &str| {
            lines.lock().unwrap().push((level, target.to_owned(), message.to_owned()));
        }
    };
    realm::log_to(Level::Info, Some(sink)).unwrap();
    let program = realm.load_program(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/conformance/programs/call-tool.wasm"),
    );
    let tenant = realm.tenant("acme", Limits::default()).unwrap();
    tenant.set_program(Some(&program.unwrap()));
    tenant.set_grants(Grants::none().log().tool("weather", Ok));
    let seen = tenant.model(&model).unwrap();
    seen.generate(Request::text("x")).unwrap();
    let wanted = (Level::Info, "realm::program".to_owned(), "asked tenant=\"acme\"".to_owned());
    assert!(lines.lock().unwrap().contains(&wanted), "{:?}", lines.lock().unwrap());
    realm::log_to(Level::Info, None::<fn(Level, &str, &str)>).unwrap();
    let before = lines.lock().unwrap().len();
    seen.generate(Request::text("x")).unwrap();
    assert_eq!(lines.lock().unwrap().len(), before);
}
