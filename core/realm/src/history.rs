//! Conversations that are longer than the context.

use crate::{Error, Model, Prompt, Request};

impl Model {
    /// Returns the request without as many of the conversation's oldest turns as it takes for the others to fit into the
    /// context with room for an answer, and how many messages that left out. System messages at the beginning stay, and the
    /// last turn does, which is a user's message and what follows it; if that alone is too long, starting the request says
    /// so. The room is [`Request::max_tokens`], or a quarter of the context where that is less or not set. A prompt that is no
    /// conversation is returned as it is.
    ///
    /// # Errors
    /// `unsupported` for a model without a chat template, `invalid-argument` with the template's own complaint.
    pub fn drop_oldest_turns(&self, mut request: Request) -> Result<(Request, usize), Error> {
        let Prompt::Chat(messages) = &request.prompt else { return Ok((request, 0)) };
        let messages = messages.clone();
        let context = self.context_of_tenant();
        let room = request.max_tokens.unwrap_or(usize::MAX).min(context / 4).max(1);
        let system = messages.iter().take_while(|message| message.is_system()).count();
        // Where the conversation may begin after the system messages: as it does, and at each later turn.
        let later = (system + 1..messages.len()).filter(|&at| messages[at].is_user());
        let begins: Vec<usize> = std::iter::once(system).chain(later).collect();
        let mut from = |begin: usize| {
            let kept = messages[..system].iter().chain(&messages[begin..]).cloned();
            request.prompt = Prompt::Chat(kept.collect());
            Ok::<_, Error>(self.prompt_tokens(&request)?.len() + room <= context)
        };
        // The earliest of them that fits, by bisection; where none does, the last.
        let (mut first, mut last) = (0, begins.len() - 1);
        if from(begins[0])? {
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
