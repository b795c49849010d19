//! Generates JSON that fits a schema, checks it, and asks again if it does not fit. A grammar guides the
//! model as far as grammars can. Checking the answer finds violations of the keywords that grammars cannot
//! express (`uniqueItems`, `not`, `if` and others) and answers that ran out of tokens; the model then gets
//! the error and tries again. Sends an answer that fits, or nothing.
//!
//! The schema is the request's grammar, or the input's: `{"schema": {…}, "retries": 2}`.

mod schema;
mod strip;

use realm_tenant::*;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    schema: Option<Value>,
    retries: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { schema: None, retries: 2 }
    }
}

/// The model's answer and its tokens.
struct Said {
    text: String,
    tokens: Vec<Token>,
    reason: FinishReason,
}

#[realm_tenant::run]
async fn main(mut request: Request) -> Result<FinishReason> {
    let options: Options = request.options()?;
    let schema = match (options.schema, &request.grammar) {
        (Some(schema), _) => schema,
        (None, Some(Grammar::JsonSchema(schema))) => serde_json::from_str(schema)?,
        (None, _) => {
            return Err(Error::invalid("neither the request's grammar nor its input is a JSON schema"));
        }
    };
    let model = Model::current();
    request.grammar = Some(guide(&model, &schema)?);
    let mut conversation = request.conversation()?;
    let mut complaint = String::new();
    for _ in 0..=options.retries {
        let said = ask(&model, &request)?;
        complaint = match check(&said, &schema) {
            Ok(()) => {
                emit(&said.text, &said.tokens)?;
                return Ok(said.reason);
            }
            Err(complaint) => complaint,
        };
        log(Level::Info, format!("asking again: {complaint}"));
        conversation.messages.push(Message::assistant(said.text));
        let again = format!(
            "That is not what was asked for: {complaint}. Answer again, with JSON of the schema only."
        );
        conversation.messages.push(Message::user(again));
        request.prompt = Prompt::Chat(conversation.clone());
        // The same seed would give the same answer again.
        request.sampling = request.sampling.reseeded(1);
    }
    Err(format!("no answer fits the schema after {} retries: {complaint}", options.retries).into())
}

/// Returns a grammar of the schema; if that fails, of the schema without the keywords that no grammar can
/// express.
fn guide(model: &Model, schema: &Value) -> Result<Grammar> {
    let grammar = Grammar::JsonSchema(schema.to_string());
    match Matcher::open(model, &grammar) {
        Ok(_) => Ok(grammar),
        Err(error) if error.code == ErrorCode::InvalidArgument => {
            log(Level::Debug, format!("guided by a part of the schema: {error}"));
            let grammar = Grammar::JsonSchema(strip::strip(schema).to_string());
            Matcher::open(model, &grammar)?;
            Ok(grammar)
        }
        Err(error) => Err(error),
    }
}

fn ask(model: &Model, request: &Request) -> Result<Said> {
    let sequence = Sequence::of(model, &model.tokenize(&request.prompt)?)?;
    let mut answer = Answer::new(model, request, &sequence)?;
    let (mut text, mut tokens) = (String::new(), Vec::new());
    loop {
        let token = answer.choose(&sequence.forward()?)?;
        let step = answer.push(token)?;
        text += &step.text;
        tokens.push(token);
        if let Some(reason) = step.finish {
            return Ok(Said { text, tokens, reason });
        }
        sequence.append(&[token])?;
    }
}

/// Returns an error that describes why an answer does not fit.
fn check(said: &Said, schema: &Value) -> Result<(), String> {
    let value = serde_json::from_str(&said.text).map_err(|error| match said.reason {
        FinishReason::Length => "it is longer than it may be".to_owned(),
        FinishReason::Stop => format!("it is not JSON ({error})"),
    })?;
    schema::check(&value, schema, schema)
}
