//! The table of attacks.

mod held;
mod instances;
mod plain;
mod programs;

use crate::{Ground, Running};

/// A way to harm other tenants or the host.
#[derive(Debug)]
pub struct Attack {
    /// The attack's name in the command and the tables.
    pub name: &'static str,
    /// A description of what the attackers do.
    pub what: &'static str,
    /// The honest neighbors that the attack is compared with: tenants, and streams of each.
    pub honest: Honest,
    begin: fn(&Ground) -> Running,
}

/// Tenants that generate text, as many and with as many streams as attack.
#[derive(Debug, Clone, Copy)]
pub enum Honest {
    /// A number of tenants, each with a number of streams.
    Alike(usize, usize),
    /// The neighbors of every single attack, all at once.
    OfEach,
}

impl Honest {
    /// Returns the number of streams of each tenant.
    pub fn streams(self) -> Vec<usize> {
        match self {
            Self::Alike(tenants, streams) => vec![streams; tenants],
            Self::OfEach => singles().flat_map(|attack| attack.honest.streams()).collect(),
        }
    }
}

impl Attack {
    /// Starts the attackers, which continue until the result is dropped.
    pub fn start(&self, ground: &Ground) -> Running {
        (self.begin)(ground)
    }
}

/// All attacks.
pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "snapshot",
        what: "restores sequences whose pages are missing",
        honest: Honest::Alike(1, 1),
        begin: held::snapshot,
    },
    Attack {
        name: "pool-modules",
        what: "130 runs of 60 core modules each",
        honest: Honest::Alike(1, 8),
        begin: programs::pool_modules,
    },
    Attack {
        name: "pool-memories",
        what: "512 runs of four memories each",
        honest: Honest::Alike(1, 8),
        begin: programs::pool_memories,
    },
    Attack {
        name: "queue",
        what: "six tenants queue 1,600 requests each",
        honest: Honest::Alike(6, 8),
        begin: held::queue,
    },
    Attack { name: "add", what: "adds wide tensors", honest: Honest::Alike(1, 1), begin: programs::add },
    Attack {
        name: "output",
        what: "multiplies 60 rows by the output matrix",
        honest: Honest::Alike(1, 1),
        begin: programs::output,
    },
    Attack {
        name: "layers",
        what: "feeds 512 rows through a layer",
        honest: Honest::Alike(1, 1),
        begin: programs::layers,
    },
    Attack {
        name: "lm-head",
        what: "drops the logits of 60 rows as soon as it has them",
        honest: Honest::Alike(1, 1),
        begin: programs::lm_head,
    },
    Attack {
        name: "fork",
        what: "forks a sequence of 4,000 tokens",
        honest: Honest::Alike(1, 1),
        begin: programs::fork,
    },
    Attack {
        name: "open",
        what: "opens and closes sequences",
        honest: Honest::Alike(1, 1),
        begin: programs::open,
    },
    Attack {
        name: "truncate",
        what: "truncates a cache after its tokens are used up",
        honest: Honest::Alike(1, 1),
        begin: programs::truncate,
    },
    Attack {
        name: "unread",
        what: "eight runs emit to a reader that does not read",
        honest: Honest::Alike(1, 8),
        begin: programs::unread,
    },
    Attack {
        name: "observe",
        what: "shows a sampler tokens that do not exist",
        honest: Honest::Alike(1, 1),
        begin: programs::observe,
    },
    Attack { name: "log", what: "logs empty lines", honest: Honest::Alike(1, 1), begin: programs::log },
    Attack {
        name: "store",
        what: "stores small entries",
        honest: Honest::Alike(1, 1),
        begin: programs::store,
    },
    Attack { name: "spin", what: "computes", honest: Honest::Alike(1, 1), begin: programs::spin },
    Attack {
        name: "calls",
        what: "calls a host function over and over",
        honest: Honest::Alike(1, 1),
        begin: programs::calls,
    },
    Attack {
        name: "encode",
        what: "encodes a mebibyte of text",
        honest: Honest::Alike(1, 1),
        begin: programs::encode,
    },
    Attack {
        name: "grammars",
        what: "compiles grammars that are new each time",
        honest: Honest::Alike(1, 1),
        begin: plain::grammars,
    },
    Attack {
        name: "stop-strings",
        what: "a million stop strings, and as many as may be",
        honest: Honest::Alike(1, 1),
        begin: plain::stop_strings,
    },
    Attack {
        name: "long-stops",
        what: "100 stop strings of 500 KB, and one as long as may be",
        honest: Honest::Alike(1, 1),
        begin: plain::long_stops,
    },
    Attack {
        name: "sampling",
        what: "eight streams with every logit biased and typical_p",
        honest: Honest::Alike(1, 8),
        begin: plain::sampling,
    },
    Attack {
        name: "prompt",
        what: "prompts of 10 MiB and of 128 KiB",
        honest: Honest::Alike(1, 1),
        begin: plain::prompt,
    },
    Attack {
        name: "prefill",
        what: "four streams of prompts of 8,000 tokens",
        honest: Honest::Alike(1, 4),
        begin: plain::prefill,
    },
    Attack {
        name: "cancel",
        what: "four threads start requests and drop them",
        honest: Honest::Alike(1, 4),
        begin: plain::cancel,
    },
    Attack {
        name: "tiny",
        what: "four threads ask for one token at a time",
        honest: Honest::Alike(1, 4),
        begin: plain::tiny,
    },
    Attack {
        name: "asleep",
        what: "1,000 streams that are not read",
        honest: Honest::Alike(1, 8),
        begin: held::asleep,
    },
    Attack {
        name: "sequences",
        what: "200,000 empty sequences",
        honest: Honest::Alike(1, 1),
        begin: held::sequences,
    },
    Attack {
        name: "compile",
        what: "compiles programs that are new each time",
        honest: Honest::Alike(1, 1),
        begin: held::compile,
    },
    Attack { name: "all", what: "all of the above at once", honest: Honest::OfEach, begin: all },
    Attack {
        name: "all-single",
        what: "the same, beside no more than one stream of each tenant",
        // Six tenants queue, and each other attack has one.
        honest: Honest::Alike(34, 1),
        begin: all,
    },
];

/// The attacks that are no others together.
fn singles() -> impl Iterator<Item = &'static Attack> {
    ATTACKS.iter().filter(|attack| !attack.name.starts_with("all"))
}

/// Starts every other attack of the table.
fn all(ground: &Ground) -> Running {
    let mut running = Running::default();
    for attack in singles() {
        running.join(attack.start(ground));
    }
    running
}
