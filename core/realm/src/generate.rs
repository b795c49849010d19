//! Requests that the engine answers: from a prompt to a stream, or to the whole answer.

use realm_handover::block_on;

use crate::answer::AnswerReader;
use crate::error::ErrorCode;
use crate::model::{Inner, LocalModel};
use crate::prepared::Work;
use crate::prompt::shown_tools;
use crate::thought::ThoughtStream;
use crate::tools::ToolStream;
use crate::{
    Completion, Error, Generation, Grammar, Model, PreparedRequest, Prompt, ReasoningFormat, Request,
    ToolChoice,
};

/// The warning of a request with tools whose chat template has no place for them.
const NO_TOOLS: &str = "the model's chat template knows no tools: Realm tells the model of them in words, which works less well than \
     a model that was trained to call tools";

impl Model {
    /// Starts a request and returns its stream at once.
    ///
    /// # Errors
    /// `invalid-argument` and `limit-exceeded` say what is wrong with the request, or which limit of the
    /// tenant it reached; `overloaded` if too many requests wait already.
    pub fn stream(&self, request: Request) -> Result<Generation, Error> {
        match &self.inner {
            Inner::Local(model) => model.prepare_request(request)?.start(),
            Inner::Remote(model) => block_on(model.stream(request)),
        }
    }

    /// Renders and tokenizes a request without starting it, for callers that have to know its size first.
    ///
    /// # Errors
    /// Same as [`stream`](Self::stream), except for those that [`PreparedRequest::start`] returns.
    pub fn prepare_request(&self, request: Request) -> Result<PreparedRequest, Error> {
        match &self.inner {
            Inner::Local(model) => model.prepare_request(request),
            Inner::Remote(model) => {
                let request = model.equipped(request)?;
                let (prompt_tokens, max_tokens) = block_on(model.served.count(request.clone()))?;
                let (model, request) = (model.clone(), Box::new(request));
                Ok(PreparedRequest { work: Work::Remote { model, request, prompt_tokens, max_tokens } })
            }
        }
    }

    /// Runs a request to its end. Blocks.
    ///
    /// # Errors
    /// Same as [`stream`](Self::stream), and the error that ended the request early.
    pub fn generate(&self, request: Request) -> Result<Completion, Error> {
        self.stream(request)?.finish()
    }

    /// Runs a request to its end, for tasks.
    ///
    /// # Errors
    /// Same as [`generate`](Self::generate).
    pub async fn generate_async(&self, request: Request) -> Result<Completion, Error> {
        let generation = match &self.inner {
            Inner::Local(_) => self.stream(request)?,
            Inner::Remote(model) => model.stream(request).await?,
        };
        generation.finish_async().await
    }
}

impl LocalModel {
    fn prepare_request(&self, mut request: Request) -> Result<PreparedRequest, Error> {
        if !request.adapter_scale.is_finite() {
            let why = format!("adapter_scale is {}; it must be finite", request.adapter_scale);
            return Err(Error::new(ErrorCode::InvalidArgument, why));
        }
        realm_engine::check_stops(&request.stop)?;
        request.check_prompt()?;
        #[cfg(feature = "sandbox")]
        if let Some(program) = self.program.clone().or_else(|| self.tenant.programs.answering()) {
            let request = Box::new(request);
            return Ok(PreparedRequest { work: Work::Program { model: self.clone(), program, request } });
        }
        let tools = self.tools(&mut request)?;
        let warnings = self.warnings(&request);
        if !request.input.is_null() {
            let why = "`input` is for a program, and the tenant has none; see `Tenant::set_program`";
            return Err(Error::new(ErrorCode::InvalidArgument, why));
        }
        let prompt = self.fitting_tokens(&request)?;
        let shared_prefix = self.shared_prefix(&request, &prompt)?;
        let adapter = self.adapter_of(&request)?;
        // A prompt of plain text is not a conversation, so nothing in its continuation is a thought's mark.
        let spelling = self.frontend.thought_spelling.as_ref();
        let spelling = spelling.filter(|_| matches!(request.prompt, Prompt::Chat(_)));
        let thought = spelling.and_then(|spelling| match final_words(&request) {
            Some(words) => spelling.going_on(words),
            None => Some(spelling.after(&prompt, &self.loaded.tokenizer)),
        });
        let mut spelled = spelling.map_or_else(Vec::new, |spelling| spelling.control.clone());
        if tools.is_some() {
            spelled.extend(self.frontend.tool_spelling.spelled());
        }
        let whole = request.reasoning_format == ReasoningFormat::Inline;
        let answer = AnswerReader {
            thought: match (spelling, &thought) {
                (Some(spelling), Some(thought)) => Some(ThoughtStream::new(spelling, thought.open, whole)),
                // Tool calls inside a thought are not calls, even if the template shows no thoughts.
                _ => tools.as_ref().map(|_| ThoughtStream::unknown()),
            },
            format: if thought.is_some() { request.reasoning_format } else { ReasoningFormat::Inline },
            tools,
            warnings,
            called: false,
        };
        let processors = std::mem::take(&mut request.logits_processors);
        let request = Box::new(realm_engine::Request {
            prompt,
            sampling: request.sampling,
            max_tokens: request.max_tokens,
            stop: request.stop,
            logprobs: request.logprobs,
            grammar: request.grammar,
            ignore_eos: request.ignore_eos,
            special: false,
            spelled,
            thought,
            shared_prefix,
            adapter,
            speculation: request.speculation,
        });
        let answer = Box::new(answer);
        Ok(PreparedRequest { work: Work::Engine { model: self.clone(), request, processors, answer } })
    }

    /// Returns the reader of tool calls, if the answer may have any; a required call becomes the request's
    /// grammar.
    fn tools(&self, request: &mut Request) -> Result<Option<ToolStream>, Error> {
        let spelling = &self.frontend.tool_spelling;
        // Text guided by a schema is the answer itself, even if it looks like a call.
        let answers = matches!(request.grammar, Some(Grammar::JsonSchema(_) | Grammar::JsonObject));
        if let Some(call) = request.tool_choice.grammar(&request.tools, spelling)?
            && request.grammar.replace(call).is_some()
        {
            let why = "tool_choice asks for a call, and the request has a grammar or a schema already";
            return Err(Error::new(ErrorCode::InvalidArgument, why));
        }
        if request.tools.is_empty() || request.tool_choice == ToolChoice::None || answers {
            return Ok(None);
        }
        Ok(Some(ToolStream::new(spelling, &request.tools)))
    }

    /// Returns warnings about options that Realm can only serve in another way.
    fn warnings(&self, request: &Request) -> Vec<String> {
        let has_tools = matches!(request.prompt, Prompt::Chat(_)) && !shown_tools(request).is_empty();
        if has_tools && !self.frontend.knows_tools {
            tracing::debug!(model = self.loaded.name, "{NO_TOOLS}");
            return vec![NO_TOOLS.to_owned()];
        }
        Vec::new()
    }

    /// Returns the adapter of a request: its own, or else the model's.
    pub(crate) fn adapter_of(
        &self,
        request: &Request,
    ) -> Result<Option<(realm_engine::Adapter, f32)>, Error> {
        match &request.adapter {
            Some(adapter) => Ok(Some((adapter.of_engine()?.clone(), request.adapter_scale))),
            None => self.engine_adapter(),
        }
    }
}

/// Returns the words that the answer continues, if the request asks for that.
fn final_words(request: &Request) -> Option<&str> {
    match &request.prompt {
        Prompt::Chat(messages) if request.continue_final_message => {
            Some(messages.last()?.0["content"].as_str().unwrap_or_default())
        }
        _ => None,
    }
}
