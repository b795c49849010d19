//! Progress bars on stderr; silent if stderr is not a terminal.

use indicatif::{ProgressBar, ProgressStyle};
use realm::hub::{self, Reason, Source};

use crate::output::note;

/// One bar at a time: fetching, then loading.
pub(crate) struct Bars {
    bar: Option<ProgressBar>,
    loading: bool,
}

impl Bars {
    pub(crate) fn new() -> Self {
        Self { bar: None, loading: false }
    }

    fn bar(&mut self, what: String, total: Option<u64>) -> &ProgressBar {
        self.bar.get_or_insert_with(|| {
            let (bar, template) = match total {
                Some(total) => (
                    ProgressBar::new(total),
                    "{msg} [{bar:32}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left",
                ),
                None => (ProgressBar::new_spinner(), "{msg} {spinner} {bytes}, {bytes_per_sec}"),
            };
            // The templates above are valid; otherwise the default style is used.
            let style = ProgressStyle::with_template(template);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
            bar.set_message(what);
            bar
        })
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl hub::Progress for Bars {
    fn waiting(&mut self, file: &str) {
        note!("another process is fetching {file}: waiting for it");
    }

    fn started(&mut self, file: &str, source: &Source) {
        self.end();
        note!("fetching {file} from {source}");
    }

    fn advanced(&mut self, _source: &Source, done: u64, total: Option<u64>) {
        self.bar("fetching".into(), total).set_position(done);
    }

    fn failed(&mut self, source: &Source, reason: &Reason) {
        self.end();
        note!("{source} did not work: {reason}");
    }

    fn finished(&mut self, file: &str, bytes: u64) {
        self.end();
        note!("{file} is here, {:.0} MB", bytes as f64 / 1e6);
    }
}

impl Bars {
    /// Shows how many tokens of a text a model has passed.
    pub(crate) fn running(&mut self, done: usize, total: usize) {
        let bar = self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("running [{bar:32}] {pos}/{len} tokens, {eta} left");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total as u64).with_style(style.progress_chars("=> "))
        });
        bar.set_position(done as u64);
        if done >= total {
            self.end();
        }
    }

    /// Shows how far the writing of a file is.
    pub(crate) fn writing(&mut self, done: u64, total: u64) {
        self.bar("writing".into(), Some(total)).set_position(done);
        if done >= total {
            self.end();
        }
    }
}

impl realm::Progress for Bars {
    fn loading(&mut self, done: u64, total: u64) {
        if !self.loading {
            self.end();
            self.loading = true;
        }
        self.bar("loading".into(), Some(total)).set_position(done);
        if done >= total {
            self.end();
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.end();
    }
}
