//! Lists of prompts and texts in one call.
//!
//! A window of requests runs at once: large enough that the engine has full batches, and small enough that no
//! queue overflows and other requests do not wait behind the whole list.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

use realm_handover::block_on;

use crate::error::ErrorCode;
use crate::{Completion, EmbedOptions, Error, Model, Request, Scored, unblock};

/// The most text requests that run at once: as many as decode in one pass.
const GENERATIONS: usize = 32;
/// The most texts that are embedded or scored at once: short ones share a pass of some hundred rows.
const TEXTS: usize = 64;

impl Model {
    /// Answers many requests; the completions are in the order of the requests. A window of them runs at
    /// once, so a list of any length never fills the tenant's queue. The first error ends the call, and its
    /// message has the request's index. Blocks.
    ///
    /// # Errors
    /// Same as [`generate`](Self::generate).
    pub fn generate_many(&self, requests: Vec<Request>) -> Result<Vec<Completion>, Error> {
        block_on(self.generate_many_async(requests))
    }

    /// Same as [`generate_many`](Self::generate_many), for tasks.
    ///
    /// # Errors
    /// Same as [`generate`](Self::generate).
    pub async fn generate_many_async(&self, requests: Vec<Request>) -> Result<Vec<Completion>, Error> {
        self.all("request", GENERATIONS, requests, Self::answer).await
    }

    /// Same as [`generate_many`](Self::generate_many), but a request that fails does not stop the others:
    /// each has a completion or an error of its own. Blocks.
    pub fn generate_each(&self, requests: Vec<Request>) -> Vec<Result<Completion, Error>> {
        block_on(self.generate_each_async(requests))
    }

    /// Same as [`generate_each`](Self::generate_each), for tasks.
    pub async fn generate_each_async(&self, requests: Vec<Request>) -> Vec<Result<Completion, Error>> {
        self.each(GENERATIONS, requests, Self::answer).await
    }

    async fn answer(self, request: Request) -> Result<Completion, Error> {
        if self.is_remote() {
            return self.generate_async(request).await;
        }
        unblock(move || self.stream(request)).await?.finish_async().await
    }

    /// Returns an embedding, `[hidden]`, for each of many texts, in their order. Blocks.
    ///
    /// # Errors
    /// Same as [`embed`](Self::embed), with the text's index in the message.
    pub fn embed_many(&self, texts: Vec<Vec<u32>>, options: &EmbedOptions) -> Result<Vec<Vec<f32>>, Error> {
        block_on(self.embed_many_async(texts, options))
    }

    /// Same as [`embed_many`](Self::embed_many), for tasks.
    ///
    /// # Errors
    /// Same as [`embed`](Self::embed).
    pub async fn embed_many_async(
        &self,
        texts: Vec<Vec<u32>>,
        options: &EmbedOptions,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let embed = |model: Self, tokens: Vec<u32>| {
            let options = options.clone();
            async move { model.embed_async(&tokens, &options).await }
        };
        self.all("text", TEXTS, texts, embed).await
    }

    /// Same as [`score`](Self::score), for many texts. Blocks.
    ///
    /// # Errors
    /// Same as [`score`](Self::score), with the text's index in the message.
    pub fn score_many(&self, texts: Vec<Vec<u32>>, top: usize) -> Result<Vec<Vec<Scored>>, Error> {
        block_on(self.score_many_async(texts, top))
    }

    /// Same as [`score_many`](Self::score_many), for tasks.
    ///
    /// # Errors
    /// Same as [`score`](Self::score).
    pub async fn score_many_async(
        &self,
        texts: Vec<Vec<u32>>,
        top: usize,
    ) -> Result<Vec<Vec<Scored>>, Error> {
        let score = |model: Self, tokens: Vec<u32>| async move { model.score_async(&tokens, top).await };
        self.all("text", TEXTS, texts, score).await
    }

    /// Encodes many texts into token ids, each as [`encode_special`](Self::encode_special) does.
    pub fn encode_many<T: AsRef<str>>(&self, texts: &[T], special: bool, boundaries: bool) -> Vec<Vec<u32>> {
        texts.iter().map(|text| self.encode_special(text.as_ref(), special, boundaries)).collect()
    }

