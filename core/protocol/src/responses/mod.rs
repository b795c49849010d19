//! OpenAI's Responses, without a state: each request brings its whole conversation.
//!
//! - [`ResponsesRequest`]: a body of `/v1/responses` as a chat request.
//! - `items`: a conversation's items as messages.
//! - `output`: an answer's items.
//! - `stream`: answers as named events.

mod items;
mod output;
mod request;
mod stream;

pub use request::ResponsesRequest;
pub(crate) use stream::ResponseWriter;
