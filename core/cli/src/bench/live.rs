//! Shows the tenants of a model, live in a terminal.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use console::Term;
use realm::{Metrics, Model, Served};

/// The time between two drawings.
const EVERY: Duration = Duration::from_millis(250);
/// The number of drawings that rates are averaged over: one second.
const READINGS: usize = 4;

/// A thread that shows a model's metrics until this is dropped.
pub(super) struct Live {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Live {
    /// Shows the metrics on stdout, or with `aside` on stderr: on a terminal as a table that is redrawn,
    /// otherwise as a line each second.
    pub(super) fn start(model: &Model, title: String, aside: bool) -> Self {
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
            // A panic of the thread is on stderr already.
            let _ = thread.join();
        }
    }
}

struct View {
    term: Term,
    title: String,
    began: Instant,
    /// The readings of the last second, oldest first.
    readings: VecDeque<(Instant, Metrics)>,
    /// The number of lines on the terminal.
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
        // A failed write to the terminal has no other place to be reported.
        if self.term.is_term() {
            let _ = self.draw(&lines);
        } else if self.ticks.is_multiple_of(READINGS) {
            let _ = self.term.write_line(&lines[..lines.len().min(3)].join(" · "));
        }
    }

    /// Draws over the last drawing, at most as many lines as the terminal has.
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

    /// Clears the drawing.
    fn erase(&mut self) {
        if self.drawn > 0 {
            let _ = self.draw(&[]);
        }
    }
}

/// Returns the title, two lines about the whole, and one for each tenant.
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

/// The changes between two readings.
struct Rates {
    /// Tokens each second.
    generated: f64,
    prompt: f64,
    /// In seconds: the mean since the start, and over the time between the readings.
    first_token: Option<f64>,
    inter_token: Option<f64>,
}

impl Rates {
    fn new(before: &Served, now: &Served, seconds: f64) -> Self {
        // A tenant of the same name may be a new one, whose counts begin again.
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
