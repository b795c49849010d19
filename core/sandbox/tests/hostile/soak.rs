//! Many short requests of many tenants, a third of them cancelled, leave nothing behind.

use std::sync::atomic::{AtomicUsize, Ordering};

use realm_sandbox::Reply;

use crate::guest::{greedy, policy};
use crate::host::{Host, Who, resident, with};
use crate::random::Chance;

/// `REALM_SOAK` is the number of requests.
#[test]
fn many_short_requests_leave_nothing_behind() {
    let count: usize = std::env::var("REALM_SOAK").map_or(3000, |count| count.parse().expect("a number"));
    let host = Host::tiny();
    let tenants: Vec<Who> = (0..200).map(|_| with(|_| {})).collect();
    let programs = [
        host.compile(&greedy(5, 3)),
        host.compile(&greedy(9, 2)),
        host.compile(&policy("(call $logits.drop (local.get $logits)) (global.get $OK)", "(global.get $OK)")),
    ];
    let done = AtomicUsize::new(0);
    let batch = |requests: usize, seed: u64| {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (host, tenants, programs, done) = (&host, &tenants, &programs, &done);
                scope.spawn(move || {
                    let mut chance = Chance(seed * 4 + thread);
                    let mut running: Vec<Reply> = Vec::new();
                    for _ in 0..requests / 4 {
                        let (who, program) = (&tenants[chance.below(200)], &programs[chance.below(3)]);
                        let reply = host.start(program, who).unwrap();
                        match chance.below(6) {
                            0 => drop(reply),
                            1 => {
                                // After the first chunk, or the end if that is first.
                                let _ = reply.chunks.recv_blocking();
                                drop(reply);
                            }
                            _ => running.push(reply),
                        }
                        if running.len() == 8 {
                            let reply = running.swap_remove(chance.below(8));
                            read(reply);
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    running.into_iter().for_each(read);
                });
            }
        });
        host.settle();
    };
    // Until everything that grows only once has grown.
    batch(count / 10, 1);
    let before = (resident(), files());
    batch(count - count / 10, 2);
    let after = (resident(), files());
    eprintln!(
        "{} requests; after the first {}: {} kB resident and {} files, at the end {} kB and {}",
        done.load(Ordering::Relaxed),
        count / 10,
        before.0 >> 10,
        before.1,
        after.0 >> 10,
        after.1
    );
    assert!(after.0 < before.0 + (16 << 20), "memory");
    assert_eq!(after.1, before.1, "files");
    assert!(tenants.iter().all(|who| who.tenant.running() == 0 && who.tenant.waiting() == 0));
}

fn read(reply: Reply) {
    loop {
        let chunk = reply.chunks.recv_blocking().expect("an end").expect("no error");
        if chunk.finish.is_some() {
            return;
        }
    }
}

/// Returns the number of open files.
fn files() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}
