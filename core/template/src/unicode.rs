//! Classes and cases of characters, by the rules of Python's `str`.

use unicode_properties::{
    GeneralCategory as Category, GeneralCategoryGroup as Group, UnicodeGeneralCategory,
};

/// Digits (`Numeric_Type=Digit`) that are not decimal digits: superscripts, circled digits and the like.
const DIGITS: [(u32, u32); 20] = [
    (0xb2, 0xb3),
    (0xb9, 0xb9),
    (0x1369, 0x1371),
    (0x19da, 0x19da),
    (0x2070, 0x2070),
    (0x2074, 0x2079),
    (0x2080, 0x2089),
    (0x2460, 0x2468),
    (0x2474, 0x247c),
    (0x2488, 0x2490),
    (0x24ea, 0x24ea),
    (0x24f5, 0x24fd),
    (0x24ff, 0x24ff),
    (0x2776, 0x277e),
    (0x2780, 0x2788),
    (0x278a, 0x2792),
    (0x10a40, 0x10a43),
    (0x10e60, 0x10e68),
    (0x11052, 0x1105a),
    (0x1f100, 0x1f10a),
];

/// Ideographs that are numbers (`Numeric_Type=Numeric` outside category N).
const NUMERALS: &str = "㐅㒃㠪㭍一七万三九二五亖亿什仟仨伍佰億兆兩八六十千卄卅卌叁参參叄四壱壹幺廾廿弌弍弎弐拾捌柒漆玖百肆萬貮貳贰阡陆陌陸零\u{f96b}\u{f973}\u{f978}\u{f9b2}\u{f9d1}\u{f9d3}\u{f9fd}\u{20001}\u{20064}\u{200e2}\u{20121}\u{2092a}\u{20983}\u{2098c}\u{2099c}\u{20aea}\u{20afd}\u{20b19}\u{22390}\u{22998}\u{23b1b}\u{2626d}\u{2f890}";

pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

pub(crate) fn is_alpha(c: char) -> bool {
    c.is_ascii_alphabetic() || (!c.is_ascii() && c.general_category_group() == Group::Letter)
}

pub(crate) fn is_decimal(c: char) -> bool {
    c.is_ascii_digit() || (!c.is_ascii() && c.general_category() == Category::DecimalNumber)
}

pub(crate) fn is_digit(c: char) -> bool {
    let code = c as u32;
    is_decimal(c) || DIGITS.iter().any(|&(first, last)| (first..=last).contains(&code))
}

pub(crate) fn is_numeric(c: char) -> bool {
    c.is_ascii_digit()
        || (!c.is_ascii() && (c.general_category_group() == Group::Number || NUMERALS.contains(c)))
}

pub(crate) fn is_alnum(c: char) -> bool {
    is_alpha(c) || is_numeric(c)
}

/// Returns whether the character may be part of a word (`\w` of Python's regular expressions).
pub(crate) fn is_word(c: char) -> bool {
    c == '_' || is_alnum(c)
}

pub(crate) fn is_title(c: char) -> bool {
    !c.is_ascii() && c.general_category() == Category::TitlecaseLetter
}

/// Returns whether the character is upper, lower or title case.
pub(crate) fn is_cased(c: char) -> bool {
    c.is_lowercase() || c.is_uppercase() || is_title(c)
}

/// Returns whether `repr` shows the character itself.
pub(crate) fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    use Category as C;
    !matches!(
        c.general_category(),
        C::Control
            | C::Format
            | C::Surrogate
            | C::PrivateUse
            | C::Unassigned
            | C::LineSeparator
            | C::ParagraphSeparator
            | C::SpaceSeparator
    )
}

