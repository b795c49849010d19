//! Stop strings, which may begin in one token and end in another.

/// Passes text on until a stop string comes, and keeps back what may be the start of one.
pub(crate) struct StopMatcher {
    stops: Vec<String>,
    held: String,
}

impl StopMatcher {
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self { stops: stops.into_iter().filter(|s| !s.is_empty()).collect(), held: String::new() }
    }

    /// Adds text; returns what may go out, and whether a stop string was found. It and what follows it never
    /// go out.
    pub(crate) fn push(&mut self, text: &str) -> (String, bool) {
        if self.stops.is_empty() {
            return (text.to_owned(), false);
        }
        self.held.push_str(text);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop)).min() {
            let mut out = std::mem::take(&mut self.held);
            out.truncate(at);
            return (out, true);
        }
        let keep = self.stops.iter().map(|stop| longest_overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// The end: what was kept back.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Bytes of the longest end of `text` that is a beginning of `stop`.
fn longest_overlap(text: &str, stop: &str) -> usize {
    let most = text.len().min(stop.len() - 1);
    (1..=most).rev().find(|&n| text.as_bytes().ends_with(&stop.as_bytes()[..n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stop_string_may_span_tokens() {
        let mut stop = StopMatcher::new(vec!["\n\nUser:".into(), "END".into()]);
        assert_eq!(stop.push("Hello\n"), ("Hello".into(), false));
        assert_eq!(stop.push("\nUs"), (String::new(), false));
        assert_eq!(stop.push("ed EN"), ("\n\nUsed ".into(), false));
        assert_eq!(stop.push("D of it"), (String::new(), true));
    }

    proptest! {
        #[test]
        fn in_any_pieces_the_text_before_the_first_stop_goes_out(
            text in "[abé]{0,30}", stops in prop::collection::vec("[abé]{1,4}", 0..3), cuts in prop::collection::vec(0usize..40, 0..8),
        ) {
            let mut bounds: Vec<usize> = cuts.into_iter().filter(|&c| text.is_char_boundary(c)).collect();
            bounds.extend([0, text.len()]);
            bounds.sort_unstable();
            let mut matcher = StopMatcher::new(stops.clone());
            let (mut out, mut stopped) = (String::new(), false);
            for piece in bounds.windows(2).map(|w| &text[w[0]..w[1]]) {
                let (text, stop) = matcher.push(piece);
                out += &text;
                if stop { stopped = true; break; }
            }
            if !stopped { out += &matcher.finish(); }
            // The stop that is complete first wins; a cut may hide nothing before it.
            let whole = stops.iter().filter_map(|s| text.find(s.as_str())).min();
            prop_assert_eq!(stopped, whole.is_some());
            prop_assert!(text.starts_with(&out));
            if !stopped { prop_assert_eq!(out, text); } else { prop_assert!(stops.iter().all(|s| !out.contains(s.as_str()))); }
        }
    }
}
