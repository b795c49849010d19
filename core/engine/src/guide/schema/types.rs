//! A schema in few words: values, ranges, texts, arrays, objects, unions of them and references.

use std::rc::Rc;

use llguidance::derivre::RegexAst;
use serde_json::Value;

use super::decimal::Number;
use super::pattern;

pub(super) type S = Rc<Schema>;

/// A condition on a JSON value.
#[derive(Debug)]
pub(super) enum Schema {
    Any,
    /// No value, with the reason.
    Never(String),
    /// One of these values.
    Values(Vec<Value>),
    Number(Number),
    Text(Text),
    Array(Array),
    Object(Object),
    Union(Vec<S>),
    /// A definition, by its number in the reader.
    Ref(usize),
}

/// A text with a least and a most number of characters that all `forms` match as a whole.
#[derive(Debug, Clone, Default)]
pub(super) struct Text {
    pub(super) min: usize,
    pub(super) max: Option<usize>,
    pub(super) forms: Vec<RegexAst>,
}

/// An array: items of `prefix` in their places, then any number of `rest`.
#[derive(Debug, Clone)]
pub(super) struct Array {
    pub(super) prefix: Vec<S>,
    pub(super) rest: S,
    pub(super) min: usize,
    pub(super) max: Option<usize>,
    /// The place of `uniqueItems`.
    pub(super) unique: Option<String>,
}

/// An object. A property that is not among `properties` has the schema of the entry of `others` whose names
/// it matches.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) properties: Vec<(Rc<str>, S)>,
    pub(super) required: Vec<Rc<str>>,
    /// Sets of names, each given by expressions that all match. The sets exclude each other and cover all
    /// names.
    pub(super) others: Vec<(Vec<RegexAst>, S)>,
    pub(super) min: usize,
    pub(super) max: Option<usize>,
    /// The place of the schema.
    pub(super) path: String,
}

impl Schema {
    pub(super) fn any() -> S {
        Rc::new(Self::Any)
    }

    pub(super) fn never(why: impl Into<String>) -> S {
        Rc::new(Self::Never(why.into()))
    }

    pub(super) fn is_never(&self) -> bool {
        matches!(self, Self::Never(_))
    }

    pub(super) fn union(options: Vec<S>) -> S {
        let mut kept: Vec<S> = Vec::new();
        let mut why = None;
        for option in options {
            match &*option {
                Self::Any => return option,
                Self::Never(_) => why = why.or(Some(option)),
                Self::Union(inner) => kept.extend(inner.iter().cloned()),
                _ => kept.push(option),
            }
        }
        match kept.len() {
            0 => why.unwrap_or_else(|| Self::never("there is no option")),
            1 => kept.remove(0),
            _ => Rc::new(Self::Union(kept)),
        }
    }

    /// Returns schemas that together allow every value, one for each type.
    pub(super) fn all_types() -> Vec<S> {
        let path = String::new();
        [
            Self::Values(vec![Value::Null]),
            Self::Values(vec![Value::Bool(false), Value::Bool(true)]),
            Self::Number(Number::default()),
            Self::Text(Text::default()),
            Self::Array(Array { prefix: Vec::new(), rest: Self::any(), min: 0, max: None, unique: None }),
            Self::Object(Object::any(path)),
        ]
        .into_iter()
        .map(Rc::new)
        .collect()
    }
}

impl Object {
    pub(super) fn any(path: String) -> Self {
        let others = vec![(Vec::new(), Schema::any())];
        Self { properties: Vec::new(), required: Vec::new(), others, min: 0, max: None, path }
    }

    pub(super) fn requires(&self, name: &str) -> bool {
        self.required.iter().any(|required| &**required == name)
    }

    pub(super) fn require(&mut self, name: &Rc<str>) {
        if !self.requires(name) {
            self.required.push(Rc::clone(name));
        }
    }
}

impl Number {
    /// Returns the same number within further bounds.
    pub(super) fn within(&self, bound: Number) -> S {
        let mut number = self.clone();
        if let Some((low, itself)) = bound.low
            && number.low.as_ref().is_none_or(|(known, _)| *known <= low)
        {
            let both = number.low.as_ref().is_none_or(|(known, known_itself)| *known != low || *known_itself);
            number.low = Some((low, itself && both));
        }
        if let Some((high, itself)) = bound.high
            && number.high.as_ref().is_none_or(|(known, _)| *known >= high)
        {
            let both =
                number.high.as_ref().is_none_or(|(known, known_itself)| *known != high || *known_itself);
            number.high = Some((high, itself && both));
        }
        if number.is_empty() {
            Schema::never("every number is excluded")
        } else {
            Rc::new(Schema::Number(number))
        }
    }
}

impl Text {
    /// Returns all conditions as one expression.
    pub(super) fn regex(&self) -> RegexAst {
        if self.min == 0 && self.max.is_none() {
            return pattern::all(&self.forms);
        }
        let most = self.max.map_or(String::new(), |max| max.to_string());
        let length = RegexAst::Regex(format!("(?s:.{{{},{most}}})", self.min));
        pattern::all(&[&self.forms[..], &[length]].concat())
    }
}
