//! Scenarios' lists, chat sessions and logits processors, on the Rust API.

use realm::{
    ChatOptions, ChatSession, ChatTool, EmbedOptions, Error, LogitsProcessor, Message, Pooling, Prompt,
    Request,
};
use serde_json::{Value, json};

use crate::operations::{Object, Runner, completion, likeliest};
use crate::request::{ids, request};

impl Runner {
    fn chat(&mut self, a: &Value) -> ChatSession {
        match self.objects.get(a["chat"].as_str().expect("`chat`")) {
            Some(Object::Chat(chat)) => chat.clone(),
            _ => panic!("there is no chat {}", a["chat"]),
        }
    }

    /// Runs the operations of this file.
    pub(crate) fn operate_more(&mut self, a: &Value) -> Result<Value, Error> {
        let text = |key: &str| a[key].as_str().unwrap_or_else(|| panic!("`{key}` in {a}")).to_owned();
        let list = |key: &str| a[key].as_array().unwrap_or_else(|| panic!("`{key}` in {a}")).clone();
        Ok(match a["op"].as_str().expect("an operation") {
            "generate_many" => {
                let options = options(&a["options"])?;
                let requests: Vec<_> = list("prompts").iter().map(|p| with_prompt(&options, p)).collect();
                let model = self.model(a);
                if a["each"] == true {
                    let each = model.generate_each(requests).into_iter();
                    each.map(|result| match result {
                        Ok(done) => completion(done),
                        Err(e) => json!({"error": {"code": e.code().as_str(), "message": e.message()}}),
                    })
                    .collect()
                } else {
                    model.generate_many(requests)?.into_iter().map(completion).collect()
                }
            }
            "embed_many" => {
                let pooling = a["pooling"].as_str().map(str::parse::<Pooling>).transpose()?;
                let options = EmbedOptions { pooling, normalize: a["normalize"] != false };
                let model = self.model(a);
                let texts: Vec<String> = serde_json::from_value(a["texts"].clone()).expect("texts");
                json!(model.embed_many(model.encode_many(&texts, false, true), &options)?)
            }
            "score_many" => {
                let top = a["top"].as_u64().unwrap_or(0) as usize;
                let scored = self.model(a).score_many(list("texts").iter().map(ids).collect(), top)?;
                let one = |s: &realm::Scored| json!({"next": s.next, "top": likeliest(&s.top)});
                scored.iter().map(|text| text.iter().map(one).collect::<Value>()).collect()
            }
            "encode_many" => {
                let texts: Vec<String> = serde_json::from_value(a["texts"].clone()).expect("texts");
                json!(self.model(a).encode_many(&texts, a["special"] == true, a["boundaries"] != false))
            }
            "chat" => {
                let system = a["system"].as_str().map(Message::system);
                let mut chat = ChatOptions { request: options(&a["options"])?, ..ChatOptions::default() };
                chat.request.prompt = Prompt::Chat(system.into_iter().collect());
                for tool in a["tools"].as_array().into_iter().flatten() {
                    let (definition, answer) = (tool["definition"].clone(), tool.clone());
                    let call = move |arguments| match (&answer["answer"], answer["error"].as_str()) {
                        (_, Some(complaint)) => Err(complaint.to_owned()),
                        (Value::Null, None) => Ok(arguments),
                        (answer, None) => Ok(answer.to_string()),
                    };
                    chat.tools.push(ChatTool::new(definition, call)?);
                }
                if let Some(rounds) = a["max_rounds"].as_u64() {
                    chat.max_rounds = rounds as usize;
                }
                if let Some(overflow) = a["overflow"].as_str() {
                    chat.overflow = overflow.parse()?;
                }
                let chat = ChatSession::new(self.model(a), chat)?;
                self.add(a, Object::Chat(chat));
                Value::Null
            }
            "ask" => completion(self.chat(a).ask(text("text"))?),
            "ask_stream" => {
                let generation = self.chat(a).stream(text("text"))?;
                self.add(a, Object::Generation(Some(Box::new(generation))));
                Value::Null
            }
            "chat_state" => {
                let chat = self.chat(a);
                let messages: Vec<_> = chat.messages().iter().map(|m| m.as_json().clone()).collect();
                json!({"messages": messages, "dropped_messages": chat.dropped_messages(), "busy": chat.is_busy()})
            }
            "set_messages" => {
                let messages = list("messages").into_iter().map(Message::from).collect();
                self.chat(a).set_messages(messages)?;
                Value::Null
            }
            "undo" => json!(self.chat(a).undo()?),
            "clear" => {
                self.chat(a).clear()?;
                Value::Null
            }
            other => panic!("there is no operation `{other}`"),
        })
    }
}

/// A request's options, without adapters, which need an object.
fn options(asked: &Value) -> Result<Request, Error> {
    let none = json!({});
    request(if asked.is_null() { &none } else { asked }, |_| panic!("no adapters here"))
}

fn with_prompt(options: &Request, prompt: &Value) -> Request {
    let prompt = match prompt {
        Value::String(text) => Prompt::Text(text.clone()),
        Value::Array(items) if !items.is_empty() && items.iter().all(Value::is_object) => {
            Prompt::Chat(items.iter().cloned().map(Message::from).collect())
        }
        tokens => Prompt::Tokens(ids(tokens)),
    };
    Request { prompt, ..options.clone() }
}

/// Returns the logits processor that a scenario describes.
pub(crate) fn processor(asked: &Value) -> LogitsProcessor {
    let asked = asked.clone();
    LogitsProcessor::new(move |tokens, logits| {
        if let Some(complaint) = asked["fail"].as_str() {
            return Err(complaint.to_owned());
        }
        if let Some(allowed) = asked.get("only").map(ids) {
            let forbidden = |&(id, _): &(usize, &mut f32)| !allowed.contains(&(id as u32));
            let all = logits.iter_mut().enumerate();
            all.filter(forbidden).for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
        }
        if asked["not_the_last"] == true {
            logits[tokens[tokens.len() - 1] as usize] = f32::NEG_INFINITY;
        }
        if asked["nan"] == true {
            logits[0] = f32::NAN;
        }
        Ok(())
    })
}
