//! The seam to a server: what the public types ask of a model that another process computes.
//!
//! Everything that needs a network implements these traits (`grpc/`, with the feature `remote`). The rest of
//! the crate knows that a model may be elsewhere, and nothing of how it is reached.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use realm_engine::{Forwarded, Output, Scored};
use realm_tokenizer::Tokenizer;

use crate::error::ErrorCode;
use crate::generation::ChunkSource;
use crate::identity::Identity;
use crate::{Adapter, EmbedOptions, Error, Generation, LoadOptions, ModelInfo, Request};

/// A call that runs on any executor. Dropping it ends the call.
pub(crate) type Call<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// A model's adapter, with its factor.
pub(crate) type Adapted = Option<(Adapter, f32)>;

/// A server, as the holder of one of its keys sees it.
pub(crate) trait Server: Send + Sync {
    /// The address that the caller gave.
    fn url(&self) -> &str;

    /// The tenant of the key.
    fn tenant(&self) -> &Arc<Identity>;

    /// Finds a model by the name that the server has for it.
    fn model(&self, name: String) -> Call<Arc<dyn ServedModel>>;

    /// Reads a model's tokenizer.
    fn load_tokenizer(&self, model: String) -> Call<Tokenizer>;
}

/// A model that a server has.
pub(crate) trait ServedModel: Send + Sync {
    fn name(&self) -> &str;

    fn info(&self) -> &ModelInfo;

    fn tokenizer(&self) -> &Tokenizer;

    /// Finds an adapter by the name that the server has for it.
    fn adapter(&self, name: String) -> Call<Adapter>;

    /// Starts a request.
    fn stream(&self, request: Request) -> Call<Box<dyn ChunkSource>>;

    /// Returns the tokens of a request's prompt, and the most of its answer.
    fn count(&self, request: Request) -> Call<(usize, usize)>;

    /// Returns a conversation's text and tokens.
    fn render(&self, request: Request) -> Call<(String, Vec<u32>)>;

    fn embed(&self, adapted: &Adapted, tokens: Vec<u32>, options: &EmbedOptions) -> Call<Vec<f32>>;

    fn score(&self, adapted: &Adapted, tokens: Vec<u32>, top: usize) -> Call<Vec<Scored>>;

    /// Returns the scores of the tokens of `continuation`.
    fn score_continuation(
        &self,
        adapted: &Adapted,
        prompt: Vec<u32>,
        continuation: Vec<u32>,
    ) -> Call<Vec<Scored>>;

    /// Creates a sequence, or restores it with its tokens.
    fn sequence(&self, adapted: &Adapted, saved: Option<Saved>) -> Call<(Box<dyn ServedSequence>, Vec<u32>)>;
}

/// A saved sequence.
#[cfg_attr(not(feature = "remote"), allow(dead_code, reason = "no server is ever connected to"))]
pub(crate) struct Saved {
    pub(crate) bytes: Vec<u8>,
    /// True for one that a realm with another key saved.
    pub(crate) foreign: bool,
}

/// A sequence that a server has. Calls are sent when they are made, and run in that order. Dropping the
/// sequence frees it there.
pub(crate) trait ServedSequence: Send + Sync {
    /// The longest length that it may have, in tokens.
    fn context_length(&self) -> usize;

    fn append(&self, tokens: Vec<u32>) -> Call<()>;

    /// Computes the tokens that were appended, and refuses if the sequence has another length.
    fn forward(&self, output: Output, length: usize) -> Call<Forwarded>;

    fn fork(&self) -> Call<Box<dyn ServedSequence>>;

    fn truncate(&self, length: usize) -> Call<()>;

    fn save(&self) -> Call<Vec<u8>>;
}

/// A server's model, as a caller holds it.
#[derive(Clone)]
pub(crate) struct RemoteModel {
    pub(crate) served: Arc<dyn ServedModel>,
    /// The tenant of the caller's key.
    pub(crate) tenant: Arc<Identity>,
    /// The adapter, with its factor, of every request that names no adapter of its own.
    pub(crate) adapter: Adapted,
    /// True if the caller gave it a program of this process.
    pub(crate) foreign_program: bool,
}

impl RemoteModel {
    /// Starts a request.
    pub(crate) async fn stream(&self, request: Request) -> Result<Generation, Error> {
        let source = self.served.stream(self.equipped(request)?).await?;
        Ok(Generation::of_source(source, None))
    }

    /// Gives a request the model's adapter, unless it has its own, and refuses what no server can do.
    pub(crate) fn equipped(&self, mut request: Request) -> Result<Request, Error> {
        if !request.logits_processors.is_empty() {
            let why = "logits processors are functions of this process, which a server can't call; give its tenant a program \
                       instead, or drive a `Sequence`";
            return Err(Error::new(ErrorCode::Unsupported, why));
        }
        if self.foreign_program || self.tenant.programs.answer() {
            let why = "the program is one of this process, and the model is a server's; put it there with `realm admin programs put`, \
                       and make it the tenant's";
            return Err(Error::new(ErrorCode::Unsupported, why));
        }
        if request.adapter.is_none()
            && let Some((adapter, scale)) = &self.adapter
        {
            (request.adapter, request.adapter_scale) = (Some(adapter.clone()), *scale);
        }
        Ok(request)
    }

    /// The error for something that a server's model does not have.
    pub(crate) fn lacks(&self, what: &str) -> Error {
        let name = self.served.name();
        let why = format!(
            "`{name}` is a model of a server, and {what} stays there; load the model in this process to have it"
        );
        Error::new(ErrorCode::Unsupported, why)
    }
}

/// Refuses options of loading, which are the server's to choose.
///
/// # Errors
/// `unsupported` for any option that is not the default.
pub(crate) fn refuse_options(options: &LoadOptions) -> Result<(), Error> {
    if *options == LoadOptions::default() {
        return Ok(());
    }
    let why = "a server loads its models itself; set the options in its configuration, or by `realm admin models load`";
    Err(Error::new(ErrorCode::Unsupported, why))
}
