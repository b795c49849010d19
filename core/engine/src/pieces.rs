//! The forward pass in pieces, driven by a program.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

use realm_handover::Sender as Reply;
use realm_model::{PieceId, Pieces};

use crate::answer::Answer;
use crate::engine::Command;
use crate::{Error, Tenant};

/// A program's own forward pass, in pieces: tensors and caches of its own, and operations on them. Operations
/// are computed in the order of the calls, between steps. Only operations that return an [`Answer`] can be
/// waited for; the next answer reports an error of the operations before it.
pub struct PieceSession {
    id: u64,
    engine: Sender<Command>,
    next: AtomicU64,
    /// Operations that were sent and are not done.
    queued: Arc<AtomicUsize>,
}

/// A command of a session to the engine.
pub(crate) enum PieceCommand {
    Open { id: u64, tenant: Arc<Tenant>, pieces: Box<dyn Pieces>, queued: Arc<AtomicUsize> },
    Do { id: u64, op: PieceOp },
    Close { id: u64 },
}

/// An operation on pieces.
pub(crate) enum PieceOp {
    Upload {
        to: PieceId,
        width: usize,
        values: Vec<f32>,
    },
    Gather {
        x: PieceId,
        rows: Vec<u32>,
        to: PieceId,
    },
    Add {
        x: PieceId,
        other: PieceId,
        scale: f32,
    },
    Embed {
        tokens: Vec<u32>,
        to: PieceId,
    },
    Attention {
        layer: usize,
        x: PieceId,
        rows: usize,
        cache: PieceId,
        to: PieceId,
    },
    FeedForward {
        layer: usize,
        x: PieceId,
        rows: usize,
        to: PieceId,
    },
    MatMul {
        weight: String,
        shape: [usize; 2],
        x: PieceId,
        rows: usize,
        to: PieceId,
    },
    Read {
        x: PieceId,
        reply: Reply<Result<Vec<f32>, Error>>,
    },
    Logits {
        x: PieceId,
        rows: usize,
        reply: Reply<Result<Vec<f32>, Error>>,
    },
    OpenCache {
        cache: PieceId,
        tokens: usize,
    },
    TruncateCache {
        cache: PieceId,
        len: usize,
    },
    Free(PieceId),
    /// Replies once every operation before it is done.
    Flush {
        reply: Reply<Result<(), Error>>,
    },
}

impl PieceOp {
    /// Returns the tensor that the operation makes.
    pub(crate) fn makes(&self) -> Option<PieceId> {
        match *self {
            Self::Upload { to, .. }
            | Self::Gather { to, .. }
            | Self::Embed { to, .. }
            | Self::Attention { to, .. }
            | Self::FeedForward { to, .. }
            | Self::MatMul { to, .. } => Some(to),
            _ => None,
        }
    }
}

impl PieceSession {
    pub(crate) fn open(
        id: u64,
        engine: Sender<Command>,
        tenant: &Arc<Tenant>,
        pieces: Box<dyn Pieces>,
    ) -> Result<Self, Error> {
        let queued = Arc::<AtomicUsize>::default();
        let open = PieceCommand::Open { id, tenant: Arc::clone(tenant), pieces, queued: Arc::clone(&queued) };
        engine.send(Command::Pieces(open)).map_err(|_| Error::Stopped)?;
        Ok(Self { id, engine, next: AtomicU64::new(0), queued })
    }

    fn start(&self, op: PieceOp) -> Result<(), Error> {
        self.queued.fetch_add(1, Ordering::Relaxed);
        self.engine.send(Command::Pieces(PieceCommand::Do { id: self.id, op })).map_err(|_| Error::Stopped)
    }

    fn make(&self, op: impl FnOnce(PieceId) -> PieceOp) -> Result<PieceId, Error> {
        let to = self.next.fetch_add(1, Ordering::Relaxed);
        self.start(op(to))?;
        Ok(to)
    }

    fn ask<T>(&self, op: impl FnOnce(Reply<Result<T, Error>>) -> PieceOp) -> Result<Answer<T>, Error> {
        let (reply, answer) = realm_handover::channel(1);
        self.start(op(reply))?;
        Ok(Answer::new(answer))
    }

