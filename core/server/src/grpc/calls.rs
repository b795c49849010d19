//! The calls of `realm.v1`, of one caller.

use std::pin::Pin;
use std::task::{Context, Poll};

use realm::{EmbedOptions, Model, unblock};
use realm_protocol::{ApiError, Models};
use realm_rpc::v1;
use realm_rpc::v1::realm_server::Realm;
use tonic::{Request, Status, Streaming};

use super::chunks::Chunks;
use super::context::{Answer, Calls};
use super::convert;
use super::sequences::{Results, Session};

/// The bytes of a file in one message.
const PART: usize = 1 << 20;

impl Calls {
    /// Returns the model of a request, with what it names besides, and the request.
    async fn request(&self, asked: v1::GenerateRequest) -> Result<(Model, realm::Request), ApiError> {
        let convert::Asked { model, extras, request } = convert::request(asked)?;
        let model = self.models.model(&model).await?;
        Ok((self.models.equipped(model, &extras).await?, request))
    }

    async fn started(&self, asked: v1::GenerateRequest) -> Result<Chunks, ApiError> {
        let (model, request) = self.request(asked).await?;
        let started = realm_protocol::start(&model, request, &self.gate).await?;
        Ok(Chunks::new(started, &self.gate, &self.call.id))
    }

    async fn counted(&self, asked: v1::GenerateRequest) -> Result<v1::CountResponse, ApiError> {
        let (model, request) = self.request(asked).await?;
        let prepared = unblock(move || model.prepare_request(request)).await?;
        Ok(v1::CountResponse {
            prompt_tokens: prepared.prompt_tokens() as u64,
            max_tokens: prepared.max_tokens() as u64,
        })
    }

    async fn rendered(&self, asked: v1::GenerateRequest) -> Result<v1::RenderResponse, ApiError> {
        let (model, request) = self.request(asked).await?;
        let render = move || Ok((model.render(&request)?, model.render_tokens(&request)?));
        let (text, tokens) = unblock(render).await?;
        Ok(v1::RenderResponse { text, tokens })
    }

    async fn embedded(&self, mut asked: v1::EmbedRequest) -> Result<v1::EmbedResponse, ApiError> {
        let (options, inputs) = (convert::embed_options(&asked)?, std::mem::take(&mut asked.inputs));
        let model = self.model(&asked.model, asked.adapter).await?;
        let encoder = model.clone();
        let encode = move || {
            inputs.into_iter().map(|input| convert::tokens(Some(input), "inputs", &encoder)).collect()
        };
        let texts: Vec<Vec<u32>> = unblock(move || Ok::<Result<_, _>, _>(encode())).await??;
        let tokens = texts.iter().map(Vec::len).sum();
        let _permit = self.gate.admit(tokens, 0)?;
        let vectors = vectors(&model, texts, &options).await?;
        Ok(v1::EmbedResponse { vectors, tokens: tokens as u64 })
    }

    async fn scored(&self, asked: v1::ScoreRequest) -> Result<v1::ScoreResponse, ApiError> {
        let model = self.model(&asked.model, asked.adapter).await?;
        let (encoder, input, continuation) = (model.clone(), asked.input, asked.continuation);
        let encode = move || {
            let tokens = convert::tokens(input, "input", &encoder)?;
            let continuation = continuation.map(|text| convert::tokens(Some(text), "continuation", &encoder));
            Ok::<_, ApiError>((tokens, continuation.transpose()?))
        };
        let (tokens, continuation) = unblock(move || Ok(encode())).await??;
        let all = tokens.len() + continuation.as_ref().map_or(0, Vec::len);
        let _permit = self.gate.admit(all, 0)?;
        let scores = match continuation {
            None => convert::scores(model.score_async(&tokens, asked.top as usize).await?),
            Some(_) if asked.top > 0 => {
                let why = "top is for a text without a continuation; leave one of both out";
                return Err(ApiError::invalid("top", why));
            }
            Some(continuation) => {
                let likelihoods = model.log_likelihood_async(&tokens, &continuation).await?;
                likelihoods.into_iter().map(|next| v1::Scored { next: Some(next), top: Vec::new() }).collect()
            }
        };
        Ok(v1::ScoreResponse { scores })
    }

    async fn tokenized(&self, asked: v1::TokenizeRequest) -> Result<v1::TokenizeResponse, ApiError> {
        let model = self.models.model(&asked.model).await?;
        let boundaries = asked.boundaries.unwrap_or(true);
        let encode = move || Ok(model.encode_special(&asked.text, asked.special, boundaries));
        Ok(v1::TokenizeResponse { tokens: unblock(encode).await? })
    }

    async fn detokenized(&self, asked: v1::DetokenizeRequest) -> Result<v1::DetokenizeResponse, ApiError> {
        let model = self.models.model(&asked.model).await?;
        Ok(v1::DetokenizeResponse { text: unblock(move || model.decode(&asked.tokens)).await? })
    }

