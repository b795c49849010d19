//! Exact decimal numbers, and regular expressions for ranges of them.
//!
//! Texts of numbers have at most [`MAX_DIGITS`] digits before and after the point, or as many as the bounds
//! have. Otherwise a model that likes digits would never end its number. llama.cpp's grammars have the same
//! limit.

use std::cmp::Ordering;

use llguidance::derivre::RegexAst;
use serde_json::Number as JsonNumber;

/// The most digits of a number before the point, and after it, unless its bounds have more.
pub(super) const MAX_DIGITS: usize = 16;

/// An exponent up to 289, so that with 16 digits before it a number stays below the largest floating-point
/// number.
const EXPONENT: &str = "([eE][+-]?([0-9]{1,2}|1[0-9]{2}|2[0-8][0-9]))?";

/// A number as its digits, without leading or trailing zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    whole: String,
    fraction: String,
}

impl Decimal {
    /// Returns the number; `None` for one beyond 64 bits, whose digits the JSON parser has rounded.
    pub(super) fn new(number: &JsonNumber) -> Option<Self> {
        const BEYOND: f64 = 18_446_744_073_709_551_616.0;
        let text = match number.as_f64() {
            Some(value) if number.is_f64() => {
                if value.abs() >= BEYOND {
                    return None;
                }
                // Without an exponent, and with the fewest digits that give this number.
                format!("{value}")
            }
            _ => number.to_string(),
        };
        Some(Self::parse(&text))
    }

    pub(super) fn zero() -> Self {
        Self::parse("0")
    }

    /// Returns whether a number is beyond 64 bits.
    pub(super) fn is_huge(number: &JsonNumber) -> bool {
        Self::new(number).is_none()
    }

    fn parse(text: &str) -> Self {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let zero = whole.is_empty() && fraction.is_empty();
        Self { negative: negative && !zero, whole: whole.into(), fraction: fraction.into() }
    }

    pub(super) fn is_integer(&self) -> bool {
        self.fraction.is_empty()
    }

    pub(super) fn is_zero(&self) -> bool {
        self.whole.is_empty() && self.fraction.is_empty()
    }

    fn magnitude(&self) -> Self {
        Self { negative: false, ..self.clone() }
    }

    /// Returns its digits as a whole number, and how many of them follow the point.
    pub(super) fn scaled(&self) -> Option<(u32, u32)> {
        let digits = format!("{}{}", self.whole, self.fraction);
        Some((if digits.is_empty() { 0 } else { digits.parse().ok()? }, self.fraction.len() as u32))
    }

