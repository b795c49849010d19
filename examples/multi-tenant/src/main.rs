//! Eight tenants run eight programs on one model; their forward passes share batches and one copy of the
//! weights.
//!
//!     cargo run --release -p multi-tenant [MODEL]

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use console::{Term, truncate_str};
use realm::{Grants, Limits, Message, Model, Realm, Request, Tenant};
use serde_json::{Value, json};

/// A tenant's program, its input and its question.
const TENANTS: [(&str, &str, &str); 8] = [
    ("chat", "null", "Name three rivers of Europe."),
    (
        "json",
        r#"{"schema": {"type": "object", "required": ["city", "country"], "additionalProperties": false,
        "properties": {"city": {"type": "string", "maxLength": 20}, "country": {"type": "string", "maxLength": 20}}}}"#,
        "Name a city and its country, as JSON.",
    ),
    ("best-of-n", "null", "Write a sentence about the sea."),
    ("beam", "null", "What is the largest planet?"),
    ("prompt-lookup", "null", "Repeat three times: the quick brown fox jumps over the lazy dog."),
    ("watermark", "null", "Describe a forest."),
    ("agent", "null", "What time is it? Use the tool."),
    ("policy-redact", r#"{"pattern": "[0-9]+", "replacement": "*"}"#, "Count from one to ten in digits."),
];

/// The state of a tenant's answer.
#[derive(Clone, Default)]
struct Row {
    tokens: usize,
    text: String,
    state: String,
}

fn main() -> anyhow::Result<()> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "smollm2-135m".into());
    let realm = Realm::builder().build()?;
    let model = realm.load_model(&name)?;
    let mut tenants = Vec::new();
    for (program, input, question) in TENANTS {
        let tenant = realm.tenant(&format!("{program}'s"), Limits::default())?;
        tenant.set_program(Some(&realm.load_program(realm_examples::program(program)?)?));
        // This tool is the only grant, and only this tenant has it.
        if program == "agent" {
            tenant.set_grants(Grants::none().tool("clock", |_| Ok(json!({"time": "12:34"}).to_string())));
        }
        tenants.push((tenant, serde_json::from_str::<Value>(input)?, question));
    }
    let rows = Mutex::new(vec![Row::default(); tenants.len()]);
    let began = Instant::now();
    thread::scope(|scope| {
        let threads: Vec<_> = tenants
            .iter()
            .enumerate()
            .map(|(i, (tenant, input, question))| {
                let (rows, model) = (&rows, &model);
                scope.spawn(move || answer(i, tenant, model, input, question, rows))
            })
            .collect();
        let term = Term::stdout();
        let mut drawn = 0;
        loop {
            let done = threads.iter().all(|thread| thread.is_finished());
            if term.is_term() || done {
                drawn = draw(&term, drawn, &rows.lock().unwrap_or_else(|e| e.into_inner()))?;
            }
            if done {
                return anyhow::Ok(());
            }
            thread::sleep(Duration::from_millis(150));
        }
    })?;
    let tokens: usize = rows.lock().unwrap_or_else(|e| e.into_inner()).iter().map(|row| row.tokens).sum();
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{tokens} tokens in {seconds:.1} s ({:.0} a second) from one copy of the weights",
        tokens as f64 / seconds
    );
    Ok(())
}

/// Reads one tenant's answer into its row.
fn answer(i: usize, tenant: &Tenant, model: &Model, input: &Value, question: &str, rows: &Mutex<Vec<Row>>) {
    let change = |edit: &dyn Fn(&mut Row)| edit(&mut rows.lock().unwrap_or_else(|e| e.into_inner())[i]);
    let request =
        Request::chat([Message::user(question)]).temperature(0.0).max_tokens(64).input(input.clone());
    change(&|row| row.state = "runs".into());
    let stream = tenant.model(model).and_then(|model| model.stream(request));
    let ended = stream.and_then(|stream| {
        for chunk in stream {
            let chunk = chunk?;
            change(&|row| {
                row.tokens += chunk.tokens.len();
                row.text += &chunk.text;
            });
        }
        Ok(())
    });
    change(&|row| {
        row.state = match &ended {
            Ok(()) => "done".into(),
            Err(error) => error.code().to_string(),
        };
    });
}

/// Draws the table over the previous one of `drawn` lines; returns the number of lines.
fn draw(term: &Term, drawn: usize, rows: &[Row]) -> std::io::Result<usize> {
    term.clear_last_lines(drawn)?;
    let width = usize::from(term.size().1).max(60);
    term.write_line(&format!("{:<14} {:>6} {:<8} text", "program", "tokens", "state"))?;
    for ((program, ..), row) in TENANTS.iter().zip(rows) {
        // The end of the text, on one line.
        let text: Vec<char> = row.text.replace(char::is_whitespace, " ").chars().collect();
        let tail: String = text[text.len().saturating_sub(width - 34)..].iter().collect();
        let line = format!("{program:<14} {:>6} {:<8} {tail}", row.tokens, row.state);
        term.write_line(&truncate_str(&line, width, ""))?;
    }
    Ok(rows.len() + 1)
}