/// Returns the value of a decimal digit in any script.
pub(crate) fn decimal_value(c: char) -> Option<u32> {
    if let Some(value) = c.to_digit(10) {
        return Some(value);
    }
    if !is_decimal(c) {
        return None;
    }
    // Decimal digits come in blocks of ten that begin with the zero.
    let mut zero = c as u32;
    while char::from_u32(zero - 1).is_some_and(is_decimal) && c as u32 - zero < 9 {
        zero -= 1;
    }
    // Blocks may be adjacent (mathematical digits); those begin at 1D7CE.
    if (0x1d7ce..=0x1d7ff).contains(&(c as u32)) {
        return Some((c as u32 - 0x1d7ce) % 10);
    }
    Some(c as u32 - zero)
}

pub(crate) fn push_lower(c: char, out: &mut String) {
    out.extend(c.to_lowercase());
}

pub(crate) fn push_upper(c: char, out: &mut String) {
    out.extend(c.to_uppercase());
}

/// Writes the title case of a character: the first letter of its upper case, the others in lower case.
pub(crate) fn push_title(c: char, out: &mut String) {
    let code = c as u32;
    let plain = match code {
        0x1c4..=0x1c6 => Some(0x1c5),
        0x1c7..=0x1c9 => Some(0x1c8),
        0x1ca..=0x1cc => Some(0x1cb),
        0x1f1..=0x1f3 => Some(0x1f2),
        0x10d0..=0x10ff => Some(code),
        0x1f80..=0x1faf => Some(code | 8),
        0x1fb3 | 0x1fbc | 0x1fb7 => Some(0x1fbc),
        0x1fc3 | 0x1fcc | 0x1fc7 => Some(0x1fcc),
        0x1ff3 | 0x1ffc | 0x1ff7 => Some(0x1ffc),
        0x1fb2 => Some(0x1fba),
        0x1fb4 => Some(0x386),
        0x1fc2 => Some(0x1fca),
        0x1fc4 => Some(0x389),
        0x1ff2 => Some(0x1ffa),
        0x1ff4 => Some(0x38f),
        _ => None,
    };
    if let Some(plain) = plain.and_then(char::from_u32) {
        out.push(plain);
        match code {
            0x1fb2 | 0x1fb4 | 0x1fc2 | 0x1fc4 | 0x1ff2 | 0x1ff4 => out.push('\u{345}'),
            0x1fb7 | 0x1fc7 | 0x1ff7 => out.push('\u{342}'),
            _ => {}
        }
        return;
    }
    let mut upper = c.to_uppercase();
    out.extend(upper.next());
    if c == 'ŉ' {
        out.extend(upper);
    } else {
        upper.for_each(|c| out.extend(c.to_lowercase()));
    }
}

/// Writes the full case folding of a character.
pub(crate) fn push_folded(c: char, out: &mut String) {
    match c as u32 {
        0x131 | 0x13a0..=0x13f5 => out.push(c),
        0x13f8..=0x13fd | 0xab70..=0xabbf => out.extend(c.to_uppercase()),
        0x1e9e => out.push_str("ss"),
        _ => c.to_uppercase().for_each(|c| out.extend(c.to_lowercase())),
    }
}

/// Returns whether a capital sigma at a byte ends its word, so that its lower case is `ς`.
pub(crate) fn is_final_sigma(text: &str, at: usize) -> bool {
    // Skip apostrophes, combining marks and the like.
    let ignorable = |c: char| {
        matches!(c, '\'' | '.' | ':' | '·' | '’' | '‘' | '^' | '`')
            || (!c.is_ascii()
                && (c.general_category_group() == Group::Mark
                    || matches!(
                        c.general_category(),
                        Category::Format | Category::ModifierLetter | Category::ModifierSymbol
                    )))
    };
    let before = text[..at].chars().rev().find(|&c| !ignorable(c));
    let after = text[at..].chars().skip(1).find(|&c| !ignorable(c));
    before.is_some_and(is_cased) && !after.is_some_and(is_cased)
}

pub(crate) fn is_mark(c: char) -> bool {
    !c.is_ascii() && c.general_category_group() == Group::Mark
}
