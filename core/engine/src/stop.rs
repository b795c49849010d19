//! Stop strings, which may begin in one token and end in another.
//!
//! All of them are searched for at once (Aho and Corasick, 'Efficient string matching', CACM 1975): the time
//! for a byte of text does not grow with their number.

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::Error;

/// The most stop strings of one request. Together with [`MAX_STOP_BYTES`] this keeps the automaton below 1
/// MiB.
pub const MAX_STOPS: usize = 1024;
/// The most bytes of all stop strings of one request, 16 KiB.
pub const MAX_STOP_BYTES: usize = 16 << 10;

/// Refuses stop strings beyond [`MAX_STOPS`] and [`MAX_STOP_BYTES`].
///
/// # Errors
/// `InvalidArgument` with their number or bytes, and the limit.
pub fn check_stops(stops: &[String]) -> Result<(), Error> {
    if stops.len() > MAX_STOPS {
        let why = format!("{} stop strings; a request may have {MAX_STOPS}", stops.len());
        return Err(Error::InvalidArgument(why));
    }
    let bytes: usize = stops.iter().map(String::len).sum();
    if bytes > MAX_STOP_BYTES {
        let why = format!("stop strings of {bytes} bytes together; they may have {MAX_STOP_BYTES}");
        return Err(Error::InvalidArgument(why));
    }
    Ok(())
}

/// Passes text on until a stop string appears, and holds back text that may be the beginning of one.
pub(crate) struct StopMatcher {
    stops: Automaton,
    /// The automaton's state after the text so far.
    state: u32,
    held: String,
}

impl StopMatcher {
    pub(crate) fn new(stops: &[String]) -> Self {
        Self { stops: Automaton::new(stops), state: ROOT, held: String::new() }
    }

    /// Bytes of memory that the matcher takes.
    pub(crate) fn memory(&self) -> usize {
        self.stops.memory() + self.held.capacity()
    }

    /// Adds text. Returns the text that may go out, and whether a stop string was found. A stop string and
    /// the text after it never go out.
    pub(crate) fn push(&mut self, text: &str) -> (String, bool) {
        if self.stops.is_empty() {
            return (text.to_owned(), false);
        }
        let before = self.held.len();
        self.held.push_str(text);
        let mut found: Option<usize> = None;
        for (i, byte) in text.bytes().enumerate() {
            self.state = self.stops.next(self.state, byte);
            let longest = self.stops.longest(self.state);
            if longest > 0 {
                let at = before + i + 1 - longest;
                found = Some(found.map_or(at, |first| first.min(at)));
            }
        }
        if let Some(at) = found {
            self.state = ROOT;
            let mut out = std::mem::take(&mut self.held);
            out.truncate(at);
            return (out, true);
        }
        let rest = self.held.split_off(self.held.len() - self.stops.depth(self.state));
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// Ends the text and returns what was held back.
    pub(crate) fn finish(&mut self) -> String {
        self.state = ROOT;
        std::mem::take(&mut self.held)
    }
}

/// The node of the empty text, which every stop string begins with.
const ROOT: u32 = 0;

/// A tree of all beginnings of stop strings. Each node links to the longest other beginning that it ends
/// with.
struct Automaton {
    nodes: Vec<Node>,
    edges: HashMap<(u32, u8), u32, FxBuildHasher>,
}

#[derive(Clone, Copy, Default)]
struct Node {
    /// The longest beginning of a stop string that this one ends with, other than itself.
    fall_back: u32,
    /// Its length in bytes.
    depth: u32,
    /// The length in bytes of the longest stop string that it ends with; 0 if there is none.
    longest: u32,
}

impl Automaton {
    fn memory(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>() + self.edges.allocation_size()
    }

    fn new(stops: &[String]) -> Self {
        let mut this = Self { nodes: vec![Node::default()], edges: HashMap::default() };
        let mut children: Vec<Vec<(u8, u32)>> = vec![Vec::new()];
        for stop in stops {
            let mut node = ROOT;
            for byte in stop.bytes() {
                let next = this.nodes.len() as u32;
                let depth = this.nodes[node as usize].depth + 1;
                let child = *this.edges.entry((node, byte)).or_insert(next);
                if child == next {
                    this.nodes.push(Node { depth, ..Node::default() });
                    children.push(Vec::new());
                    children[node as usize].push((byte, next));
                }
                node = child;
            }
            let end = &mut this.nodes[node as usize];
            end.longest = end.depth;
        }
        // Level by level, so that every node's fallback is known before the node.
        let mut level = vec![ROOT];
        while !level.is_empty() {
            let mut below = Vec::new();
            for &node in &level {
                for &(byte, child) in &children[node as usize] {
                    let fall_back = match node {
                        ROOT => ROOT,
                        _ => this.next(this.nodes[node as usize].fall_back, byte),
                    };
                    let inherited = this.nodes[fall_back as usize].longest;
                    let child_node = &mut this.nodes[child as usize];
                    child_node.fall_back = fall_back;
                    child_node.longest = child_node.longest.max(inherited);
                    below.push(child);
                }
            }
            level = below;
        }
        this
    }

    fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }

    /// Returns the longest beginning of a stop string that the text ends with after one byte more. Every step
    /// back undoes a step forward, so a text takes at most two steps for each byte.
    fn next(&self, mut node: u32, byte: u8) -> u32 {
        loop {
            if let Some(&child) = self.edges.get(&(node, byte)) {
                return child;
            }
            if node == ROOT {
                return ROOT;
            }
            node = self.nodes[node as usize].fall_back;
        }
    }

    fn longest(&self, node: u32) -> usize {
        self.nodes[node as usize].longest as usize
    }

    fn depth(&self, node: u32) -> usize {
        self.nodes[node as usize].depth as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matcher(stops: &[&str]) -> StopMatcher {
        StopMatcher::new(&stops.iter().map(|&stop| stop.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_stop_string_may_span_tokens() {
        let mut stop = matcher(&["\n\nUser:", "END"]);
        assert_eq!(stop.push("Hello\n"), ("Hello".into(), false));
        assert_eq!(stop.push("\nUs"), (String::new(), false));
        assert_eq!(stop.push("ed EN"), ("\n\nUsed ".into(), false));
        assert_eq!(stop.push("D of it"), (String::new(), true));
    }

    #[test]
    fn of_stop_strings_that_end_together_the_longest_counts() {
        let mut stop = matcher(&["d", "bcd", "xyz", "abcx", ""]);
        assert_eq!(stop.push("ab"), (String::new(), false));
        assert_eq!(stop.push("cd"), ("a".into(), true));
    }

    #[test]
    fn too_many_stop_strings_are_refused_with_the_limit() {
        assert!(check_stops(&vec![String::from("x"); MAX_STOPS]).is_ok());
        let many = check_stops(&vec![String::from("x"); MAX_STOPS + 1]).unwrap_err().to_string();
        assert!(many.contains("1025") && many.contains("1024"), "{many}");
        assert!(check_stops(&["x".repeat(MAX_STOP_BYTES)]).is_ok());
        let long = check_stops(&["x".repeat(MAX_STOP_BYTES + 1)]).unwrap_err().to_string();
        assert!(long.contains("16385") && long.contains("16384"), "{long}");
    }

    /// Compares the number of steps, edges that were looked up, to the bytes of the text.
    #[test]
    fn what_a_byte_takes_does_not_grow_with_the_stop_strings() {
        for stops in [1, 32, MAX_STOPS] {
            // Every stop string begins like the text, and none is in it.
            let stops: Vec<String> = (0..stops).map(|i| format!("aaaaaaaa{i:07}")).collect();
            let automaton = Automaton::new(&stops);
            let (mut node, mut steps, mut depth) = (ROOT, 0, 0);
            for byte in "aaaaaaaa0".repeat(1000).bytes() {
                let next = automaton.next(node, byte);
                // One step forward, and at most as many back as the depth fell.
                steps += 1 + (depth + 1 - automaton.depth(next)).min(depth + 1);
                (node, depth) = (next, automaton.depth(next));
            }
            assert!(steps <= 2 * 9000, "{steps} for {} stop strings", stops.len());
        }
    }

    proptest! {
        #[test]
        fn in_any_pieces_the_text_before_the_first_stop_goes_out(
            text in "[abé]{0,30}", stops in prop::collection::vec("[abé]{1,4}", 0..3), cuts in prop::collection::vec(0usize..40, 0..8),
        ) {
            let mut bounds: Vec<usize> = cuts.into_iter().filter(|&c| text.is_char_boundary(c)).collect();
            bounds.extend([0, text.len()]);
            bounds.sort_unstable();
            let mut matcher = StopMatcher::new(&stops);
            let (mut out, mut stopped) = (String::new(), false);
            for piece in bounds.windows(2).map(|w| &text[w[0]..w[1]]) {
                let (text, stop) = matcher.push(piece);
                out += &text;
                if stop { stopped = true; break; }
            }
            if !stopped { out += &matcher.finish(); }
            // The stop string that is complete first wins. A cut may hide nothing before it.
            let whole = stops.iter().filter_map(|s| text.find(s.as_str())).min();
            prop_assert_eq!(stopped, whole.is_some());
            prop_assert!(text.starts_with(&out));
            if !stopped { prop_assert_eq!(out, text); } else { prop_assert!(stops.iter().all(|s| !out.contains(s.as_str()))); }
        }

        /// The text held back is the longest end that may be the beginning of a stop string.
        #[test]
        fn no_more_is_kept_back_than_needed(text in "[ab]{0,20}", stops in prop::collection::vec("[abc]{1,6}", 1..5)) {
            let mut matcher = StopMatcher::new(&stops);
            let (out, stopped) = matcher.push(&text);
            if !stopped {
                let overlap = |stop: &String| (0..stop.len()).rev().find(|&n| text.ends_with(&stop[..n])).unwrap_or(0);
                let kept = stops.iter().map(overlap).max().unwrap_or(0);
                prop_assert_eq!(out.len(), text.len() - kept);
            }
        }
    }
}
