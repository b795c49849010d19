//! OpenAI's protocol, for `createFetch`.

use std::sync::Arc;
use std::task::{Context, Poll};

use napi::bindgen_prelude::*;
use napi_derive::napi;
use realm_protocol::{Body, LoadedByName, OneModel, Service};
use serde_json::json;

use crate::call::NativeCall;
use crate::generation::{NativeBell, ring};
use crate::handle::Handle;
use crate::model::NativeModel;
use crate::runtime::NativeRealm;

/// Answers HTTP calls.
#[napi]
pub struct NativeService {
    handle: Handle<Service>,
}

#[napi]
impl NativeService {
    /// Answers with one model, whatever name a call has.
    #[napi(factory)]
    pub fn of_model(model: &NativeModel) -> Result<Self> {
        Ok(Self { handle: Handle::new("fetch", Service::new(OneModel::new(model.handle.get()?))) })
    }

    /// Answers with a runtime's models, loaded when they are first named.
    #[napi(factory)]
    pub fn of_realm(realm: &NativeRealm) -> Result<Self> {
        Ok(Self { handle: Handle::new("fetch", Service::new(LoadedByName::new(realm.handle.get()?))) })
    }

    /// Answers a call, which can be aborted meanwhile.
    #[napi(ts_return_type = "Promise<NativeAnswer>")]
    pub fn handle<'env>(
        &self,
        env: &'env Env,
        method: String,
        path: String,
        body: String,
        call: &NativeCall,
    ) -> Result<PromiseRaw<'env, NativeAnswer>> {
        let service = self.handle.get()?;
        let answer = call.until(async move { service.handle(&method, &path, body.as_bytes()).await })?;
        crate::environment::promise(env, async move {
            let answer = answer.await?;
            let (body, events) = match answer.body {
                Body::Json(text) => (Some(text), None),
                Body::Events(events) => (None, Some(Handle::new("stream", Arc::new(events)))),
            };
            Ok(NativeAnswer {
                status: answer.status,
                headers: json!(answer.headers).to_string(),
                body,
                events,
            })
        })
    }
}

/// The answer to a call.
#[napi]
pub struct NativeAnswer {
    status: u16,
    headers: String,
    body: Option<String>,
    events: Option<Handle<Arc<realm_protocol::Events>>>,
}

#[napi]
impl NativeAnswer {
    /// Returns the HTTP status.
    #[napi]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns the headers' names and values, as JSON.
    #[napi]
    pub fn headers(&self) -> String {
        self.headers.clone()
    }

    /// Returns the body as JSON, if the answer is not a stream.
    #[napi]
    pub fn body(&self) -> Option<String> {
        self.body.clone()
    }

    /// Returns the events, if the answer is a stream.
    #[napi]
    pub fn events(&self) -> Result<Option<NativeEvents>> {
        let events = self.events.as_ref().map(Handle::get).transpose()?;
        Ok(events.map(|events| NativeEvents { handle: Handle::new("stream", events) }))
    }
}

/// A streamed answer's events.
#[napi]
pub struct NativeEvents {
    handle: Handle<Arc<realm_protocol::Events>>,
}

#[napi]
impl NativeEvents {
    /// Returns the next event if there is one, `true` if there will be none, and `false` if there is none
    /// yet: then the bell rings with `id` when there may be one.
    #[napi]
    pub fn poll(&self, bell: &NativeBell, id: u32) -> Result<Either<String, bool>> {
        let (events, waker) = (self.handle.get()?, ring(bell, id));
        match events.poll_next(&mut Context::from_waker(&waker)) {
            Poll::Ready(Some(event)) => Ok(Either::A(event)),
            Poll::Ready(None) => Ok(Either::B(true)),
            Poll::Pending => Ok(Either::B(false)),
        }
    }

    /// Ends the request.
    #[napi]
    pub fn cancel(&self) -> Result<()> {
        self.handle.get()?.cancel();
        Ok(())
    }
}
