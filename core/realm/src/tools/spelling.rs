//! Spellings of tool calls.

use realm_tokenizer::{ChatTemplate, TokenKind, Tokenizer};

/// A spelling of tool calls.
#[derive(Debug)]
pub(super) struct Spelling {
    /// The marks that begin a call or a list of calls. The first is the one that the model was trained on.
    pub marks: &'static [Mark],
    /// Further control tokens of such models.
    pub others: &'static [&'static str],
    /// The spelling of a call that a request forces.
    pub forced: Forced,
}

/// A mark that begins a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub opener: &'static str,
    /// The mark that ends the call; models forget it, so it may be missing. Empty for none.
    pub closer: &'static str,
    pub body: Body,
    /// True if a call after this mark may name a tool that the request does not define. False for marks that
    /// occur in other text, too.
    pub any_name: bool,
}

/// The form of a call after its mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// An object, or a list of objects, with `name` and `arguments` or `parameters`.
    Json,
    /// Same as `Json`, or `<function=name><parameter=key>value</parameter></function>`, or
    /// `name<arg_key>key</arg_key><arg_value>value</arg_value>`.
    Tagged,
    /// Same as `Json`, or Mistral's `name[CALL_ID]id[ARGS]{…}`.
    Mistral,
    /// A name among other marks, then an object with the arguments: DeepSeek's `function<｜tool▁sep｜>name`,
    /// Kimi's `functions.name:0<|tool_call_argument_begin|>`, and gpt-oss's ` to=functions.name …
    /// <|message|>`.
    Named,
    /// Calls in Python's spelling, alone or in a list: `name(key="value")`. Or as `Json`.
    Python,
    /// Same as `Python`, or a program, which is not a call: in Python's spelling only calls of the request's
    /// tools count.
    Code,
    /// `call:name{key:value}` in the notation of Google's models, with this mark around strings.
    Gemma(&'static str),
}

/// The spelling of a forced call, from which a grammar is made that guarantees the arguments.
#[derive(Debug)]
pub(super) struct Forced {
    /// The pieces before the name; each mark is a piece of its own.
    pub before: &'static [&'static str],
    pub form: Form,
    /// The pieces after the call.
    pub after: &'static [&'static str],
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// An object with the name, and the arguments under this key.
    Object(&'static str),
    /// The name, these marks, and the arguments.
    Named(&'static [&'static str]),
}

const fn mark(opener: &'static str, closer: &'static str, body: Body) -> Mark {
    Mark { opener, closer, body, any_name: true }
}

/// A mark that counts only before the name of one of the request's tools.
const fn loose(opener: &'static str, closer: &'static str, body: Body) -> Mark {
    Mark { opener, closer, body, any_name: false }
}

const BARE: Forced = Forced { before: &[], form: Form::Object("arguments"), after: &[] };

/// Hermes, Qwen 2.5 to 3.5, SmolLM 3, GLM 4.5, Granite 4 and many more, and models whose templates show no
/// spelling: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, or with tags of their own in between.
/// Qwen2.5-Coder writes `<tools>`, as its prompt does, and Qwen3-Coder omits the mark before the tag.
pub(super) static TAGGED: Spelling = Spelling {
    marks: &[
        mark("<tool_call>", "</tool_call>", Body::Tagged),
        loose("<tools>", "</tools>", Body::Json),
        loose("<function=", "</function>", Body::Tagged),
    ],
    others: &[],
    forced: Forced {
        before: &["<tool_call>", "\n"],
        form: Form::Object("arguments"),
        after: &["\n", "</tool_call>"],
    },
};

/// Seed-OSS: Qwen3-Coder's tags in a mark of its own.
pub(super) static SEED: Spelling = Spelling {
    marks: &[mark("<seed:tool_call>", "</seed:tool_call>", Body::Tagged)],
    others: &[],
    forced: BARE,
};

/// Mistral: `[TOOL_CALLS] [{"name": …, "arguments": {…}}]`.
pub(super) static MISTRAL: Spelling = Spelling {
    marks: &[mark("[TOOL_CALLS]", "", Body::Mistral)],
    others: &["[ARGS]", "[CALL_ID]"],
    forced: Forced { before: &["[TOOL_CALLS]", "["], form: Form::Object("arguments"), after: &["]"] },
};

