//! GGUF's metadata of a tokenizer, from tokenizer.json, tokenizer_config.json and generation_config.json.

use std::collections::HashMap;

use realm_gguf::{Array, Strings, Value};
use serde_json::{Map, Value as Json};

use super::config::Config;
use super::pretokenizer;
use crate::Error;
use crate::error::short;

/// The tokens of a model and their `tokenizer.ggml.token_type`.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// The character that stands for a space in SentencePiece's vocabularies.
const SPACE: char = '\u{2581}';

/// The files that a tokenizer is read from.
pub(super) struct TokenizerFiles {
    pub(super) tokenizer: Json,
    pub(super) config: Map<String, Json>,
    pub(super) generation: Map<String, Json>,
    /// `chat_template.jinja`, which newer folders have beside tokenizer_config.json.
    pub(super) template: Option<String>,
}

/// The tokens in the order of their ids.
struct Table {
    tokens: Vec<String>,
    types: Vec<i32>,
    ids: HashMap<String, u32>,
}

/// Returns the entries of a tokenizer for a model with `rows` embeddings.
pub(super) fn entries(
    files: &TokenizerFiles,
    config: &Config,
    rows: usize,
) -> Result<Vec<(String, Value)>, Error> {
    let json = &files.tokenizer;
    let model = json.get("model").cloned().unwrap_or_default();
    let kind = model.get("type").and_then(Json::as_str).unwrap_or("BPE");
    if kind != "BPE" {
        let why = format!("tokenizer.json: the model `{}` is not converted; BPE is", short(kind));
        return Err(Error::Unsupported(why));
    }
    let sentencepiece = model.get("byte_fallback").and_then(Json::as_bool) == Some(true);
    let table = Table::read(json, &model, rows, sentencepiece)?;
    let merges = merges(&model)?;
    let mut out = Vec::new();
    let mut put = |key: &str, value: Value| out.push((format!("tokenizer.ggml.{key}"), value));
    let text = |text: &str| Value::String(text.to_owned());
    let strings = |all: &mut dyn Iterator<Item = &str>| {
        Value::Array(Array::Strings(all.map(str::as_bytes).collect::<Strings>()))
    };
    if sentencepiece {
        put("model", text("llama"));
        put("pre", text("default"));
        put("scores", Value::Array(Array::F32(table.scores(&merges))));
        put("add_space_prefix", Value::Bool(space_prefix(json)?));
    } else {
        normalizer(json.get("normalizer").unwrap_or(&Json::Null))?;
        put("model", text("gpt2"));
        put("pre", text(pretokenizer::name(json.get("pre_tokenizer").unwrap_or(&Json::Null))?));
        let joined: Vec<_> = merges.iter().map(|(a, b)| format!("{} {}", spelled(a), spelled(b))).collect();
        put("merges", strings(&mut joined.iter().map(String::as_str)));
    }
    put("tokens", strings(&mut table.tokens.iter().map(String::as_str)));
    put("token_type", Value::Array(Array::I32(table.types.clone())));
    for (key, id) in special(files, config, &table) {
        put(key, Value::U32(id));
    }
    for (key, added) in boundaries(files) {
        put(key, Value::Bool(added));
    }
    out.extend(templates(files));
    Ok(out)
}

impl Table {
    fn read(json: &Json, model: &Json, rows: usize, sentencepiece: bool) -> Result<Self, Error> {
        let invalid = |why: String| Error::Folder(format!("tokenizer.json: {why}"));
        let vocab = model.get("vocab").and_then(Json::as_object);
        let vocab = vocab.ok_or_else(|| invalid("`model.vocab` is no object".into()))?;
        let mut tokens: Vec<String> = (0..rows).map(|id| format!("[PAD{id}]")).collect();
        let (mut types, mut ids) = (vec![UNUSED; rows], HashMap::with_capacity(rows));
        let unknown = model.get("unk_token").and_then(Json::as_str);
        let mut set = |text: &str, id: Option<u64>, ty: i32| -> Result<(), Error> {
            let id = id.ok_or_else(|| invalid(format!("token `{}` has no id", short(text))))?;
            // A token without an embedding cannot be used.
            if let Some(id) = usize::try_from(id).ok().filter(|&id| id < rows) {
                text.clone_into(&mut tokens[id]);
                types[id] = ty;
                ids.insert(text.to_owned(), id as u32);
            }
            Ok(())
        };
        for (text, id) in vocab {
            let byte = text.len() == 6 && text.starts_with("<0x") && text.ends_with('>');
            let ty = match text.as_str() {
                text if sentencepiece && Some(text) == unknown => UNKNOWN,
                _ if sentencepiece && byte => BYTE,
                _ => NORMAL,
            };
            set(text, id.as_u64(), ty)?;
        }
        for token in json.get("added_tokens").and_then(Json::as_array).into_iter().flatten() {
            let text = token.get("content").and_then(Json::as_str);
            let text = text.ok_or_else(|| invalid("an added token has no `content`".into()))?;
            let id = token.get("id").and_then(Json::as_u64);
            let special = token.get("special").and_then(Json::as_bool).unwrap_or(false);
            match text {
                _ if sentencepiece && Some(text) == unknown => set(text, id, UNKNOWN)?,
                _ if special || looks_special(text) => set(text, id, CONTROL)?,
                _ => set(&text.replace(SPACE, " "), id, USER_DEFINED)?,
            }
        }
        Ok(Self { tokens, types, ids })
    }

