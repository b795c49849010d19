//! The speedup by drafts for several kinds of text: runs with and without drafts take turns on one engine.
//!
//!     cargo run --release -p realm-examples --example speculation -- qwen2.5-coder-0.5b 5
//!
//! Arguments: a model, the number of rounds, and optionally the texts ("" for all) and a draft model.

use realm::{Completion, LoadOptions, Message, Realm, Request, Speculation};

const CODE: &str = r#"import csv


class Item:
    def __init__(self, name, price, quantity):
        self.name = name
        self.price = price
        self.quantity = quantity

    def cost(self):
        return self.price * self.quantity


def read_items(path):
    items = []
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            items.append(Item(row["name"], float(row["price"]), int(row["quantity"])))
    return items


def total(items):
    result = 0
    for item in items:
        result += item.cost()
    return result


def print_receipt(items):
    print("Receipt")
    for item in items:
        print(f"{item.name}: {item.quantity} x {item.price} = {item.cost()}")
    print(f"Total: {total(items)}")


if __name__ == "__main__":
    print_receipt(read_items("items.csv"))
"#;

const REPORT: &str = "\
Minutes of the harbour council, 3 March. The harbour master reported that the north pier lost eleven planks in the \
storm of 27 February and that the crane has been out of service since then. \"We have been lucky,\" she said, \"that \
nobody was on the pier when the planks came loose.\" The treasurer said that the repair of the pier will cost 4,300 \
euros and that of the crane 12,750 euros. \"The reserve covers the pier, and it does not cover the crane,\" he said. \
The fishermen's association asked for the crane to be repaired first. \"Without the crane we cannot land the heavy \
boxes, and every week of waiting costs us more than the whole pier,\" their chairman said. The council decided to \
repair the pier at once and to ask the province for a loan for the crane.";

/// Kinds of text, each with a request for it.
fn requests() -> Vec<(&'static str, Request)> {
    let chat = |prompt: &str| Request::chat([Message::user(prompt)]);
    let code = format!(
        "Rename the function `total` to `sum_of_costs` everywhere in this program and change nothing else. Answer with \
         the complete program.\n\n```python\n{CODE}```"
    );
    let report = format!("Summarize these minutes. Quote word for word what each speaker said.\n\n{REPORT}");
    let story = "Write a long story about a lighthouse keeper who finds a letter in a bottle.";
    let mut requests = Vec::new();
    for (name, prompt) in [("editing code", code.as_str()), ("quoting", &report), ("a story", story)] {
        for temperature in [0.0, 0.8] {
            requests.push((name, chat(prompt).temperature(temperature)));
        }
    }
    // Two texts that do not repeat themselves: one is unlikely to repeat its words, in the other every token
    // is equally likely.
    let mut varied = chat(story).temperature(1.0);
    (varied.sampling.repetition_penalty, varied.sampling.presence_penalty) = (1.3, 1.0);
    requests.push(("a varied story", varied));
    let mut noise = chat(story).temperature(3.0).top_k(0).top_p(1.0).min_p(0.0);
    noise.ignore_eos = true;
    requests.push(("noise", noise));
    requests
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<(), realm::Error> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "qwen2.5-coder-0.5b".to_owned());
    let rounds = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(5).max(1);
    let only = arguments.next().unwrap_or_default();
    let options =
        LoadOptions { draft_model: arguments.next(), kv_tokens: Some(8192), ..LoadOptions::default() };
    let model = Realm::builder().threads(2).build()?.load_model_with(&name, &options, &mut ())?;

    println!("{name}, tokens/s without drafts and with them, medians of {rounds} rounds");
    for (text, request) in requests().into_iter().filter(|(text, _)| text.contains(&only)) {
        let (mut without, mut with, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        let mut usage = None;
        for round in 0..rounds {
            let one = |speculation| {
                model.generate(request.clone().max_tokens(300).seed(1).speculation(speculation))
            };
            // Each variant goes first in every other round.
            let (a, b) = if round % 2 == 0 {
                let a = one(Speculation::Off)?;
                (a, one(Speculation::Auto)?)
            } else {
                let b = one(Speculation::Auto)?;
                (one(Speculation::Off)?, b)
            };
            assert_eq!(a.text, b.text, "drafts changed the text");
            let rate = |c: &Completion| c.timings.decode_rate(c.usage);
            without.push(rate(&a));
            with.push(rate(&b));
            ratios.push(rate(&b) / rate(&a));
            usage = Some(b.usage);
        }
        let Some(usage) = usage else { continue };
        println!(
            "{text:<14} temperature {:.1}: {:>6.1} -> {:>6.1}, {:.3} times; {} tokens, {} of {} drafts right",
            request.sampling.temperature,
            median(without),
            median(with),
            median(ratios),
            usage.generated_tokens,
            usage.accepted_tokens,
            usage.draft_tokens,
        );
    }
    Ok(())
}
