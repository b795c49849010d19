//! How models spell tool calls.

use realm_tokenizer::{ChatTemplate, TokenKind, Tokenizer};

/// A way to spell tool calls.
#[derive(Debug)]
pub(super) struct Spelling {
    /// What begins a call, or a list of them.
    pub opener: &'static str,
    /// Whether models of this kind are taught to mark calls.
    pub marked: bool,
    /// Whether a message may begin with a call that nothing marks: as taught, or since small models forget the mark.
    pub bare: bool,
    /// What stands between the opener and the end.
    pub body: Body,
    /// What ends it; models forget it, so it need not come.
    pub closer: &'static str,
    /// What else may be a control token.
    pub others: &'static [&'static str],
}

/// What a call looks like between its marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// An object, or a list of objects, with `name` and `arguments` or `parameters`.
    Json,
    /// A list as above, or `name[ARGS]{…}`.
    Mistral,
    /// `call:name{key:value}`, in a notation of its own.
    Gemma,
}

/// Hermes, Qwen 2.5 and 3, SmolLM2: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`. Qwen2.5-Coder leaves the
/// marks out.
pub(super) static HERMES: Spelling = Spelling {
    opener: "<tool_call>",
    marked: true,
    bare: true,
    body: Body::Json,
    closer: "</tool_call>",
    others: &[],
};

/// Mistral: `[TOOL_CALLS][{"name": …, "arguments": {…}}]`, lately `[TOOL_CALLS]name[ARGS]{…}`.
pub(super) static MISTRAL: Spelling = Spelling {
    opener: "[TOOL_CALLS]",
    marked: true,
    bare: false,
    body: Body::Mistral,
    closer: "",
    others: &["[ARGS]", "[CALL_ID]"],
};

/// Llama 3.1 to 3.3: `{"name": …, "parameters": {…}}`, and the same after `<|python_tag|>`.
pub(super) static LLAMA: Spelling = Spelling {
    opener: "<|python_tag|>",
    marked: false,
    bare: true,
    body: Body::Json,
    closer: "",
    others: &[],
};

/// FunctionGemma: `<start_function_call>call:name{key:<escape>text<escape>}<end_function_call>`.
pub(super) static GEMMA: Spelling = Spelling {
    opener: "<start_function_call>",
    marked: true,
    bare: false,
    body: Body::Gemma,
    closer: "<end_function_call>",
    others: &["<escape>"],
};

/// The spelling of a model.
#[derive(Debug, Clone)]
pub(crate) struct ToolSpelling {
    pub(super) spelling: &'static Spelling,
    /// Those of its marks that are control tokens of the model, which texts leave out otherwise.
    pub(super) control: Vec<(u32, &'static str)>,
}

impl ToolSpelling {
    /// The spelling that a chat template shows; `None` if it shows none that is known.
    pub(crate) fn of(template: &ChatTemplate, tokenizer: &Tokenizer) -> Option<Self> {
        let spelling = detect(template.source(true))?;
        let marks = [spelling.opener, spelling.closer].into_iter().chain(spelling.others.iter().copied());
        let control = marks.filter_map(|mark| {
            let id = tokenizer.token_id(mark)?;
            (tokenizer.kind(id) == Some(TokenKind::Control)).then_some((id, mark))
        });
        Some(Self { spelling, control: control.collect() })
    }

    /// Control tokens that have to be spelled in the text for calls to be found.
    pub(crate) fn spelled(&self) -> Vec<u32> {
        self.control.iter().map(|&(id, _)| id).collect()
    }
}

/// A template spells the calls of earlier messages, or tells the model how to.
pub(super) fn detect(template: &str) -> Option<&'static Spelling> {
    let has = |mark: &str| template.contains(mark);
    if has("<tool_call>") {
        // Qwen3-Coder and GLM mark calls so, too, but have tags of their own in between.
        (!has("<function=") && !has("<arg_key>")).then_some(&HERMES)
    } else if has(MISTRAL.opener) {
        Some(&MISTRAL)
    } else if has(GEMMA.opener) {
        Some(&GEMMA)
    } else if has(LLAMA.opener) || has(r#""parameters": "#) {
        Some(&LLAMA)
    } else {
        None
    }
}
