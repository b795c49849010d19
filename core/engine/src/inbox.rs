//! The engine's thread: it receives commands between steps, and steps while there is work.

use std::iter;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};

use crate::command::Command;
use crate::common::Common;
use crate::scheduler::{Next, Scheduler};

/// The most commands that are received before a step. Receiving a command only puts it into its tenant's
/// queue.
const MOST_RECEIVED: usize = 4096;

/// Runs the engine's thread until the engine is dropped.
pub(crate) fn run(mut scheduler: Scheduler, inbox: &Receiver<Command>, gauges: &Common) {
    let mut next = Next::Wait(None);
    loop {
        let first = match next {
            Next::Go => inbox.try_recv(),
            Next::Wait(None) => inbox.recv().map_err(|_| TryRecvError::Disconnected),
            Next::Wait(Some(time)) => inbox.recv_timeout(time).map_err(|error| match error {
                RecvTimeoutError::Timeout => TryRecvError::Empty,
                RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
            }),
        };
        let goes_on = receive(first, inbox, MOST_RECEIVED, |command| {
            match command {
                Command::Add(task) => scheduler.add(*task),
                Command::Session(sent, command) => scheduler.command(sent, command),
                Command::Layerwise(command) => scheduler.layerwise(command),
                Command::AddAdapter(id, weights, reply) => {
                    // If the caller is gone, its handle is gone too, and no request can name the adapter.
                    let _ = reply.try_send(scheduler.add_adapter(id, weights));
                }
                Command::RemoveAdapter(id) => scheduler.remove_adapter(id),
                Command::Wake => {}
                Command::Stop => return false,
            }
            true
        });
        if !goes_on {
            return;
        }
        next = scheduler.step();
        gauges.free_pages.store(scheduler.free_pages(), Ordering::Release);
    }
}

/// Hands out the `first` command and those that have arrived since, at most `most` in all, so that callers
/// who send without end do not keep the engine from its steps. Returns `false` if a command ends the engine,
/// or if no command can arrive any more.
fn receive<C>(
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
    fn an_engine_ends_on_request_or_without_handles() {
        let (sender, inbox) = mpsc::channel();
        (0..3).for_each(|command| sender.send(command).unwrap());
        assert!(!receive(inbox.try_recv(), &inbox, 7, |command| command != 1));
        assert!(receive(inbox.try_recv(), &inbox, 7, |_| true));
        drop(sender);
        assert!(!receive(inbox.try_recv(), &inbox, 7, |_| true));
    }
}
