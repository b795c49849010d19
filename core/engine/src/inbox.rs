//! The commands that an engine's thread receives between two steps.

use std::iter;
use std::sync::mpsc::{Receiver, TryRecvError};

/// Hands out the `first` command and those that have arrived since, at most `most` in all, so that callers
/// who send without end do not keep the engine from its steps. Returns `false` if a command ends the engine,
/// or if no command can arrive any more.
pub(crate) fn receive<C>(
    first: Result<C, TryRecvError>,
    inbox: &Receiver<C>,
    most: usize,
    mut take: impl FnMut(C) -> bool,
) -> bool {
    // The bound comes last, so that no command is received beyond it: it would be lost.
    for next in iter::once(first).chain(iter::repeat_with(|| inbox.try_recv())).take(most) {
        let goes_on = match next {
            Ok(command) => take(command),
            Err(TryRecvError::Empty) => return true,
            Err(TryRecvError::Disconnected) => false,
        };
        if !goes_on {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn no_command_is_lost_where_more_wait_than_are_received_at_once() {
        let (sender, inbox) = mpsc::channel();
        (0..100).for_each(|command| sender.send(command).unwrap());
        let mut seen = Vec::new();
        for _ in 0..20 {
            let first = inbox.try_recv();
            assert!(receive(first, &inbox, 7, |command| {
                seen.push(command);
                true
            }));
        }
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn an_engine_ends_where_it_is_told_to_or_nobody_is_left() {
        let (sender, inbox) = mpsc::channel();
        (0..3).for_each(|command| sender.send(command).unwrap());
        assert!(!receive(inbox.try_recv(), &inbox, 7, |command| command != 1));
        assert!(receive(inbox.try_recv(), &inbox, 7, |_| true));
        drop(sender);
        assert!(!receive(inbox.try_recv(), &inbox, 7, |_| true));
    }
}
