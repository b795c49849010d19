//! Turns of a conversation, each a question with everything that answered it, and conversations longer than
//! the context.

use realm_handover::block_on;

use crate::model::Inner;
use crate::{Error, Message, Model, Prompt, Request};

/// Returns the number of system messages that a conversation begins with.
pub(crate) fn beginning(messages: &[Message]) -> usize {
    messages.iter().take_while(|message| message.is_system()).count()
}

/// Removes the last turn; `false` if there is none.
pub(crate) fn undo(messages: &mut Vec<Message>) -> bool {
    let last = messages.iter().rposition(Message::is_user);
    if let Some(last) = last {
        messages.truncate(last);
    }
    last.is_some()
}

/// Returns the indices at which a conversation may begin after its system messages: its own beginning, and
/// each later turn.
fn turns(messages: &[Message]) -> Vec<usize> {
    let system = beginning(messages);
    let later = (system + 1..messages.len()).filter(|&at| messages[at].is_user());
    std::iter::once(system).chain(later).collect()
}

impl Model {
    /// Returns the number of tokens of a conversation.
    fn count_prompt(&self, request: &Request) -> Result<usize, Error> {
        match &self.inner {
            Inner::Local(model) => Ok(model.prompt_tokens(request)?.len()),
            Inner::Remote(model) => {
                Ok(block_on(model.served.render(model.equipped(request.clone())?))?.1.len())
            }
        }
    }

    /// Drops the oldest turns of the request's conversation until the rest fits into the context with room
    /// for an answer. Returns the request and the number of dropped messages. System messages at the
    /// beginning stay, and so does the last turn, which is a user's message and everything after it; if these
    /// alone are too long, starting the request fails with that error. The room is [`Request::max_tokens`],
    /// or a quarter of the context if that is not set, and never more than half of the context. A prompt that
    /// is not a conversation is returned unchanged.
    ///
    /// # Errors
    /// `unsupported` for a model without a chat template, `invalid-argument` with the template's own error.
    pub fn drop_oldest_turns(&self, mut request: Request) -> Result<(Request, usize), Error> {
        let Prompt::Chat(messages) = &request.prompt else { return Ok((request, 0)) };
        request.check_prompt()?;
        let messages = messages.clone();
        let context = self.context_of_tenant();
        let room = request.max_tokens.unwrap_or(context / 4).min(context / 2).max(1);
        let begins = turns(&messages);
        let system = begins[0];
        let mut from = |begin: usize| {
            let kept = messages[..system].iter().chain(&messages[begin..]).cloned();
            request.prompt = Prompt::Chat(kept.collect());
            Ok::<_, Error>(self.count_prompt(&request)? + room <= context)
        };
        // Bisects for the earliest turn that fits; if none does, takes the last one.
        let (mut first, mut last) = (0, begins.len() - 1);
        if from(system)? {
            return Ok((request, 0));
        }
        while first + 1 < last {
            let middle = first.midpoint(last);
            if from(begins[middle])? { last = middle } else { first = middle }
        }
        from(begins[last])?;
        Ok((request, begins[last] - system))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(roles: &str) -> Vec<Message> {
        let role = |role| match role {
            's' => "system",
            'u' => "user",
            'a' => "assistant",
            _ => "tool",
        };
        roles.chars().map(|letter| Message::new(role(letter), letter)).collect()
    }

    #[test]
    fn a_turn_has_its_tools_and_the_first_one_may_begin_with_anything() {
        let turns = |roles| turns(&conversation(roles));
        assert_eq!(turns("suatauau"), [1, 5, 7]);
        assert_eq!(turns("su"), [1]);
        // In the middle of a round of tools.
        assert_eq!(turns("uat"), [0]);
        // A conversation that begins with the assistant's words.
        assert_eq!(turns("auau"), [0, 1, 3]);
        assert_eq!(turns("s"), [1]);
        assert_eq!(turns(""), [0]);
    }

    #[test]
    fn undo_takes_a_whole_turn() {
        let mut messages = conversation("suauata");
        assert!(undo(&mut messages));
        assert_eq!(messages, conversation("sua"));
        assert!(undo(&mut messages));
        assert!(!undo(&mut messages));
        assert_eq!(messages, conversation("s"));
    }
}
