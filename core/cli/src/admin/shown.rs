//! Tables of answers.

use anyhow::Result;
use serde_json::Value;

use crate::output::say;

/// Prints a line for each object of a list, with the fields `columns` and their names above. `a.b` is the
/// field `b` of `a`.
pub(super) fn table(list: &Value, columns: &[&str]) -> Result<()> {
    let rows: Vec<Vec<String>> = list
        .as_array()
        .map(|list| list.iter().map(|row| columns.iter().map(|name| cell(row, name)).collect()).collect())
        .unwrap_or_default();
    let title = |name: &&str| name.rsplit('.').next().unwrap_or(name).to_owned();
    let titles: Vec<String> = columns.iter().map(title).collect();
    let width =
        |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0).max(titles[at].len());
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    for row in std::iter::once(&titles).chain(&rows) {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        say!("{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

fn cell(row: &Value, name: &str) -> String {
    let value = name.split('.').fold(row, |value, key| &value[key]);
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            let items: Vec<_> =
                list.iter().map(|item| item.as_str().map_or(item.to_string(), str::to_owned)).collect();
            items.join(",")
        }
        other => other.to_string(),
    }
}
