//! Options that several commands share.

use std::path::PathBuf;

use anyhow::{Context, Result};
use realm::hub::{Hub, Reference};
use realm::{Adapter, CacheType, LoadOptions, Model, Realm, Request, Sampling, Speculation};

use crate::progress::Bars;

/// The model, and its device.
#[derive(clap::Args)]
pub(crate) struct ModelOptions {
    /// A GGUF file, a folder as transformers saves it, a catalog name (see `realm models list`), or
    /// hf:owner/repo/file.gguf, or hf:owner/repo for a repository of safetensors
    pub(crate) model: String,
    #[command(flatten)]
    load: LoadingOptions,
}

/// The options of loading any model.
#[derive(clap::Args, Clone)]
pub(crate) struct LoadingOptions {
    /// Threads that compute; -1 or 0 for one for each core, which is the default
    #[arg(long, allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..=1024))]
    threads: Option<i64>,
    /// Device that the model runs on: auto, cpu, cuda, cuda:1, cuda:0,1 ...
    #[arg(long, default_value = "auto")]
    device: String,
    /// Layers that the GPU computes, the last ones; the CPU computes the others. -1 for as many as fit, which
    /// is the default
    #[arg(long, allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..))]
    gpu_layers: Option<i64>,
    /// Device that the experts of a mixture run on [default: the CPU if all layers fit on the GPU only then]
    #[arg(long, value_enum)]
    experts: Option<Experts>,
    /// A chat template in place of the file's own: a file, or the name of a builtin one (chatml, llama3,
    /// mistral, gemma ...)
    #[arg(long, value_name = "FILE|NAME")]
    chat_template: Option<String>,
    /// Tokens that the KV cache holds; 0 or -1 for the model's own context length [default: what fits in a
    /// quarter of the free memory, 8 GiB at most; on a GPU in four fifths of what the weights leave]
    #[arg(long, allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..))]
    context: Option<i64>,
    /// Number format of the KV cache: f32, f16 or q8_0 [default: f16]
    #[arg(long)]
    cache_type: Option<CacheType>,
    /// Compute tokens that are likely to follow along with the last one, while that makes texts faster:
    /// drafts from the prompt and the text themselves, or by a draft model
    #[arg(long, value_enum, default_value_t = Speculate::Auto)]
    speculate: Speculate,
    /// A smaller model of the same vocabulary that drafts
    #[arg(long)]
    draft_model: Option<String>,
}

/// The device of experts.
#[derive(Debug, Clone, Copy, PartialEq, clap::ValueEnum)]
enum Experts {
    /// The CPU, which has the memory; all else is on the GPU
    Cpu,
    /// Where their layer is
    Gpu,
}

/// The source of drafts.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Speculate {
    /// Any source
    Auto,
    Off,
    /// The prompt and the text
    Lookup,
    /// The draft model
    Draft,
}

impl From<Speculate> for Speculation {
    fn from(value: Speculate) -> Self {
        match value {
            Speculate::Auto => Self::Auto,
            Speculate::Off => Self::Off,
            Speculate::Lookup => Self::Lookup,
            Speculate::Draft => Self::Draft,
        }
    }
}

impl ModelOptions {
    pub(crate) fn load(&self) -> Result<Model> {
        self.load_with(None)
    }

    /// Loads the model with a KV cache of `kv_tokens` tokens, unless the user set the size.
    pub(crate) fn load_with(&self, kv_tokens: Option<usize>) -> Result<Model> {
        Ok(self.start(kv_tokens)?.1)
    }

    /// Loads the model with a KV cache of `kv_tokens` tokens in the number format `cache`, whatever the user
    /// set.
    pub(crate) fn load_with_cache(&self, kv_tokens: usize, cache: Option<CacheType>) -> Result<Model> {
        let (realm, options) = self.load.start(None)?;
        let options = LoadOptions { kv_tokens: Some(kv_tokens), cache_type: cache, ..options };
        Ok(realm.load_model_with(&self.model, &options, &mut Bars::new())?)
    }