    /// Returns all results, or the first error.
    async fn all<A: Clone, T, F>(
        &self,
        what: &str,
        most: usize,
        inputs: Vec<A>,
        start: impl Fn(Self, A) -> F,
    ) -> Result<Vec<T>, Error>
    where
        F: Future<Output = Result<T, Error>> + Send,
    {
        let mut results: Vec<Option<T>> = inputs.iter().map(|_| None).collect();
        let failed = self.run(most, inputs, start, |at, result| match result {
            Ok(value) => {
                results[at] = Some(value);
                None
            }
            Err(error) => Some(error.prefixed(format_args!("{what} {at}"))),
        });
        if let Some(error) = failed.await {
            return Err(error);
        }
        Ok(results.into_iter().flatten().collect())
    }

    /// Returns the result of every request.
    async fn each<A: Clone, T, F>(
        &self,
        most: usize,
        inputs: Vec<A>,
        start: impl Fn(Self, A) -> F,
    ) -> Vec<Result<T, Error>>
    where
        F: Future<Output = Result<T, Error>> + Send,
    {
        let mut results: Vec<Option<Result<T, Error>>> = inputs.iter().map(|_| None).collect();
        let ended = self.run(most, inputs, start, |at, result| {
            results[at] = Some(result);
            None::<()>
        });
        ended.await;
        results.into_iter().flatten().collect()
    }

    /// Runs the inputs, a window of them at once, and hands each result to `take`, until that returns `Some`.
    async fn run<A: Clone, T, E, F>(
        &self,
        most: usize,
        inputs: Vec<A>,
        start: impl Fn(Self, A) -> F,
        mut take: impl FnMut(usize, Result<T, Error>) -> Option<E>,
    ) -> Option<E>
    where
        F: Future<Output = Result<T, Error>> + Send,
    {
        let mut inputs = inputs.into_iter().enumerate().peekable();
        let mut running: Vec<(usize, A, Pin<Box<F>>)> = Vec::new();
        // Inputs that were refused because other requests fill the queue; tried again when a running one has
        // ended.
        let mut again: Vec<(usize, A)> = Vec::new();
        let mut full = false;
        while !running.is_empty() || !again.is_empty() || inputs.peek().is_some() {
            let window = self.window(most);
            while running.is_empty() || (running.len() < window && !full) {
                let Some((at, input)) = again.pop().or_else(|| inputs.next()) else { break };
                running.push((at, input.clone(), Box::pin(start(self.clone(), input))));
            }
            let (place, result) = first(&mut running).await;
            let (at, input, future) = running.swap_remove(place);
            drop(future);
            match &result {
                Err(error) if !running.is_empty() && self.is_queue_full(error) => {
                    full = true;
                    again.push((at, input));
                }
                _ => {
                    full = false;
                    if let Some(end) = take(at, result) {
                        return Some(end);
                    }
                }
            }
        }
        None
    }

    /// Returns the number of requests that may run at once so that the tenant's limits refuse none.
    fn window(&self, most: usize) -> usize {
        let limits = self.tenant().inner.limits();
        limits.max_concurrent.unwrap_or(0).saturating_add(limits.max_queued).clamp(1, most)
    }

    /// Returns whether a request was refused because the queue is full, perhaps of requests from before this
    /// call.
    fn is_queue_full(&self, error: &Error) -> bool {
        match error.code() {
            ErrorCode::Overloaded => true,
            // A server's tenant waits there.
            ErrorCode::LimitExceeded if self.is_remote() => error.message().contains("requests running"),
            ErrorCode::LimitExceeded => {
                let tenant = &self.tenant().inner;
                tenant.waiting() >= tenant.limits().max_queued
            }
            _ => false,
        }
    }
}

/// Waits for the first of several futures; returns its place and its output.
async fn first<A, F: Future>(running: &mut [(usize, A, Pin<Box<F>>)]) -> (usize, F::Output) {
    std::future::poll_fn(|context| {
        for (place, (.., future)) in running.iter_mut().enumerate() {
            if let Poll::Ready(value) = future.as_mut().poll(context) {
                return Poll::Ready((place, value));
            }
        }
        Poll::Pending
    })
    .await
}