    /// The number of operations that were sent and are not done. A caller that sends many without reading
    /// should call [`flush`](Self::flush) now and then.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Returns an answer that waits until every operation sent so far is done.
    ///
    /// # Errors
    /// `Stopped` if the engine has stopped. The answer reports an error of the operations.
    pub fn flush(&self) -> Result<Answer<()>, Error> {
        self.ask(|reply| PieceOp::Flush { reply })
    }

    /// Makes a tensor of `values`, given row by row.
    ///
    /// # Errors
    /// `Stopped` if the engine has stopped.
    pub fn upload(&self, width: usize, values: Vec<f32>) -> Result<PieceId, Error> {
        self.make(|to| PieceOp::Upload { to, width, values })
    }

    /// Reads a tensor's values, row by row.
    ///
    /// # Errors
    /// `Stopped` if the engine has stopped.
    pub fn read(&self, x: PieceId) -> Result<Answer<Vec<f32>>, Error> {
        self.ask(|reply| PieceOp::Read { x, reply })
    }

    /// Makes a tensor of some rows of another.
    ///
    /// # Errors
    /// `Stopped` if the engine has stopped.
    pub fn gather(&self, x: PieceId, rows: Vec<u32>) -> Result<PieceId, Error> {
        self.make(|to| PieceOp::Gather { x, rows, to })
    }

    /// Computes `x += other * scale`.
    ///
    /// # Errors
    /// `Stopped` if the engine has stopped.
    pub fn add(&self, x: PieceId, other: PieceId, scale: f32) -> Result<(), Error> {
        self.start(PieceOp::Add { x, other, scale })
    }

    /// Embeds tokens: makes the input of the first layer, `[tokens, hidden]`.
    ///
    /// # Errors
    /// `Stopped` if the engine has stopped.
    pub fn embed(&self, tokens: Vec<u32>) -> Result<PieceId, Error> {
        self.make(|to| PieceOp::Embed { tokens, to })
    }

    /// Computes a layer's attention over a cache, for a tensor of `rows` rows.
    ///
    /// # Errors
    /// `Stopped` if the engine has stopped.
    pub fn attention(&self, layer: usize, x: PieceId, rows: usize, cache: PieceId) -> Result<PieceId, Error> {
        self.make(|to| PieceOp::Attention { layer, x, rows, cache, to })
    }

    /// Computes a layer's feed-forward network, for a tensor of `rows` rows.
    ///
    /// # Errors
    /// `Stopped` if the engine has stopped.
    pub fn feed_forward(&self, layer: usize, x: PieceId, rows: usize) -> Result<PieceId, Error> {
        self.make(|to| PieceOp::FeedForward { layer, x, rows, to })
    }

    /// Multiplies a tensor of `rows` rows with a weight of `shape` (outputs, inputs), named as in a GGUF
    /// file.
    ///
    /// # Errors
    /// `Stopped` if the engine has stopped.
    pub fn matmul(
        &self,
        weight: String,
        shape: [usize; 2],
        x: PieceId,
        rows: usize,
    ) -> Result<PieceId, Error> {
        self.make(|to| PieceOp::MatMul { weight, shape, x, rows, to })
    }

    /// Computes the logits of a tensor's rows, `[rows, vocab]`.
    ///
    /// # Errors
    /// `Stopped` if the engine has stopped.
    pub fn logits(&self, x: PieceId, rows: usize) -> Result<Answer<Vec<f32>>, Error> {
        self.ask(|reply| PieceOp::Logits { x, rows, reply })
    }

    /// Opens an empty cache for `tokens` tokens.
    ///
    /// # Errors
    /// `Stopped` if the engine has stopped.
    pub fn open_cache(&self, tokens: usize) -> Result<PieceId, Error> {
        self.make(|cache| PieceOp::OpenCache { cache, tokens })
    }

    /// Removes a cache's tokens from index `len` on.
    ///
    /// # Errors
    /// `Stopped` if the engine has stopped.
    pub fn truncate_cache(&self, cache: PieceId, len: usize) -> Result<(), Error> {
        self.start(PieceOp::TruncateCache { cache, len })
    }

    /// Frees a tensor or a cache.
    pub fn free(&self, piece: PieceId) {
        // A stopped engine has already freed the piece.
        let _ = self.start(PieceOp::Free(piece));
    }
}

impl Drop for PieceSession {
    fn drop(&mut self) {
        // A stopped engine has already freed the session.
        let _ = self.engine.send(Command::Pieces(PieceCommand::Close { id: self.id }));
    }
}
