//! Turns of a conversation: a question, and all that answered it.

use crate::Message;

/// How many system messages a conversation begins with.
pub(super) fn beginning(messages: &[Message]) -> usize {
    messages.iter().take_while(|message| message.is_system()).count()
}

/// Takes the last turn back; `false` if there is none.
pub(super) fn undo(messages: &mut Vec<Message>) -> bool {
    let last = messages.iter().rposition(Message::is_user);
    if let Some(last) = last {
        messages.truncate(last);
    }
    last.is_some()
}

/// Drops the oldest turn but never the last one; returns how many messages it had.
pub(super) fn drop_oldest(messages: &mut Vec<Message>) -> usize {
    let start = beginning(messages);
    let next = messages.iter().skip(start + 1).position(Message::is_user);
    let count = next.map_or(0, |next| next + 1);
    messages.drain(start..start + count);
    count
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
    fn the_oldest_turn_goes_with_its_tools_and_the_last_one_stays() {
        let mut messages = conversation("suatauau");
        assert_eq!(drop_oldest(&mut messages), 4);
        assert_eq!(messages, conversation("suau"));
        assert_eq!(drop_oldest(&mut messages), 2);
        assert_eq!(messages, conversation("su"));
        assert_eq!(drop_oldest(&mut messages), 0);
        // In the middle of a round of tools.
        let mut messages = conversation("uat");
        assert_eq!(drop_oldest(&mut messages), 0);
        // One that begins with the assistant's words.
        let mut messages = conversation("auau");
        assert_eq!(drop_oldest(&mut messages), 1);
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
