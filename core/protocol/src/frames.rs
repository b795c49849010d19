//! The events of a stream as bytes.

/// An event of a streamed answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The event's name, in protocols that name events.
    pub name: Option<&'static str>,
    /// The event itself, a JSON text.
    pub data: String,
}

impl Event {
    pub(crate) fn named(name: &'static str, data: String) -> Self {
        Self { name: Some(name), data }
    }
}

impl From<String> for Event {
    fn from(data: String) -> Self {
        Self { name: None, data }
    }
}

/// The form in which a protocol sends events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Server-sent events without names, with `[DONE]` after the last one: OpenAI's completions.
    Done,
    /// Server-sent events with names: Anthropic's messages and OpenAI's responses.
    Named,
    /// A line for each event: ollama.
    Lines,
}

impl Framing {
    /// Returns the content type of such a stream.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Done | Self::Named => "text/event-stream; charset=utf-8",
            Self::Lines => "application/x-ndjson",
        }
    }

    /// Appends an event.
    pub fn write(self, event: &Event, out: &mut Vec<u8>) {
        if self == Self::Lines {
            out.extend_from_slice(event.data.as_bytes());
            out.push(b'\n');
            return;
        }
        if let Some(name) = event.name {
            out.extend_from_slice(b"event: ");
            out.extend_from_slice(name.as_bytes());
            out.push(b'\n');
        }
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(event.data.as_bytes());
        out.extend_from_slice(b"\n\n");
    }

    /// Appends what follows the last event.
    pub fn end(self, out: &mut Vec<u8>) {
        if self == Self::Done {
            out.extend_from_slice(b"data: [DONE]\n\n");
        }
    }

    /// Returns bytes that keep an idle connection open and that clients ignore; empty if the protocol has
    /// none.
    pub fn keep_alive(self) -> &'static [u8] {
        match self {
            Self::Done | Self::Named => b": keep-alive\n\n",
            Self::Lines => b"",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_has_its_frames() {
        let event = Event::named("ping", "{}".to_owned());
        let written = |framing: Framing, event: &Event| {
            let mut out = Vec::new();
            framing.write(event, &mut out);
            framing.end(&mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(Framing::Named, &event), "event: ping\ndata: {}\n\n");
        assert_eq!(written(Framing::Lines, &event), "{}\n");
        assert_eq!(written(Framing::Done, &"{}".to_owned().into()), "data: {}\n\ndata: [DONE]\n\n");
    }
}