    /// Returns the longest context that the model was trained for, in tokens. Fetches the model if it is not
    /// here.
    pub(crate) fn trained_context(&self) -> Result<usize> {
        let path = Hub::new()?.resolve(&Reference::parse(&self.model)?, &mut Bars::new())?;
        Ok(realm::inspect(&path)?.trained_context_length)
    }

    /// Returns the number format of the KV cache that the user set.
    pub(crate) fn cache_type(&self) -> Option<CacheType> {
        self.load.cache_type
    }

    /// Same as [`load_with`](Self::load_with), with the runtime.
    pub(crate) fn start(&self, kv_tokens: Option<usize>) -> Result<(Realm, Model)> {
        let (realm, options) = self.load.start(kv_tokens)?;
        let model = realm.load_model_with(&self.model, &options, &mut Bars::new())?;
        Ok((realm, model))
    }
}

impl LoadingOptions {
    /// Starts the runtime; returns it with the options of models, with a KV cache of `kv_tokens` tokens
    /// unless the user set the size.
    pub(crate) fn start(&self, kv_tokens: Option<usize>) -> Result<(Realm, LoadOptions)> {
        let mut builder = Realm::builder().device(&self.device);
        if let Some(threads) = self.threads.and_then(unless_negative).filter(|&threads| threads > 0) {
            builder = builder.threads(threads);
        }
        let options = LoadOptions {
            // Both 0 and -1 are the model's own.
            kv_tokens: self.context.map(|tokens| unless_negative(tokens).unwrap_or(0)).or(kv_tokens),
            context_length: self.context.and_then(unless_negative).filter(|&tokens| tokens > 0),
            chat_template: self.chat_template.as_deref().map(chat_template).transpose()?,
            cache_type: self.cache_type,
            speculation: self.speculate.into(),
            draft_model: self.draft_model.clone(),
            gpu_layers: self.gpu_layers.and_then(unless_negative),
            experts_on_cpu: self.experts.map(|experts| experts == Experts::Cpu),
            ..LoadOptions::default()
        };
        Ok((builder.build()?, options))
    }
}

/// Returns a number, or `None` for -1, which means no limit, the default, or a random one.
fn unless_negative(number: i64) -> Option<usize> {
    usize::try_from(number).ok()
}

/// Returns the template in a file, or a name or a template as it is.
fn chat_template(template: &str) -> Result<String> {
    // Both marks are Jinja's, and rare in file names.
    let jinja = template.contains("{{") || template.contains("{%");
    if jinja || realm::template_names().any(|name| name == template) {
        return Ok(template.to_owned());
    }
    std::fs::read_to_string(template).with_context(|| {
        let names = realm::template_names().collect::<Vec<_>>().join(", ");
        format!("--chat-template: `{template}` is no file that can be read, and none of {names}")
    })
}

/// The adapter on the model.
#[derive(clap::Args)]
pub(crate) struct AdapterOptions {
    /// A LoRA adapter (a GGUF file, or a folder that PEFT saved), and a factor on what it adds
    #[arg(long, value_name = "PATH[=SCALE]")]
    lora: Option<String>,
}

impl AdapterOptions {
    /// Loads the adapter, if there is one.
    pub(crate) fn load(&self, model: &Model) -> Result<Option<(Adapter, f32)>> {
        let Some(lora) = &self.lora else { return Ok(None) };
        // A path may have an equals sign of its own.
        let scaled = lora.rsplit_once('=').and_then(|(path, scale)| Some((path, scale.parse().ok()?)));
        let (path, scale) = scaled.unwrap_or((lora, 1.0));
        Ok(Some((model.load_adapter(path)?, scale)))
    }
}

/// Returns the request with the adapter, if there is one.
pub(crate) fn adapted(request: Request, adapter: &Option<(Adapter, f32)>) -> Request {
    match adapter {
        Some((adapter, scale)) => request.adapter(adapter).adapter_scale(*scale),
        None => request,
    }
}

