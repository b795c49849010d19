//! The answer of a running request.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use realm::{Chunk, Generation};
use realm_protocol::{ApiError, Gate, Permit};
use realm_rpc::v1;
use tonic::Status;

use super::{convert, status};

/// The chunks of a generation. Dropping it, as the client leaves, ends the request.
pub(super) struct Chunks {
    generation: Generation,
    gate: Arc<dyn Gate>,
    /// Counts the tokens; `None` after the end.
    permit: Option<Box<dyn Permit>>,
    /// The request's id.
    id: String,
}

impl Chunks {
    pub(super) fn new(
        (generation, permit): (Generation, Box<dyn Permit>),
        gate: &Arc<dyn Gate>,
        id: &str,
    ) -> Self {
        Self { generation, gate: Arc::clone(gate), permit: Some(permit), id: id.to_owned() }
    }

    fn counted(&mut self, chunk: Chunk) -> v1::Chunk {
        if let Some(permit) = &mut self.permit {
            permit.generated(chunk.tokens.len());
            if let Some(finish) = &chunk.finish {
                permit.finished(&finish.usage);
                // Its next request may come as soon as the client has the last chunk.
                self.permit = None;
            }
        }
        convert::chunk(chunk)
    }
}

impl futures_core::Stream for Chunks {
    type Item = Result<v1::Chunk, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = Pin::new(&mut self.generation).poll_next(context);
        next.map(|next| {
            Some(match next? {
                Ok(chunk) => Ok(self.counted(chunk)),
                Err(error) => {
                    self.permit = None;
                    Err(status::of(&self.gate.shown(ApiError::from(error)), &self.id))
                }
            })
        })
    }
}
