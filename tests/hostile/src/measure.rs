//! Measures the effect of an attack on a victim.

use std::time::Duration;

use realm::{Error, Limits};

use crate::attacks::Attack;
use crate::status::resident;
use crate::{Ground, Running};

/// A victim's waits for each of its tokens.
#[derive(Debug, Clone, Default)]
pub struct Gaps {
    /// The wait for the first token, which includes its prompt and a pass that has begun.
    first: Duration,
    between: Vec<Duration>,
}

impl Gaps {
    /// Adds tokens that arrived together.
    pub(crate) fn push(&mut self, waited: Duration, tokens: usize) {
        if self.first.is_zero() {
            self.first = waited;
            return;
        }
        let each = waited / u32::try_from(tokens).unwrap_or(u32::MAX);
        self.between.extend(std::iter::repeat_n(each, tokens));
    }

    fn extend(&mut self, more: &Self) {
        self.first = self.first.max(more.first);
        self.between.extend_from_slice(&more.between);
    }

    /// The longest wait for a first token.
    pub fn first(&self) -> Duration {
        self.first
    }

    /// Returns the wait between tokens that the fraction `part` (0 to 1) of the waits did not exceed.
    ///
    /// # Panics
    /// If there are no tokens.
    pub fn at(&self, part: f64) -> Duration {
        let mut sorted = self.between.clone();
        sorted.sort_unstable();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index"
        )]
        sorted[((sorted.len() - 1) as f64 * part) as usize]
    }
}

/// The effects of an attack on a victim and on the host.
#[derive(Debug)]
pub struct Measured {
    /// Waits beside an honest neighbor.
    pub honest: Gaps,
    /// Waits beside the attack.
    pub attacked: Gaps,
    /// Set if the victim's text was the same to the bit each time.
    pub same: bool,
    /// Largest growth of resident memory, in bytes.
    pub grown: usize,
    /// Most bytes in the attackers' ledgers.
    pub ledger: usize,
    /// Number of rounds that the attackers completed, and the text of their last error.
    pub said: (usize, String),
}

/// Lets an attack and an honest neighbor take `turns` turns beside a victim, each for `tokens` of the
/// victim's tokens.
///
/// # Errors
/// Errors of the victim's requests.
pub fn measure(
    ground: &Ground,
    attack: &Attack,
    turns: usize,
    tokens: usize,
    warm: Duration,
) -> Result<Measured, Error> {
    let victim = ground.model_of(&ground.tenant("victim"));
    let (alone, _) = ground.victim(&victim, tokens)?;
    // The first request in company waits for memory, and for the device to record its passes.
    let running = honest(ground, attack);
    ground.victim(&victim, tokens)?;
    drop(running);
    let mut measured = Measured {
        honest: Gaps::default(),
        attacked: Gaps::default(),
        same: true,
        grown: 0,
        ledger: 0,
        said: (0, String::new()),
    };
    for _ in 0..turns {
        let running = honest(ground, attack);
        std::thread::sleep(warm);
        let (text, gaps) = ground.victim(&victim, tokens)?;
        measured.same &= text == alone;
        measured.honest.extend(&gaps);
        drop(running);

        let before = resident();
        let running = attack.start(ground);
        std::thread::sleep(warm);
        let (text, gaps) = ground.victim(&victim, tokens)?;
        measured.same &= text == alone;
        measured.attacked.extend(&gaps);
        measured.grown = measured.grown.max(resident().saturating_sub(before));
        measured.ledger =
            measured.ledger.max(running.tenants.iter().map(|tenant| tenant.memory().total()).sum());
        measured.said = running.said();
    }
    Ok(measured)
}

/// Starts tenants that generate plain text all the time, as many and with as many streams as the attack's
/// honest neighbor.
fn honest(ground: &Ground, attack: &Attack) -> Running {
    let mut running = Running::default();
    for (tenant, streams) in attack.honest.streams().into_iter().enumerate() {
        let tenant = ground.tenant_with(&format!("honest{tenant}"), Limits::default());
        let model = ground.model_of(&tenant);
        for stream in 0..streams {
            let model = model.clone();
            let mut round = 0;
            running.repeat(move |signal| {
                round += 1;
                let request = realm::Request::text(format!("Story {round} of {stream}:"))
                    .temperature(0.0)
                    .max_tokens(256);
                signal.read(model.stream(realm::Request { ignore_eos: true, ..request }))
            });
        }
        running.tenants.push(tenant);
    }
    running
}