    async fn tokenizer(&self, asked: v1::GetModelRequest) -> Result<Parts, ApiError> {
        let model = self.models.model(&asked.model).await?;
        let file = unblock(move || model.tokenizer_file()).await?;
        Ok(Parts(file.chunks(PART).map(<[u8]>::to_vec).collect::<Vec<_>>().into_iter()))
    }

    async fn facts(&self, asked: v1::GetModelRequest) -> Result<v1::Model, ApiError> {
        let model = self.models.model(&asked.model).await?;
        Ok(convert::model(&asked.model, model.info()))
    }

    async fn adapter(&self, asked: v1::GetAdapterRequest) -> Result<v1::Adapter, ApiError> {
        self.models.model(&asked.model).await?;
        let adapter = self.models.adapter(&asked.adapter)?;
        let (rank, bytes) = (adapter.rank() as u64, adapter.bytes() as u64);
        Ok(v1::Adapter { name: asked.adapter, rank, bytes })
    }

    fn entries(&self) -> Result<v1::ListModelsResponse, ApiError> {
        let entry =
            |entry: realm_protocol::ModelEntry| v1::ModelEntry { name: entry.name, created: entry.created };
        Ok(v1::ListModelsResponse { models: self.models.list()?.into_iter().map(entry).collect() })
    }
}

/// Computes a vector for each text; the library bounds how many at once.
async fn vectors(
    model: &Model,
    texts: Vec<Vec<u32>>,
    options: &EmbedOptions,
) -> Result<Vec<v1::Vector>, ApiError> {
    let vectors = match &texts[..] {
        // The failure of one among several says which one.
        [tokens] => vec![model.embed_async(tokens, options).await?],
        _ => model.embed_many_async(texts, options).await?,
    };
    Ok(vectors.into_iter().map(|values| v1::Vector { values }).collect())
}

/// The parts of a file.
pub(super) struct Parts(std::vec::IntoIter<Vec<u8>>);

impl futures_core::Stream for Parts {
    type Item = Result<v1::FilePart, Status>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.next().map(|data| Ok(v1::FilePart { data })))
    }
}

#[tonic::async_trait]
impl Realm for Calls {
    type GenerateStream = Chunks;
    type GetTokenizerStream = Parts;
    type SequencesStream = Results;

    async fn get_tenant(&self, _: Request<v1::GetTenantRequest>) -> Answer<v1::GetTenantResponse> {
        let tenant = self.caller.tenant.tenant();
        self.answer(Ok(v1::GetTenantResponse {
            name: tenant.name().to_owned(),
            limits: Some(convert::limits(&tenant.limits())),
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }

    async fn list_models(&self, _: Request<v1::ListModelsRequest>) -> Answer<v1::ListModelsResponse> {
        self.answer(self.entries())
    }

    async fn get_model(&self, asked: Request<v1::GetModelRequest>) -> Answer<v1::Model> {
        self.answer(self.facts(asked.into_inner()).await)
    }

    async fn get_adapter(&self, asked: Request<v1::GetAdapterRequest>) -> Answer<v1::Adapter> {
        self.answer(self.adapter(asked.into_inner()).await)
    }

    async fn get_tokenizer(&self, asked: Request<v1::GetModelRequest>) -> Answer<Parts> {
        self.answer(self.tokenizer(asked.into_inner()).await)
    }

    async fn generate(&self, asked: Request<v1::GenerateRequest>) -> Answer<Chunks> {
        self.answer(self.started(asked.into_inner()).await)
    }

    async fn count(&self, asked: Request<v1::GenerateRequest>) -> Answer<v1::CountResponse> {
        self.answer(self.counted(asked.into_inner()).await)
    }

    async fn render(&self, asked: Request<v1::GenerateRequest>) -> Answer<v1::RenderResponse> {
        self.answer(self.rendered(asked.into_inner()).await)
    }

    async fn embed(&self, asked: Request<v1::EmbedRequest>) -> Answer<v1::EmbedResponse> {
        self.answer(self.embedded(asked.into_inner()).await)
    }

    async fn score(&self, asked: Request<v1::ScoreRequest>) -> Answer<v1::ScoreResponse> {
        self.answer(self.scored(asked.into_inner()).await)
    }

    async fn tokenize(&self, asked: Request<v1::TokenizeRequest>) -> Answer<v1::TokenizeResponse> {
        self.answer(self.tokenized(asked.into_inner()).await)
    }

    async fn detokenize(&self, asked: Request<v1::DetokenizeRequest>) -> Answer<v1::DetokenizeResponse> {
        self.answer(self.detokenized(asked.into_inner()).await)
    }

    async fn sequences(&self, commands: Request<Streaming<v1::SequenceCommand>>) -> Answer<Results> {
        self.answer(Ok(Session::start(self.clone(), commands.into_inner())))
    }
}