    /// SentencePiece's scores: pairs are joined in the order of the merges, so the token of an earlier merge
    /// scores higher. Tokens that no merge makes are never joined, and their scores are not used.
    fn scores(&self, merges: &[(&str, &str)]) -> Vec<f32> {
        let mut scores = vec![-1e9; self.tokens.len()];
        let mut joined = String::new();
        for (rank, (a, b)) in merges.iter().enumerate() {
            joined.clear();
            joined.extend([*a, *b]);
            if let Some(&id) = self.ids.get(&joined) {
                let score = &mut scores[id as usize];
                *score = f32::max(*score, -(rank as f32));
            }
        }
        scores
    }
}

/// Tokens that converters take for control tokens although their files do not mark them.
fn looks_special(text: &str) -> bool {
    let around = |start: &str, end: &str| text.starts_with(start) && text.ends_with(end);
    matches!(text, "<pad>" | "<mask>" | "<2mass>" | "[@BOS@]")
        || around("<|", "|>")
        || around("<｜", "｜>")
        || around("<unused", ">")
}

/// The pairs that are joined, in order.
fn merges(model: &Json) -> Result<Vec<(&str, &str)>, Error> {
    fn pair(merge: &Json) -> Option<(&str, &str)> {
        match merge {
            Json::String(text) => text.split_once(' '),
            Json::Array(both) => Some((both.first()?.as_str()?, both.get(1)?.as_str()?)),
            _ => None,
        }
    }
    let all = model.get("merges").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let wrong = |merge: &Json| {
        Error::Folder(format!("tokenizer.json: `{}` is no pair to merge", short(&merge.to_string())))
    };
    all.iter().map(|merge| pair(merge).ok_or_else(|| wrong(merge))).collect()
}

/// GPT-2's character for a space; merges are stored with a space between their parts.
fn spelled(part: &str) -> String {
    part.replace(' ', "\u{120}")
}

/// Refuses normalizers that change a byte-level tokenizer's text, other than Unicode's composition, which
/// GGUF files leave out.
fn normalizer(value: &Json) -> Result<(), Error> {
    match value.get("type").and_then(Json::as_str) {
        None | Some("NFC") => Ok(()),
        Some("Sequence") => {
            value.get("normalizers").and_then(Json::as_array).into_iter().flatten().try_for_each(normalizer)
        }
        Some(other) => Err(Error::Unsupported(format!(
            "tokenizer.json: the normalizer `{}` of a byte-level tokenizer is not converted; NFC is",
            short(other)
        ))),
    }
}

/// Returns whether a space is added before a text, by the normalizer or the pre-tokenizer.
fn space_prefix(json: &Json) -> Result<bool, Error> {
    fn steps<'a>(value: &'a Json, inner: &str, out: &mut Vec<&'a Json>) {
        match value.get(inner).and_then(Json::as_array) {
            Some(all) => all.iter().for_each(|each| steps(each, inner, out)),
            None if value.is_object() => out.push(value),
            None => {}
        }
    }
    let mut all = Vec::new();
    steps(json.get("normalizer").unwrap_or(&Json::Null), "normalizers", &mut all);
    steps(json.get("pre_tokenizer").unwrap_or(&Json::Null), "pretokenizers", &mut all);
    let mut prefix = false;
    for step in all {
        let text = |key: &str| step.get(key).and_then(Json::as_str);
        match text("type").unwrap_or_default() {
            "Prepend" if text("prepend") == Some("\u{2581}") => prefix = true,
            "Metaspace" => {
                let scheme = text("prepend_scheme");
                let old = step.get("add_prefix_space").and_then(Json::as_bool);
                prefix |= scheme.map_or(old.unwrap_or(true), |scheme| scheme != "never");
            }
            "Replace" | "Split" => {}
            other => {
                return Err(Error::Unsupported(format!(
                    "tokenizer.json: the step `{}` of a tokenizer in SentencePiece's manner is not converted",
                    short(other)
                )));
            }
        }
    }
    Ok(prefix)
}

