//! The lines of options in a file of TOML.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use crate::Error;

/// Returns an error with its line in a file, if the file has the option at fault or a table around it.
pub(super) fn located(error: Error, file: &Path) -> Error {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    match line(&text, &error.place) {
        // What is located once stays where it is.
        Some(line) => Error::new(format!("{}, line {line}: {}", file.display(), error.why)),
        None => error,
    }
}

fn line(text: &str, place: &[String]) -> Option<usize> {
    let whole = DeTable::parse(text).ok()?;
    let (mut table, mut found) = (whole.get_ref(), None);
    for name in place {
        let Some((key, value)) = table.iter().find(|(key, _)| key.get_ref() == name) else { break };
        found = Some(key.span().start);
        let DeValue::Table(inner) = value.get_ref() else { break };
        table = inner;
    }
    Some(text.get(..found?)?.matches('\n').count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_found_or_else_the_table_around_it() {
        let text =
            "port = 1\n\n[tenants.acme]\nmodels = []\nlimits.weight = 0\n[tenants.b]\nrates = { a = 1 }\n";
        for (place, expected) in [
            (&["port"][..], Some(1)),
            (&["tenants", "acme", "models"], Some(4)),
            (&["tenants", "acme", "limits", "weight"], Some(5)),
            (&["tenants", "acme", "program"], Some(3)),
            (&["tenants", "b", "rates"], Some(7)),
            (&["host"], None),
            (&[], None),
        ] {
            let place: Vec<_> = place.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(line(text, &place), expected, "{place:?}");
        }
        assert_eq!(line("port = [", &["port".to_owned()]), None);
    }
}
