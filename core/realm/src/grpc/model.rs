//! A model of the server.

use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use realm_engine::Scored;
use realm_rpc::v1;
use realm_tokenizer::Tokenizer;
use tonic::{Response, Status, Streaming};

use super::sequences::Sessions;
use super::{Client, convert, status};
use crate::error::ErrorCode;
use crate::generation::ChunkSource;
use crate::remote::{Adapted, Call, Saved, ServedModel, ServedSequence};
use crate::{Adapter, Chunk, EmbedOptions, Error, ModelInfo, Request};

/// A model that the server has under a name.
pub(super) struct Served {
    pub(super) client: Client,
    pub(super) name: String,
    pub(super) info: ModelInfo,
    pub(super) tokenizer: Tokenizer,
    pub(super) sessions: Sessions,
}

impl Served {
    /// Makes a call with a message that may fail to be made.
    fn call<Q, A, F, T>(
        &self,
        message: Result<Q, Error>,
        send: impl FnOnce(Client, Q) -> F + Send + 'static,
        read: impl FnOnce(A) -> Result<T, Error> + Send + 'static,
    ) -> Call<T>
    where
        Q: Send + 'static,
        F: Future<Output = Result<Response<A>, Status>> + Send + 'static,
        A: Send + 'static,
        T: 'static,
    {
        let client = self.client.clone();
        Box::pin(async move { read(send(client, message?).await.map_err(status::error)?.into_inner()) })
    }

    fn score_request(
        &self,
        adapted: &Adapted,
        tokens: Vec<u32>,
        top: usize,
        continuation: Option<Vec<u32>>,
    ) -> Call<Vec<Scored>> {
        let asked = convert::adapter_use(adapted).map(|adapter| v1::ScoreRequest {
            model: self.name.clone(),
            input: Some(convert::tokens(tokens)),
            top: u32::try_from(top).unwrap_or(u32::MAX),
            continuation: continuation.map(convert::tokens),
            adapter,
        });
        self.call(
            asked,
            |mut client, asked| async move { client.score(asked).await },
            |answer: v1::ScoreResponse| Ok(convert::scores(answer.scores)),
        )
    }
}

impl ServedModel for Served {
    fn name(&self) -> &str {
        &self.name
    }

    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn adapter(&self, name: String) -> Call<Adapter> {
        let asked = v1::GetAdapterRequest { model: self.name.clone(), adapter: name };
        self.call(
            Ok(asked),
            |mut client, asked| async move { client.get_adapter(asked).await },
            |found: v1::Adapter| {
                Ok(Adapter::of_server(found.name, convert::size(found.rank), convert::size(found.bytes)))
            },
        )
    }

    fn stream(&self, request: Request) -> Call<Box<dyn ChunkSource>> {
        self.call(
            convert::request(&self.name, request),
            |mut client, asked| async move { client.generate(asked).await },
            |chunks| Ok(Box::new(Chunks(Mutex::new(chunks))) as Box<dyn ChunkSource>),
        )
    }

    fn count(&self, request: Request) -> Call<(usize, usize)> {
        self.call(
            convert::request(&self.name, request),
            |mut client, asked| async move { client.count(asked).await },
            |counted: v1::CountResponse| {
                Ok((convert::size(counted.prompt_tokens), convert::size(counted.max_tokens)))
            },
        )
    }

    fn render(&self, request: Request) -> Call<(String, Vec<u32>)> {
        self.call(
            convert::request(&self.name, request),
            |mut client, asked| async move { client.render(asked).await },
            |rendered: v1::RenderResponse| Ok((rendered.text, rendered.tokens)),
        )
    }

    fn embed(&self, adapted: &Adapted, tokens: Vec<u32>, options: &EmbedOptions) -> Call<Vec<f32>> {
        let asked = convert::adapter_use(adapted).map(|adapter| v1::EmbedRequest {
            model: self.name.clone(),
            inputs: vec![convert::tokens(tokens)],
            pooling: convert::pooling(options.pooling),
            normalize: Some(options.normalize),
            adapter,
        });
        self.call(
            asked,
            |mut client, asked| async move { client.embed(asked).await },
            |mut answer: v1::EmbedResponse| {
                let lacking = || Error::new(ErrorCode::Internal, "the server sent no vector");
                Ok(answer.vectors.pop().ok_or_else(lacking)?.values)
            },
        )
    }

    fn score(&self, adapted: &Adapted, tokens: Vec<u32>, top: usize) -> Call<Vec<Scored>> {
        self.score_request(adapted, tokens, top, None)
    }

    fn score_continuation(
        &self,
        adapted: &Adapted,
        prompt: Vec<u32>,
        continuation: Vec<u32>,
    ) -> Call<Vec<Scored>> {
        self.score_request(adapted, prompt, 0, Some(continuation))
    }

    fn sequence(&self, adapted: &Adapted, saved: Option<Saved>) -> Call<(Box<dyn ServedSequence>, Vec<u32>)> {
        let opened = convert::adapter_use(adapted)
            .and_then(|adapter| self.sessions.open(&self.client, &self.name, adapter, saved));
        Box::pin(async move {
            let (sequence, tokens) = opened?.await?;
            Ok((Box::new(sequence) as Box<dyn ServedSequence>, tokens))
        })
    }
}

/// The answer of a running request. Dropping it resets the call's stream, which ends the request.
// The mutex is never waited for: it makes the stream's decoder one that threads may share.
struct Chunks(Mutex<Streaming<v1::Chunk>>);

impl ChunkSource for Chunks {
    fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Chunk, Error>>> {
        use futures_core::Stream;
        let chunks = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        std::pin::Pin::new(chunks)
            .poll_next(context)
            .map(|next| next.map(|chunk| convert::chunk(chunk.map_err(status::error)?)))
    }
}
