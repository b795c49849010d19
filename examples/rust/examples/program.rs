//! A tenant with a program of its own, which calls a tool of this application.
//!
//!     cargo run --release -p realm-examples --example program [PROGRAM.wasm [MODEL]]
//!
//! PROGRAM is a WebAssembly component; without one it is wasm-tenants/agent, which calls tools.

use std::error::Error;
use std::io::Write;
use std::time::Duration;

use realm::{Grants, Limits, Message, ProgramLimits, Realm, Request};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let program = match arguments.next() {
        Some(file) => file.into(),
        None => realm_examples::program("agent")?,
    };
    let realm = Realm::builder().build()?;
    let cpu_time = Duration::from_secs(30);
    let limits =
        Limits { program: ProgramLimits { cpu_time, ..ProgramLimits::default() }, ..Limits::default() };
    let tenant = realm.tenant("acme", limits)?;
    tenant.set_program(Some(&realm.load_program(program)?));

    // This tool is the only grant.
    let weather = |arguments: String| {
        let arguments: Value = serde_json::from_str(&arguments).map_err(|error| error.to_string())?;
        println!("(the program asks for the weather in {})", arguments["city"].as_str().unwrap_or("?"));
        Ok::<_, String>(json!({"weather": "heavy snow, -7 degrees"}).to_string())
    };
    let log = |tenant: &str, level: realm::Level, message: &str| eprintln!("{tenant}, {level:?}: {message}");
    tenant.set_grants(Grants::none().log_to(log).tool("get_weather", weather));

    let tool = json!({"type": "function", "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "required": ["city"],
            "additionalProperties": false,
            "properties": {"city": {"enum": ["Paris", "Rome"]}},
        },
    }});
    let model = realm.load_model(&arguments.next().unwrap_or("qwen2.5-coder-0.5b".into()))?;
    let request =
        Request::chat([Message::user("What is the weather in Paris?")]).temperature(0.0).max_tokens(64);
    let request = request.tool(tool).input(json!({"tool_choice": "required"}));
    for chunk in tenant.model(&model)?.stream(request)? {
        print!("{}", chunk?.text);
        std::io::stdout().flush()?;
    }
    println!();
    Ok(())
}
