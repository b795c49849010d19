//! Formats dates like C's `strftime` in the locale "C".

use jiff::ZonedDateTime;

use crate::error::Result;
use crate::interpreter::Renderer;
use crate::text::{Builder, Text};

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Formats a time. The result is foreign if any part of the format is.
pub(crate) fn format(renderer: &Renderer<'_>, format: &Text, now: &ZonedDateTime) -> Result<Text> {
    let mut out = Builder::new(&renderer.budget);
    let foreign = format.any_foreign();
    let mut rest = format.as_str();
    while let Some(at) = rest.find('%') {
        out.push_as(&rest[..at], foreign)?;
        let directive = &rest[at..];
        let mut after = &directive[1..];
        let flag = after.chars().next().filter(|c| matches!(c, '-' | '_' | '0' | '^' | '#'));
        if flag.is_some() {
            after = &after[1..];
        }
        after = after.strip_prefix(['E', 'O']).unwrap_or(after);
        let Some(kind) = after.chars().next() else {
            out.push_as(directive, foreign)?;
            rest = "";
            break;
        };
        rest = &after[kind.len_utf8()..];
        match written(kind, now) {
            Some(text) => out.push_as(&flagged(text, flag), foreign)?,
            None => out.push_as(&directive[..directive.len() - rest.len()], foreign)?,
        }
        renderer.budget.step(1)?;
    }
    out.push_as(rest, foreign)?;
    Ok(out.finish())
}

/// Applies GNU's flags to a part.
fn flagged(text: String, flag: Option<char>) -> String {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b' ');
    match flag {
        Some('-') if digits => match text.trim_start_matches(['0', ' ']) {
            "" => "0".into(),
            short => short.into(),
        },
        Some('_') if digits => {
            let short = text.trim_start_matches('0');
            let short = if short.is_empty() { "0" } else { short };
            format!("{short:>width$}", width = text.len())
        }
        Some('0') if digits => text.replace(' ', "0"),
        Some('^') => text.to_uppercase(),
        Some('#') => text.to_uppercase(),
        _ => text,
    }
}

fn written(kind: char, now: &ZonedDateTime) -> Option<String> {
    let (year, month, day) = (i64::from(now.year()), now.month(), now.day());
    let (hour, minute, second) = (now.hour(), now.minute(), now.second());
    let weekday = now.weekday().to_sunday_zero_offset() as usize;
    let of_year = now.day_of_year();
    let month_name = MONTHS.get(usize::try_from(month - 1).unwrap_or(0)).copied().unwrap_or_default();
    let twelve = if hour % 12 == 0 { 12 } else { hour % 12 };
    let all =
        |kinds: &str| kinds.chars().map(|c| written(c, now).unwrap_or_else(|| c.into())).collect::<String>();
    Some(match kind {
        'a' => DAYS[weekday][..3].into(),
        'A' => DAYS[weekday].into(),
        'b' | 'h' => month_name.get(..3)?.into(),
        'B' => month_name.into(),
        'c' => format!("{} {} {:>2} {} {year}", all("a"), all("b"), day, all("T")),
        'C' => format!("{:02}", year / 100),
        'd' => format!("{day:02}"),
        'D' | 'x' => all("m/d/y"),
        'e' => format!("{day:>2}"),
        'f' => format!("{:06}", now.subsec_nanosecond() / 1000),
        'F' => format!("{year}-{month:02}-{day:02}"),
        'g' => format!("{:02}", i64::from(now.date().iso_week_date().year()) % 100),
        'G' => now.date().iso_week_date().year().to_string(),
        'H' => format!("{hour:02}"),
        'I' => format!("{twelve:02}"),
        'j' => format!("{of_year:03}"),
        'k' => format!("{hour:>2}"),
        'l' => format!("{twelve:>2}"),
        'm' => format!("{month:02}"),
        'M' => format!("{minute:02}"),
        'n' => "\n".into(),
        'p' => (if hour < 12 { "AM" } else { "PM" }).into(),
        'P' => (if hour < 12 { "am" } else { "pm" }).into(),
        'r' => format!("{} {}", all("I:M:S"), all("p")),
        'R' => all("H:M"),
        's' => now.timestamp().as_second().to_string(),
        'S' => format!("{second:02}"),
        't' => "\t".into(),
        'T' | 'X' => all("H:M:S"),
        'u' => (if weekday == 0 { 7 } else { weekday }).to_string(),
        'U' => format!("{:02}", (of_year as usize + 6 - weekday) / 7),
        'V' => format!("{:02}", now.date().iso_week_date().week()),
        'w' => weekday.to_string(),
        'W' => format!("{:02}", (of_year as usize + 6 - (weekday + 6) % 7) / 7),
        'y' => format!("{:02}", year.rem_euclid(100)),
        'Y' => year.to_string(),
        // Python's `datetime.now()` has no time zone.
        'z' | 'Z' => String::new(),
        '%' => "%".into(),
        _ => return None,
    })
}