/// Mistral since the eleventh version of its tokenizer: `[TOOL_CALLS]name[ARGS]{…}`.
pub(super) static MISTRAL_ARGS: Spelling = Spelling {
    forced: Forced { before: &["[TOOL_CALLS]"], form: Form::Named(&["[ARGS]"]), after: &[] },
    ..MISTRAL
};

/// Llama 3.1 to 4: `{"name": …, "parameters": {…}}`, the same or `name.call(key="value")` after
/// `<|python_tag|>`, and lists in Python's spelling.
pub(super) static LLAMA: Spelling = Spelling {
    marks: &[
        mark("<|python_tag|>", "", Body::Code),
        mark("<|python_start|>", "<|python_end|>", Body::Code),
        loose("<function=", "</function>", Body::Tagged),
    ],
    others: &[],
    forced: Forced { before: &[], form: Form::Object("parameters"), after: &[] },
};

/// FunctionGemma: `<start_function_call>call:name{key:<escape>text<escape>}<end_function_call>`.
pub(super) static GEMMA: Spelling = Spelling {
    marks: &[mark("<start_function_call>", "<end_function_call>", Body::Gemma("<escape>"))],
    others: &["<escape>"],
    forced: BARE,
};

/// Gemma 4: the same notation with marks of its own.
pub(super) static GEMMA4: Spelling = Spelling {
    marks: &[mark("<|tool_call>", "<tool_call|>", Body::Gemma("<|\"|>"))],
    others: &["<|\"|>"],
    forced: BARE,
};

/// Phi-4-mini: `<|tool_call|>[{"name": …, "arguments": {…}}]<|/tool_call|>`. Granite 3 has no end mark.
pub(super) static PHI: Spelling = Spelling {
    marks: &[
        mark("<|tool_call|>", "<|/tool_call|>", Body::Json),
        mark("<tool_call>", "</tool_call>", Body::Tagged),
    ],
    others: &[],
    forced: Forced { before: &["<|tool_call|>", "["], form: Form::Object("arguments"), after: &["]"] },
};

/// LFM2: `<|tool_call_start|>[name(key="value")]<|tool_call_end|>`.
pub(super) static LFM: Spelling = Spelling {
    marks: &[mark("<|tool_call_start|>", "<|tool_call_end|>", Body::Python)],
    others: &[],
    forced: Forced {
        before: &["<|tool_call_start|>", "["],
        form: Form::Object("arguments"),
        after: &["]", "<|tool_call_end|>"],
    },
};

/// DeepSeek V3, R1 and the models distilled from it, with both spellings of their marks.
pub(super) static DEEPSEEK: Spelling = Spelling {
    marks: &[
        mark("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", Body::Named),
        mark("<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", Body::Named),
        mark("<|tool▁calls▁begin|>", "<|tool▁calls▁end|>", Body::Named),
        mark("<|tool▁call▁begin|>", "<|tool▁call▁end|>", Body::Named),
        mark("<|tool_calls_begin|>", "<|tool_calls_end|>", Body::Named),
        mark("<|calls|>", "<|/calls|>", Body::Named),
        mark("<|call|>", "<|/call|>", Body::Named),
    ],
    others: &["<｜tool▁sep｜>", "<|tool▁sep|>", "<|tool_sep|>", "<|sep|>"],
    forced: BARE,
};

/// Kimi K2: `<|tool_call_begin|>functions.name:0<|tool_call_argument_begin|>{…}<|tool_call_end|>` within
/// `<|tool_calls_section_begin|>` and `<|tool_calls_section_end|>`.
pub(super) static KIMI: Spelling = Spelling {
    marks: &[
        mark("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", Body::Named),
        mark("<|tool_call_begin|>", "<|tool_call_end|>", Body::Named),
    ],
    others: &["<|tool_call_argument_begin|>"],
    forced: BARE,
};

/// gpt-oss: `<|channel|>commentary to=functions.name <|constrain|>json<|message|>{…}<|call|>`.
pub(super) static HARMONY: Spelling = Spelling {
    marks: &[
        mark("<|channel|>commentary to=", "<|call|>", Body::Named),
        mark("<|channel|>analysis to=", "<|call|>", Body::Named),
        mark("<|start|>assistant<|channel|>commentary to=", "<|call|>", Body::Named),
        mark("<|start|>assistant to=", "<|call|>", Body::Named),
    ],
    others: &["<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|end|>"],
    forced: BARE,
};

