//! Options that several commands share.

use anyhow::Result;
use realm::{LoadOptions, Model, Realm, Request, Sampling, Speculation};

use crate::progress::Bars;

/// Which model, and where it runs.
#[derive(clap::Args)]
pub(crate) struct ModelOptions {
    /// A GGUF file, a catalog name (see `realm models list`), or hf:owner/repo/file.gguf
    pub(crate) model: String,
    /// Threads that compute [default: one for each core]
    #[arg(long)]
    threads: Option<usize>,
    /// Where the model runs
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Tokens that the KV cache holds [default: 16384, or what fits in 2 GiB]
    #[arg(long)]
    context: Option<usize>,
    /// Compute tokens that are likely to follow along with the last one, while that makes texts faster: from the prompt
    /// and the text themselves, or by a draft model
    #[arg(long, value_enum, default_value_t = Speculate::Auto)]
    speculate: Speculate,
    /// A smaller model of the same vocabulary that drafts
    #[arg(long)]
    draft_model: Option<String>,
}

/// Where drafts come from.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Speculate {
    /// Wherever there are any
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
        self.load_with(self.context)
    }

    /// Loads with a KV cache of so many tokens, unless the user said how many.
    pub(crate) fn load_with(&self, kv_tokens: Option<usize>) -> Result<Model> {
        let mut builder = Realm::builder().device(&self.device);
        if let Some(threads) = self.threads {
            builder = builder.threads(threads);
        }
        let options = LoadOptions {
            kv_tokens: self.context.or(kv_tokens),
            speculation: self.speculate.into(),
            draft_model: self.draft_model.clone(),
            ..LoadOptions::default()
        };
        Ok(builder.build()?.load_model_with(&self.model, &options, &mut Bars::new())?)
    }
}

/// How text is generated.
#[derive(clap::Args)]
pub(crate) struct SamplingOptions {
    /// Tokens to generate at most
    #[arg(long, default_value_t = 512)]
    max_tokens: usize,
    /// 0 always takes the likeliest token
    #[arg(long, default_value_t = Sampling::default().temperature)]
    temperature: f32,
    /// Keep the likeliest tokens that together reach this probability
    #[arg(long, default_value_t = Sampling::default().top_p)]
    top_p: f32,
    /// Keep so many of the likeliest tokens; 0 keeps all
    #[arg(long, default_value_t = Sampling::default().top_k)]
    top_k: usize,
    /// Keep tokens at least this times as likely as the likeliest
    #[arg(long, default_value_t = Sampling::default().min_p)]
    min_p: f32,
    /// Penalty on tokens that occurred lately; 1 for none
    #[arg(long, default_value_t = Sampling::default().repetition_penalty)]
    repeat_penalty: f32,
    /// Same seed, same text [default: another one every time]
    #[arg(long)]
    seed: Option<u64>,
    /// End the text before this string; may be given several times
    #[arg(long)]
    stop: Vec<String>,
}

impl SamplingOptions {
    pub(crate) fn apply(&self, mut request: Request) -> Request {
        request.sampling = Sampling {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            repetition_penalty: self.repeat_penalty,
            seed: self.seed,
            ..Sampling::default()
        };
        request.max_tokens = Some(self.max_tokens);
        request.stop.clone_from(&self.stop);
        request
    }
}
