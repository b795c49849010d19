//! Renders templates for `ci/template-differential`: reads JSON lines `{"template", "foreign", "trusted"}`,
//! writes JSON lines `{"text", "foreign"}` or `{"error"}`.

use std::io::{self, BufRead, Write};

use realm_template::{Input, Limits, Template, ZonedDateTime};
use serde_json::{Map, Value, json};

fn main() -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for line in io::stdin().lock().lines() {
        let case: Value = serde_json::from_str(&line?)?;
        writeln!(out, "{}", render(&case))?;
    }
    out.flush()
}

fn render(case: &Value) -> Value {
    let nothing = Map::new();
    let variables = |name: &str| case[name].as_object().unwrap_or(&nothing);
    let clock: Option<ZonedDateTime> = case["clock"].as_str().and_then(|clock| clock.parse().ok());
    let rendered = Template::parse(case["template"].as_str().unwrap_or_default()).and_then(|template| {
        let input = Input { trusted: variables("trusted"), foreign: variables("foreign") };
        template.render(&input, &Limits { clock, ..Limits::default() })
    });
    match rendered {
        Ok(rendered) => {
            let foreign: Vec<_> = rendered.foreign.iter().map(|run| [run.start, run.end]).collect();
            json!({"text": rendered.text, "foreign": foreign})
        }
        Err(error) => json!({"error": error.to_string()}),
    }
}