/// The options of generation.
#[derive(clap::Args)]
pub(crate) struct SamplingOptions {
    /// Tokens to generate at most; -1 for as many as the context holds
    #[arg(long, default_value_t = 512, allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..))]
    max_tokens: i64,
    /// 0 always takes the likeliest token
    #[arg(long, default_value_t = Sampling::default().temperature, allow_negative_numbers = true)]
    temperature: f32,
    /// Keep the likeliest tokens that together reach this probability
    #[arg(long, default_value_t = Sampling::default().top_p, allow_negative_numbers = true)]
    top_p: f32,
    /// Keep this many of the likeliest tokens; 0 or -1 keeps all
    #[arg(
        long,
        default_value_t = Sampling::default().top_k as i64,
        allow_negative_numbers = true,
        value_parser = clap::value_parser!(i64).range(-1..)
    )]
    top_k: i64,
    /// Keep tokens at least this times as likely as the likeliest
    #[arg(long, default_value_t = Sampling::default().min_p, allow_negative_numbers = true)]
    min_p: f32,
    /// Penalty on tokens that occurred lately; 1 for none
    #[arg(long, default_value_t = Sampling::default().repetition_penalty, allow_negative_numbers = true)]
    repeat_penalty: f32,
    /// Same seed, same text; -1 for a random one, which is the default
    #[arg(long, allow_negative_numbers = true, value_parser = seed)]
    seed: Option<i128>,
    /// End the text before this string; may be given several times
    #[arg(long, allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Never generate this token; may be given several times
    #[arg(long, value_name = "TOKEN")]
    ban: Vec<u32>,
}

impl SamplingOptions {
    pub(crate) fn apply(&self, mut request: Request) -> Request {
        request.sampling = Sampling {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: unless_negative(self.top_k).unwrap_or(0),
            min_p: self.min_p,
            repetition_penalty: self.repeat_penalty,
            seed: self.seed.and_then(|seed| u64::try_from(seed).ok()),
            banned_tokens: self.ban.clone(),
            ..Sampling::default()
        };
        request.max_tokens = unless_negative(self.max_tokens);
        request.stop.clone_from(&self.stop);
        request
    }
}

/// Parses -1 or a number of 64 bits.
fn seed(text: &str) -> Result<i128, String> {
    match text.parse() {
        Ok(seed) if (-1..=i128::from(u64::MAX)).contains(&seed) => Ok(seed),
        _ => Err(format!("a seed is from 0 to {}, or -1 for another one every time", u64::MAX)),
    }
}

/// The grammar of the text.
#[derive(clap::Args)]
#[group(multiple = false)]
pub(crate) struct GrammarOptions {
    /// Answer with JSON that this JSON schema allows: the schema itself, or a file
    #[arg(long, value_name = "FILE|JSON")]
    json_schema: Option<String>,
    /// Answer with a JSON object
    #[arg(long)]
    json: bool,
    /// Answer with text that this regular expression matches
    #[arg(long, value_name = "EXPRESSION", allow_hyphen_values = true)]
    regex: Option<String>,
    /// Answer with text of the grammar in this file, Lark or GBNF
    #[arg(long, value_name = "FILE")]
    grammar: Option<PathBuf>,
}

impl GrammarOptions {
    pub(crate) fn apply(&self, request: Request) -> Result<Request> {
        let read = |path: &std::path::Path| {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {path:?}"))
        };
        if let Some(schema) = &self.json_schema {
            // File names hardly ever begin like that.
            let inline = schema.trim_start().starts_with('{');
            let text = if inline { schema.clone() } else { read(schema.as_ref())? };
            let schema = serde_json::from_str(&text).context("the JSON schema is no JSON")?;
            return Ok(request.json_schema(schema));
        }
        if let Some(expression) = &self.regex {
            return Ok(request.regex(expression));
        }
        if let Some(path) = &self.grammar {
            return Ok(request.lark(read(path)?));
        }
        Ok(if self.json { request.json() } else { request })
    }
}
