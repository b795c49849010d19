//! Logits processors.

use std::sync::Arc;

use napi::Status;
use napi::bindgen_prelude::*;
use napi::threadsafe_function::ThreadsafeFunction;
use realm::{LogitsProcessor, Request};

type Arguments = FnArgs<(Uint32Array, Float32Array)>;
type Answer = Either<Float32Array, String>;

/// Takes the tokens so far and the logits; returns logits, or an error message.
pub(crate) type Process<'a> = Function<'a, Arguments, Answer>;
type Dispatch = ThreadsafeFunction<Arguments, Answer, Arguments, Status, false, true>;

/// Adds a function to a request.
pub(crate) fn process(mut request: Request, process: Option<&Process<'_>>) -> Result<Request> {
    request.logits_processors.extend(processor(process)?);
    Ok(request)
}

/// Makes a processor of a function. It runs on Node's thread; only its own request waits for it.
pub(crate) fn processor(process: Option<&Process<'_>>) -> Result<Option<LogitsProcessor>> {
    let Some(process) = process else { return Ok(None) };
    let dispatch: Dispatch = process.build_threadsafe_function::<Arguments>().weak::<true>().build()?;
    let dispatch = Arc::new(dispatch);
    Ok(Some(LogitsProcessor::new_async(move |tokens, logits| {
        let dispatch = Arc::clone(&dispatch);
        async move {
            let arguments = (Uint32Array::new(tokens), Float32Array::new(logits));
            match dispatch.call_async(arguments.into()).await {
                Ok(Either::A(logits)) => Ok(logits.to_vec()),
                Ok(Either::B(why)) => Err(why),
                Err(error) => Err(error.to_string()),
            }
        }
    })))
}
