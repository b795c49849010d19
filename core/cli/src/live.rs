//! How all tenants of a model fare right now, in a terminal.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use console::Term;
use realm::{Metrics, Model, Served};

/// How often it is drawn.
const EVERY: Duration = Duration::from_millis(250);
/// Rates are over so many drawings: a second.
const READINGS: usize = 4;

/// A thread that shows a model's metrics until this is dropped.
pub(crate) struct Live {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Live {
    /// Shows it on stdout, or with `aside` on stderr: a table that is drawn again and again where that is a terminal,
    /// else a line a second.
    pub(crate) fn start(model: &Model, title: String, aside: bool) -> Self {
        let (stop, stopped) = mpsc::channel();
        let model = model.clone();
        let term = if aside { Term::stderr() } else { Term::stdout() };
        let thread = std::thread::spawn(move || {
            let mut view =
                View { term, title, began: Instant::now(), readings: VecDeque::new(), drawn: 0, ticks: 0 };
            view.readings.push_back((view.began, model.metrics()));
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                view.show(model.metrics());
            }
            view.erase();
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A view that panicked has said so.
            let _ = thread.join();
        }
    }
}

struct View {
    term: Term,
    title: String,
    began: Instant,
    /// The last second's, oldest first.
    readings: VecDeque<(Instant, Metrics)>,
    /// Lines on the terminal.
    drawn: usize,
    ticks: usize,
}

impl View {
    fn show(&mut self, metrics: Metrics) {
        self.ticks += 1;
        if self.readings.len() > READINGS {
            self.readings.pop_front();
        }
        let now = Instant::now();
        let mut lines = Vec::new();
        if let Some((at, before)) = self.readings.front() {
            let seconds = (now - *at).as_secs_f64();
            let title = format!("{} · {:.1} s", self.title, (now - self.began).as_secs_f64());
            lines = self::lines(title, before, &metrics, seconds);
        }
        self.readings.push_back((now, metrics));
        // If nobody can see it, there is nobody to tell.
        if self.term.is_term() {
            let _ = self.draw(&lines);
        } else if self.ticks.is_multiple_of(READINGS) {
            let _ = self.term.write_line(&lines[..lines.len().min(3)].join(" · "));
        }
    }

    /// Draws over what was drawn before, no more than the terminal has room for.
    fn draw(&mut self, lines: &[String]) -> std::io::Result<()> {
        let (rows, columns) = self.term.size();
        let room = usize::from(rows).saturating_sub(1).max(1);
        let mut frame = String::new();
        if self.drawn > 0 {
            let _ = write!(frame, "\x1b[{}A\r", self.drawn);
        }
        for line in lines.iter().take(room) {
            frame.extend(line.chars().take(columns.into()));
            frame += "\x1b[K\n";
        }
        frame += "\x1b[J";
        self.drawn = lines.len().min(room);
        self.term.write_all(frame.as_bytes())?;
        self.term.flush()
    }

    /// The terminal belongs to others again.
    fn erase(&mut self) {
        if self.drawn > 0 {
            let _ = self.draw(&[]);
        }
    }
}

/// The title, two lines on the whole, and one for each tenant.
fn lines(title: String, before: &Metrics, now: &Metrics, seconds: f64) -> Vec<String> {
    let (all, rates) = (&now.served, Rates::new(&before.served, &now.served, seconds));
    let kv = &now.kv;
    let mut lines = vec![
        title,
        format!(
            "{} running, {} waiting · {:.0} tokens/s, prompts {:.0}/s · first token {}, then every {}",
            all.running,
            all.waiting,
            rates.generated,
            rates.prompt,
            milliseconds(rates.first_token),
            milliseconds(rates.inter_token),
        ),
        format!(
            "{} of {} KV pages, {} remembered · {} of {} drafts right · {} outside the forward pass",
            kv.used,
            kv.total,
            kv.remembered,
            all.tokens.accepted.saturating_sub(before.served.tokens.accepted),
            all.tokens.drafted.saturating_sub(before.served.tokens.drafted),
            share(before, now),
        ),
        format!(
            "{:<14}{:>9}{:>9}{:>11}{:>14}{:>16}{:>10}",
            "tenant", "running", "waiting", "tokens/s", "first token", "between tokens", "KV pages"
        ),
    ];
    for tenant in &now.tenants {
        let earlier = before.tenants.iter().find(|earlier| earlier.name == tenant.name);
        let nothing = Served::default();
        let served = &tenant.served;
        let rates = Rates::new(earlier.map_or(&nothing, |earlier| &earlier.served), served, seconds);
        if served.running + served.waiting == 0 && rates.generated == 0.0 {
            continue;
        }
        lines.push(format!(
            "{:<14}{:>9}{:>9}{:>11.1}{:>14}{:>16}{:>10}",
            tenant.name,
            served.running,
            served.waiting,
            rates.generated,
            milliseconds(rates.first_token),
            milliseconds(rates.inter_token),
            served.kv_pages,
        ));
    }
    lines
}

/// What happened between two readings.
struct Rates {
    /// Tokens a second.
    generated: f64,
    prompt: f64,
    /// Seconds: the mean since the start, and over the time between the readings.
    first_token: Option<f64>,
    inter_token: Option<f64>,
}

impl Rates {
    fn new(before: &Served, now: &Served, seconds: f64) -> Self {
        // A tenant of the same name may be another one, whose counts begin anew.
        let rate = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
        Self {
            generated: rate(before.tokens.generated, now.tokens.generated),
            prompt: rate(before.tokens.prompt, now.tokens.prompt),
            first_token: now.first_token_seconds.mean(),
            inter_token: now.inter_token_seconds.since(&before.inter_token_seconds).mean(),
        }
    }
}

fn milliseconds(seconds: Option<f64>) -> String {
    seconds.map_or("-".into(), |seconds| format!("{:.1} ms", 1000.0 * seconds))
}

fn share(before: &Metrics, now: &Metrics) -> String {
    let steps = now.step_seconds.sum - before.step_seconds.sum;
    let forward = now.forward_seconds - before.forward_seconds;
    if steps > 0.0 { format!("{:.1} %", 100.0 * (1.0 - forward / steps)) } else { "-".into() }
}