/// Command R7B and A: `<|START_ACTION|>[{"tool_call_id": …, "tool_name": …, "parameters":
/// {…}}]<|END_ACTION|>`.
pub(super) static COMMAND: Spelling = Spelling {
    marks: &[mark("<|START_ACTION|>", "<|END_ACTION|>", Body::Json)],
    others: &[],
    forced: Forced {
        before: &["<|START_ACTION|>", "["],
        form: Form::Object("parameters"),
        after: &["]", "<|END_ACTION|>"],
    },
};

/// InternLM 2.5 and 3.
pub(super) static INTERN: Spelling = Spelling {
    marks: &[mark("<|action_start|><|plugin|>", "<|action_end|>", Body::Json)],
    others: &["<|action_start|>", "<|plugin|>"],
    forced: BARE,
};

/// Nemotron.
pub(super) static NEMOTRON: Spelling =
    Spelling { marks: &[mark("<TOOLCALL>", "</TOOLCALL>", Body::Json)], others: &[], forced: BARE };

/// Jamba.
pub(super) static JAMBA: Spelling =
    Spelling { marks: &[mark("<tool_calls>", "</tool_calls>", Body::Json)], others: &[], forced: BARE };

/// Fences around calls, which models of every kind write.
pub(super) static FENCE: Mark = loose("```", "```", Body::Python);

/// No mark at all.
pub(super) static NONE: Mark = loose("", "", Body::Python);

/// Texts in a template, each with the spelling that it implies; the first that the template contains decides.
static SHOWN: &[(&str, &Spelling)] = &[
    ("[TOOL_CALLS]", &MISTRAL),
    ("<seed:tool_call>", &SEED),
    ("<start_function_call>", &GEMMA),
    ("<|tool_call>", &GEMMA4),
    ("<|tool_call_start|>", &LFM),
    ("<|tool_call_begin|>", &KIMI),
    ("tool▁call", &DEEPSEEK),
    ("<|tool_calls_begin|>", &DEEPSEEK),
    ("<|calls|>", &DEEPSEEK),
    ("<|START_ACTION|>", &COMMAND),
    ("<|action_start|>", &INTERN),
    ("<TOOLCALL>", &NEMOTRON),
    ("<|tool_call|>", &PHI),
    ("<tool_call>", &TAGGED),
    ("<function=", &TAGGED),
    ("<tool_calls>", &JAMBA),
    ("<|channel|>", &HARMONY),
    ("<|python_tag|>", &LLAMA),
    ("<|python_start|>", &LLAMA),
    (r#""parameters": "#, &LLAMA),
];

/// Returns the spelling that a template shows: it spells the calls of earlier messages, or tells the model
/// how to call. For a template that shows none, Realm chooses.
pub(super) fn detect(template: &str) -> &'static Spelling {
    let shown = SHOWN.iter().find(|(mark, _)| template.contains(mark));
    match shown {
        Some((_, spelling)) if std::ptr::eq(*spelling, &MISTRAL) && template.contains("[ARGS]") => {
            &MISTRAL_ARGS
        }
        Some((_, spelling)) => spelling,
        None => &TAGGED,
    }
}

/// The spelling of a model's tool calls.
#[derive(Debug, Clone)]
pub(crate) struct ToolSpelling {
    pub(super) spelling: &'static Spelling,
    /// Those of its marks that are control tokens of the model, which texts leave out otherwise.
    pub(super) control: Vec<(u32, &'static str)>,
}

impl ToolSpelling {
    /// Returns the spelling that a chat template shows, or the commonest if it shows none.
    pub(crate) fn of(template: Option<&ChatTemplate>, tokenizer: &Tokenizer) -> Self {
        let spelling = detect(template.map_or("", |template| template.source(true)));
        let marks = spelling.marks.iter().flat_map(|mark| [mark.opener, mark.closer]);
        let marks = marks.chain(spelling.others.iter().copied()).filter(|mark| !mark.is_empty());
        let mut control = Vec::new();
        for mark in marks {
            let token = tokenizer.token_id(mark).filter(|&id| tokenizer.kind(id) == Some(TokenKind::Control));
            control.extend(
                token.filter(|_| !control.iter().any(|&(_, other)| other == mark)).map(|id| (id, mark)),
            );
        }
        Self { spelling, control }
    }

    /// Returns the control tokens that must be in the text for calls to be found.
    pub(crate) fn spelled(&self) -> Vec<u32> {
        self.control.iter().map(|&(id, _)| id).collect()
    }
}