    /// Returns whether this is a whole multiple of `step`, which is not 0.
    pub(super) fn is_multiple_of(&self, step: &Self) -> bool {
        let places = self.fraction.len().max(step.fraction.len());
        let digits = |number: &Self| format!("{}{:0<places$}", number.whole, number.fraction);
        let Ok(step) = digits(step).parse::<u64>() else { return false };
        let step = u128::from(step);
        step != 0
            && digits(self).bytes().fold(0u128, |rest, digit| (rest * 10 + u128::from(digit - b'0')) % step)
                == 0
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let magnitude = || {
            let (a, b) = (self, other);
            a.whole.len().cmp(&b.whole.len()).then(a.whole.cmp(&b.whole)).then(a.fraction.cmp(&b.fraction))
        };
        match (self.negative, other.negative) {
            (false, false) => magnitude(),
            (true, true) => magnitude().reverse(),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

/// A number within bounds. A bound's flag says whether the bound itself is allowed.
#[derive(Debug, Clone, Default)]
pub(super) struct Number {
    pub(super) integer: bool,
    pub(super) low: Option<(Decimal, bool)>,
    pub(super) high: Option<(Decimal, bool)>,
    pub(super) multiples: Vec<Decimal>,
}

impl Number {
    /// Returns whether `value` is within the bounds and a multiple of the required steps.
    pub(super) fn accepts(&self, value: &Decimal) -> bool {
        let above = self.low.as_ref().is_none_or(|(low, itself)| value > low || *itself && value == low);
        let below = self.high.as_ref().is_none_or(|(high, itself)| value < high || *itself && value == high);
        let fits = self
            .multiples
            .iter()
            .all(|step| if step.is_zero() { value.is_zero() } else { value.is_multiple_of(step) });
        above && below && fits && (!self.integer || value.is_integer())
    }

    /// Returns whether no number is within the bounds. Does not consider multiples.
    pub(super) fn is_empty(&self) -> bool {
        match (&self.low, &self.high) {
            (Some((low, low_itself)), Some((high, high_itself))) => {
                low > high || low == high && !(*low_itself && *high_itself)
            }
            _ => false,
        }
    }

    /// The texts of these numbers.
    pub(super) fn regex(&self) -> RegexAst {
        if self.low.is_none() && self.high.is_none() && self.multiples.is_empty() {
            let whole = format!("-?(0|[1-9][0-9]{{0,{}}})", MAX_DIGITS - 1);
            return RegexAst::Regex(match self.integer {
                true => whole,
                false => format!("{whole}(\\.[0-9]{{1,{MAX_DIGITS}}})?{EXPONENT}"),
            });
        }
        let zero = Decimal::parse("0");
        let mut signs = Vec::new();
        // Below zero: the same with the bounds swapped, and without zero.
        if self.low.as_ref().is_none_or(|(low, _)| *low < zero) {
            let low = match &self.high {
                Some((high, itself)) if *high < zero => (high.magnitude(), *itself),
                _ => (zero.clone(), false),
            };
            let high = self.low.as_ref().map(|(low, itself)| (low.magnitude(), *itself));
            signs.push(RegexAst::Concat(vec![RegexAst::Byte(b'-'), self.magnitudes(&low, high.as_ref())]));
        }
        if self.high.as_ref().is_none_or(|(high, itself)| *high > zero || *high == zero && *itself) {
            let low = self.low.clone().filter(|(low, _)| *low >= zero).unwrap_or((zero, true));
            signs.push(self.magnitudes(&low, self.high.as_ref()));
        }
        RegexAst::Or(signs)
    }

    /// The texts, without a sign, of numbers from `low`, which is not negative, to `high`.
    fn magnitudes(&self, low: &(Decimal, bool), high: Option<&(Decimal, bool)>) -> RegexAst {
        let bounds = || [Some(low), high].into_iter().flatten().map(|(bound, _)| bound);
        // A number above a bound may have a digit more if there is no other bound.
        let most = |digits: usize| MAX_DIGITS.max(digits + 1);
        let before = most(bounds().map(|bound| bound.whole.len()).max().unwrap_or(0));
        let after = most(bounds().map(|bound| bound.fraction.len()).max().unwrap_or(0));
        let whole = format!("(0|[1-9][0-9]{{0,{}}})", before - 1);
        let form = if self.integer { whole } else { format!("{whole}(\\.[0-9]{{1,{after}}})?") };
        let mut all = vec![RegexAst::Regex(form), RegexAst::Regex(at_least(&low.0, low.1))];
        all.extend(high.map(|(high, itself)| RegexAst::Regex(at_most(high, *itself))));
        all.extend(self.multiples.iter().map(multiples));
        RegexAst::And(all)
    }
}

/// The multiples of `step`, as far as [`Decimal::scaled`] holds it. Zeros at the end of a whole step are
/// taken literally, which keeps the automaton small.
fn multiples(step: &Decimal) -> RegexAst {
    let (mut digits, places) = step.scaled().unwrap_or_default();
    let mut zeros = String::new();
    while places == 0 && digits >= 10 && digits.is_multiple_of(10) {
        digits /= 10;
        zeros.push('0');
    }
    if digits == 0 {
        return RegexAst::Regex(r"0(\.0+)?".into());
    }
    if zeros.is_empty() {
        return RegexAst::MultipleOf(digits, places);
    }
    let whole = RegexAst::Concat(vec![RegexAst::MultipleOf(digits, 0), RegexAst::Literal(zeros)]);
    let whole = RegexAst::Or(vec![RegexAst::Byte(b'0'), whole]);
    RegexAst::Concat(vec![whole, RegexAst::Regex(r"(\.0+)?".into())])
}

/// Whole numbers above `whole`: more digits, or one digit that is larger.
fn above(whole: &str) -> String {
    let mut options = vec![format!("[1-9][0-9]{{{},}}", whole.len())];
    for (i, digit) in whole.bytes().enumerate().filter(|(_, digit)| *digit < b'9') {
        let rest = whole.len() - i - 1;
        options.push(format!("{}[{}-9][0-9]{{{rest}}}", &whole[..i], (digit + 1) as char));
    }
    options.join("|")
}

/// Whole numbers below `whole`.
fn below(whole: &str) -> Option<String> {
    if whole.is_empty() {
        return None;
    }
    let mut options = vec!["0".to_owned()];
    if whole.len() > 1 {
        options.push(format!("[1-9][0-9]{{0,{}}}", whole.len() - 2));
    }
    for (i, digit) in whole.bytes().enumerate() {
        let least = if i == 0 { b'1' } else { b'0' };
        if digit > least {
            let rest = whole.len() - i - 1;
            options.push(format!(
                "{}[{}-{}][0-9]{{{rest}}}",
                &whole[..i],
                least as char,
                (digit - 1) as char
            ));
        }
    }
    Some(options.join("|"))
}

fn spelled(whole: &str) -> &str {
    if whole.is_empty() { "0" } else { whole }
}

/// Numbers, without a sign, above `bound`, and `bound` itself if `itself` is true.
fn at_least(bound: &Decimal, itself: bool) -> String {
    let digits = &bound.fraction;
    let mut fractions: Vec<String> = (digits.bytes().enumerate().filter(|(_, digit)| *digit < b'9'))
        .map(|(i, digit)| format!("{}[{}-9][0-9]*", &digits[..i], (digit + 1) as char))
        .collect();
    fractions.push(format!("{digits}[0-9]*{}", if itself { "" } else { "[1-9][0-9]*" }));
    let optional = if digits.is_empty() && itself { "?" } else { "" };
    let equal = format!(r"{}(\.({})){optional}", spelled(&bound.whole), fractions.join("|"));
    format!(r"({})(\.[0-9]+)?|{equal}", above(&bound.whole))
}

/// Numbers, without a sign, below `bound`, and `bound` itself if `itself` is true.
fn at_most(bound: &Decimal, itself: bool) -> String {
    let digits = &bound.fraction;
    let mut options: Vec<String> =
        below(&bound.whole).into_iter().map(|whole| format!(r"({whole})(\.[0-9]+)?")).collect();
    let whole = spelled(&bound.whole);
    if !digits.is_empty() {
        let mut fractions: Vec<String> = Vec::new();
        for (i, digit) in digits.bytes().enumerate() {
            if digit > b'0' {
                fractions.push(format!("{}[0-{}][0-9]*", &digits[..i], (digit - 1) as char));
            }
            if i > 0 {
                fractions.push(digits[..i].to_owned());
            }
        }
        if itself {
            fractions.push(format!("{digits}0*"));
        }
        options.push(format!(r"{whole}(\.({}))?", fractions.join("|")));
    } else if itself {
        options.push(format!(r"{whole}(\.0+)?"));
    }
    if options.is_empty() { "[^\\s\\S]".into() } else { options.join("|") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guide::schema::pattern;

    /// The expressions match every number of a small grid that is within the bounds, and no other one.
    #[test]
    fn ranges_match_what_is_within_them() {
        let bounds = [
            "-120", "-12.5", "-9.99", "-1", "-0.05", "0", "0.05", "0.5", "1", "3.25", "9.99", "10", "99",
            "120",
        ];
        let values: Vec<String> = (-1300..=1300)
            .flat_map(|n: i32| {
                let whole = format!("{}{}", if n < 0 { "-" } else { "" }, n.unsigned_abs());
                let tenth = format!(
                    "{}{}.{}",
                    if n < 0 { "-" } else { "" },
                    n.unsigned_abs() / 10,
                    n.unsigned_abs() % 10
                );
                let hundredth = format!(
                    "{}{}.{:02}",
                    if n < 0 { "-" } else { "" },
                    n.unsigned_abs() / 100,
                    n.unsigned_abs() % 100
                );
                [whole, tenth, hundredth]
            })
            .filter(|text| !text.starts_with("-0") || text.bytes().any(|b| (b'1'..=b'9').contains(&b)))
            .collect();
        for (i, low) in bounds.iter().map(|b| Decimal::parse(b)).enumerate() {
            for high in bounds[i..].iter().map(|b| Decimal::parse(b)) {
                for (low_itself, high_itself, integer) in
                    [(true, true, false), (false, true, false), (true, false, true), (false, false, false)]
                {
                    let number = Number {
                        integer,
                        low: Some((low.clone(), low_itself)),
                        high: Some((high.clone(), high_itself)),
                        multiples: Vec::new(),
                    };
                    if number.is_empty() {
                        continue;
                    }
                    let mut regex = pattern::compiled(&number.regex()).unwrap();
                    for text in &values {
                        let wanted =
                            number.accepts(&Decimal::parse(text)) && (!integer || !text.contains('.'));
                        assert_eq!(regex.is_match(text), wanted, "{text} in {number:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn bounds_are_exact_beyond_what_floating_point_holds() {
        let bound = |text: &str| Some((Decimal::parse(text), true));
        let number = Number {
            integer: true,
            low: bound("9007199254740993"),
            high: bound("9007199254740995"),
            multiples: Vec::new(),
        };
        let mut regex = pattern::compiled(&number.regex()).unwrap();
        for (text, within) in [
            ("9007199254740992", false),
            ("9007199254740993", true),
            ("9007199254740995", true),
            ("9007199254740996", false),
        ] {
            assert_eq!(regex.is_match(text), within, "{text}");
        }
    }
}
