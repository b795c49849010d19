//! Chooses the tokens that readers get besides the text that a policy lets through.
//!
//! A token's id reveals its text. So an id is sent only when all of its text has been sent unchanged: the ids
//! of held text wait for the text, and the ids of changed or omitted text are never sent.

/// The model's text and the text sent, since both were last the same.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    generated: String,
    sent: String,
    tokens: Vec<u32>,
}

impl Passed {
    /// Records a token with the text that it adds, and the `text` sent. Returns the tokens to send with it.
    pub(crate) fn observe(&mut self, token: u32, generated: &str, text: &str) -> Vec<u32> {
        self.tokens.push(token);
        self.generated += generated;
        // A token without text, such as one inside a character, waits for the one with it.
        if generated.is_empty() && text.is_empty() { Vec::new() } else { self.release(text) }
    }

    /// Records the last `text` sent, after the last token. Returns the tokens to send with it.
    pub(crate) fn end(&mut self, text: &str) -> Vec<u32> {
        self.release(text)
    }

    fn release(&mut self, text: &str) -> Vec<u32> {
        self.sent += text;
        let held_back = self.generated.len() > self.sent.len() && self.generated.starts_with(&self.sent);
        if held_back {
            return Vec::new();
        }
        let unchanged = self.generated == self.sent;
        let Self { tokens, .. } = std::mem::take(self);
        if unchanged { tokens } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [u32; 0] = [];

    #[test]
    fn tokens_go_with_their_text() {
        let mut passed = Passed::default();
        assert_eq!(passed.observe(1, "Once", "Once"), [1]);
        assert_eq!(passed.observe(2, " up", ""), NONE);
        assert_eq!(passed.observe(3, "on", " "), NONE);
        assert_eq!(passed.observe(4, " a", "upon a"), [2, 3, 4]);
        assert_eq!(passed.observe(5, "", ""), NONE);
        assert_eq!(passed.end(""), [5]);
    }

    #[test]
    fn tokens_of_other_text_do_not() {
        let mut passed = Passed::default();
        assert_eq!(passed.observe(1, "is", "is"), [1]);
        assert_eq!(passed.observe(2, " Par", " "), NONE);
        assert_eq!(passed.observe(3, "is", ""), NONE);
        assert_eq!(passed.observe(4, ".", "[city]."), NONE);
        // Later text is unchanged again.
        assert_eq!(passed.observe(5, " So", " So"), [5]);
        assert_eq!(passed.observe(6, " be it", ""), NONE);
        assert_eq!(passed.end(""), NONE);
    }

    #[test]
    fn an_unfinished_character_waits_for_what_becomes_of_it() {
        let mut passed = Passed::default();
        assert_eq!(passed.observe(1, "", ""), NONE);
        assert_eq!(passed.observe(2, "é", "e"), NONE);
        assert_eq!(passed.observe(3, "", ""), NONE);
        assert_eq!(passed.observe(4, "é", "é"), [3, 4]);
    }
}
