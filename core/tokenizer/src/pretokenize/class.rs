//! Classes of characters that pre-tokenizers distinguish.

use unicode_properties::{GeneralCategory as C, UnicodeGeneralCategory};

/// The classes that regular expressions name `\p{..}` and `\s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// `\p{Lu}`, `\p{Lt}`
    Upper,
    /// `\p{Ll}`
    Lower,
    /// `\p{Lm}`, `\p{Lo}`
    Caseless,
    /// `\p{M}`
    Mark,
    /// `\p{N}`
    Number,
    /// `\p{P}`
    Punctuation,
    /// `\p{S}`
    Symbol,
    /// `\s`
    Space,
    Other,
}

pub(super) fn class(c: char) -> Class {
    match c {
        'a'..='z' => return Class::Lower,
        'A'..='Z' => return Class::Upper,
        '0'..='9' => return Class::Number,
        _ if c.is_whitespace() => return Class::Space,
        _ => {}
    }
    match c.general_category() {
        C::UppercaseLetter | C::TitlecaseLetter => Class::Upper,
        C::LowercaseLetter => Class::Lower,
        C::ModifierLetter | C::OtherLetter => Class::Caseless,
        C::NonspacingMark | C::SpacingMark | C::EnclosingMark => Class::Mark,
        C::DecimalNumber | C::LetterNumber | C::OtherNumber => Class::Number,
        C::ConnectorPunctuation
        | C::DashPunctuation
        | C::OpenPunctuation
        | C::ClosePunctuation
        | C::InitialPunctuation
        | C::FinalPunctuation
        | C::OtherPunctuation => Class::Punctuation,
        C::MathSymbol | C::CurrencySymbol | C::ModifierSymbol | C::OtherSymbol => Class::Symbol,
        _ => Class::Other,
    }
}

pub(super) fn is_letter(c: char) -> bool {
    matches!(class(c), Class::Upper | Class::Lower | Class::Caseless)
}

pub(super) fn is_mark(c: char) -> bool {
    class(c) == Class::Mark
}

pub(super) fn is_number(c: char) -> bool {
    class(c) == Class::Number
}

pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace()
}

pub(super) fn is_newline(c: char) -> bool {
    matches!(c, '\r' | '\n')
}

pub(super) fn is_punctuation(c: char) -> bool {
    class(c) == Class::Punctuation
}

pub(super) fn is_punctuation_or_symbol(c: char) -> bool {
    matches!(class(c), Class::Punctuation | Class::Symbol)
}

/// `[^\s\p{L}\p{N}]`
pub(super) fn is_other(c: char) -> bool {
    !matches!(class(c), Class::Upper | Class::Lower | Class::Caseless | Class::Number | Class::Space)
}
