//! Requests that a tenant's program answers.

use std::sync::Arc;
use std::task::{Context, Poll};

use realm_sandbox::Reply;

use super::Program;
use crate::error::ErrorCode;
use crate::generation::ChunkSource;
use crate::model::LocalModel;
use crate::{Chunk, Error, Generation, Request, SharedPrefix, Speculation, ToolChoice};

impl LocalModel {
    /// Runs a tenant's program to answer a request. The program's output is not searched for tool calls: the
    /// program may have called the tools itself and write about that.
    pub(crate) fn run_program(&self, program: &Program, request: Request) -> Result<Generation, Error> {
        if matches!(request.tool_choice, ToolChoice::Required | ToolChoice::Function(_)) {
            let why = "programs decide on calls themselves: leave `tool_choice` out, or tell them by `input`";
            return Err(Error::new(ErrorCode::InvalidArgument, why));
        }
        if !request.logits_processors.is_empty() {
            let why = "programs choose tokens themselves: leave `logits_processors` out";
            return Err(Error::new(ErrorCode::InvalidArgument, why));
        }
        if request.logprobs.is_some() || request.speculation.is_some_and(|s| s != Speculation::Off) {
            let why = "programs send no log-probabilities and decide on speculation themselves: leave `logprobs` and `speculation` out";
            return Err(Error::new(ErrorCode::InvalidArgument, why));
        }
        let shared_prefix = match request.shared_prefix {
            SharedPrefix::Nothing => 0,
            _ => self.shared_prefix(&request, &self.fitting_tokens(&request)?)?,
        };
        let (prompt, adapter) = (self.prompt(&request)?, self.adapter_of(&request)?);
        let request = realm_sandbox::Request {
            prompt,
            sampling: request.sampling,
            max_tokens: request.max_tokens,
            stop: request.stop,
            grammar: request.grammar,
            ignore_eos: request.ignore_eos,
            input: request.input,
            adapter,
            shared_prefix,
        };
        let reply = program.run(&self.loaded, &self.tenant.inner, &self.tenant.programs, request)?;
        Ok(Generation::of_source(Box::new(reply), Some(Arc::clone(&self.loaded))))
    }
}

impl ChunkSource for Reply {
    fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Chunk, Error>>> {
        self.chunks.poll_recv(context).map(|chunk| chunk.map(|chunk| Ok(chunk?.into())))
    }
}