/// The ids of special tokens.
fn special(files: &TokenizerFiles, config: &Config, table: &Table) -> Vec<(&'static str, u32)> {
    const KINDS: [(&str, &str, &str); 4] = [
        ("bos_token", "bos_token_id", "bos_token_id"),
        ("eos_token", "eos_token_id", "eos_token_id"),
        ("unk_token", "unk_token_id", "unknown_token_id"),
        ("pad_token", "pad_token_id", "padding_token_id"),
    ];
    let known = |id: u64| u32::try_from(id).ok().filter(|&id| (id as usize) < table.tokens.len());
    let mut out = Vec::new();
    for (token, id, key) in KINDS {
        let named = files.config.get(token);
        let text = named.and_then(|named| named.as_str().or_else(|| named.get("content")?.as_str()));
        let by_text = text.and_then(|text| table.ids.get(text).copied());
        let by_id = || {
            let value = config.get(&[id])?;
            known(value.as_u64().or_else(|| value.as_array()?.first()?.as_u64())?)
        };
        if let Some(id) = by_text.or_else(by_id) {
            out.push((key, id));
        }
    }
    // The ends of a turn and of a message are further ones of those that end a generation.
    let ends = files.generation.get("eos_token_id").or_else(|| config.get(&["eos_token_id"]));
    let ends = ends.and_then(Json::as_array).into_iter().flatten().filter_map(|id| known(id.as_u64()?));
    let eos = out.iter().find(|(key, _)| *key == "eos_token_id").map(|&(_, id)| id);
    let others = ends.filter(|id| Some(*id) != eos);
    out.extend(["eot_token_id", "eom_token_id"].into_iter().zip(others).collect::<Vec<_>>());
    out
}

/// Returns whether begin and end tokens are added to a text: tokenizer_config.json says so, or the template
/// of tokenizer.json has them.
fn boundaries(files: &TokenizerFiles) -> Vec<(&'static str, bool)> {
    let processor = files.tokenizer.get("post_processor").unwrap_or(&Json::Null);
    let all = processor.get("processors").and_then(Json::as_array);
    let steps = all.map_or(std::slice::from_ref(processor), Vec::as_slice);
    let template = steps.iter().find_map(|step| step.get("single")?.as_array());
    let special = |part: Option<&Json>| part.is_some_and(|part| part.get("SpecialToken").is_some());
    let by_template = |edge: fn(&[Json]) -> Option<&Json>| template.map(|parts| special(edge(parts)));
    let stated = |key: &str| files.config.get(key).and_then(Json::as_bool);
    let bytes = steps.iter().any(|step| step.get("type").and_then(Json::as_str) == Some("ByteLevel"));
    let default = bytes.then_some(false);
    let first = stated("add_bos_token").or(by_template(|parts| parts.first())).or(default);
    let last = stated("add_eos_token").or(by_template(|parts| parts.last())).or(default);
    [("add_bos_token", first), ("add_eos_token", last)]
        .into_iter()
        .filter_map(|(key, added)| Some((key, added?)))
        .collect()
}

/// The chat templates: the default one, and others by name.
fn templates(files: &TokenizerFiles) -> Vec<(String, Value)> {
    let key = "tokenizer.chat_template";
    if let Some(template) = &files.template {
        return vec![(key.into(), Value::String(template.clone()))];
    }
    match files.config.get("chat_template") {
        Some(Json::String(template)) => vec![(key.into(), Value::String(template.clone()))],
        Some(Json::Array(all)) => all
            .iter()
            .filter_map(|named| {
                let (name, template) = (named.get("name")?.as_str()?, named.get("template")?.as_str()?);
                let key = if name == "default" { key.to_owned() } else { format!("{key}.{name}") };
                Some((key, Value::String(template.to_owned())))
            })
            .collect(),
        _ => Vec::new(),
    }
}
