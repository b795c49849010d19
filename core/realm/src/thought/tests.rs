use proptest::prelude::*;

use super::*;

static CHANNEL: fn() -> &'static Marks = || detect("<|channel|>").unwrap();

/// Returns the thought and the answer of a text that arrives in pieces.
fn read<'a>(mut stream: ThoughtStream, pieces: impl IntoIterator<Item = &'a str>) -> (String, String) {
    let (mut thought, mut answer) = (String::new(), String::new());
    for piece in pieces {
        stream.push(piece, &mut thought, &mut answer);
    }
    stream.end(&mut thought, &mut answer);
    (thought, answer)
}

fn told_apart(text: &str, open: bool) -> (String, String) {
    read(ThoughtStream::of(&THINK, open, false), [text])
}

fn is(thought: &str, answer: &str) -> (String, String) {
    (thought.to_owned(), answer.to_owned())
}

#[test]
fn thoughts_are_told_apart_from_answers() {
    assert_eq!(told_apart("<think>\nHm.\n\nYes.\n</think>\n\nFour.", false), is("Hm.\n\nYes.", "Four."));
    assert_eq!(told_apart("\nHm.\n</think>\n\nFour.\n", true), is("Hm.", "Four.\n"));
    assert_eq!(told_apart("<think>\n\n</think>\n\nFour.", false), is("", "Four."));
    // Without an end mark, all of it is thought.
    assert_eq!(told_apart("<think> Hm", false), is("Hm", ""));
    assert_eq!(told_apart("Hm </thi", true), is("Hm </thi", ""));
    // Two thoughts in a row.
    assert_eq!(told_apart("<think>a</think>\n<think>b</think> c", false), is("ab", "c"));
}

#[test]
fn text_that_has_no_thought_at_its_beginning_stays_as_it_is() {
    for text in
        ["", " \n", "  Four.\n", "<thin", "<thinking>x", "It is <think>no</think> thought.", "</think> x"]
    {
        assert_eq!(told_apart(text, false), is("", text));
    }
}

#[test]
fn whole_thoughts_keep_their_marks() {
    let whole = |text, open| read(ThoughtStream::of(&THINK, open, true), [text]);
    assert_eq!(
        whole("\n<think>\nHm.\n</think>\n\nFour.", false),
        is("\n<think>\nHm.\n</think>", "\n\nFour.")
    );
    assert_eq!(whole("\nHm.\n</think>\n\nFour.", true), is("\nHm.\n</think>", "\n\nFour."));
}

#[test]
fn channels_are_thoughts_and_headings() {
    let text = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Four.";
    assert_eq!(read(ThoughtStream::of(CHANNEL(), false, false), [text]), is("Hm.", "Four."));
    let text = "<|channel|>final<|message|>Four.";
    assert_eq!(read(ThoughtStream::of(CHANNEL(), false, false), [text]), is("", "Four."));
}

#[test]
fn marks_are_known_from_templates() {
    let opener = |template| detect(template).map(|marks| marks.openers[0]);
    assert_eq!(opener("{% set content = content.split('</think>')[-1] %}"), Some("<think>"));
    assert_eq!(opener("[THINK]{{ message.thinking }}[/THINK]"), Some("[THINK]"));
    assert_eq!(opener("<|START_THINKING|>{{ plan }}<|END_THINKING|>"), Some("<|START_THINKING|>"));
    assert_eq!(opener("<|channel>thought\n{{ x }}<channel|>"), Some("<|channel>thought"));
    assert_eq!(opener("<|im_start|>{{ message.role }}"), None);
}

#[test]
fn words_that_are_gone_on_with_may_end_in_a_thought() {
    let spelling = ThoughtSpelling { marks: &THINK, control: Vec::new() };
    let open = |words| spelling.going_on(words).map(|thought| thought.open);
    assert_eq!(open("<think>\nOkay, "), Some(true));
    assert_eq!(open("<think>\nOkay.\n</think>\n\nFo"), None);
    assert_eq!(open("Fo"), None);
}

#[test]
fn reading_takes_time_in_proportion_to_the_text() {
    // Each would take minutes if the same text were read again and again.
    let many = "<think></think>".repeat(70_000);
    let nearly = format!("<think>{}", "</thin".repeat(170_000));
    let blank = format!("<think>{}x", " ".repeat(1 << 20));
    for text in [&many, &nearly, &blank] {
        let pieces = text.as_bytes().chunks(4).map(|piece| std::str::from_utf8(piece).unwrap());
        assert_eq!(read(ThoughtStream::of(&THINK, false, false), pieces), told_apart(text, false));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn pieces_give_what_the_whole_gives(
        parts in prop::collection::vec(prop_oneof![
            prop::sample::select(vec![
                "<think>", "</think>", "<th", "</thi", "\n", " ", "é", "<", "<|channel|>analysis<|message|>", "<|end|>",
                "<|start|>assistant<|channel|>final<|message|>", "<|start|>",
            ]).prop_map(str::to_owned),
            " {250,260}",
            "\\PC{0,3}",
        ], 0..12),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..30), open: bool, whole: bool, channel: bool,
    ) {
        let text = parts.concat();
        let ends: Vec<_> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let mut ends: Vec<_> = cuts.iter().map(|cut| ends[cut.index(ends.len())]).collect();
        ends.extend([0, text.len()]);
        ends.sort_unstable();
        let stream = || ThoughtStream::of(if channel { CHANNEL() } else { &THINK }, open, whole);
        let (thought, answer) = read(stream(), [text.as_str()]);
        prop_assert_eq!(read(stream(), ends.windows(2).map(|ends| &text[ends[0]..ends[1]])), (thought.clone(), answer.clone()));
        if whole && !channel {
            prop_assert_eq!(thought + &answer, text);
        }
    }
}
