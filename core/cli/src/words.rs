//! A prompt on the command line.

use anyhow::{Context, Result, bail};
use std::io::{IsTerminal, Read};

/// The prompt's words. Whatever is no option is one, so `-5 + 3` needs no care.
#[derive(clap::Args)]
pub(crate) struct Words {
    /// What to answer: words up to the end, with or without quotes; `-`, or nothing where stdin is no terminal, reads stdin
    #[arg(value_name = "PROMPT", allow_hyphen_values = true)]
    words: Vec<String>,
}

impl Words {
    /// The prompt's text.
    pub(crate) fn read(&self) -> Result<String> {
        let from_stdin = match &self.words[..] {
            [] if std::io::stdin().is_terminal() => {
                bail!(
                    "there is no prompt: put it after the model's name, or talk with the model with `realm chat MODEL`"
                )
            }
            [] => true,
            [word] => word == "-",
            _ => false,
        };
        if !from_stdin {
            return Ok(self.words.join(" "));
        }
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read the prompt from stdin")?;
        Ok(text)
    }

    /// The first word that was meant as an option; the last `escaped` ones came after `--`.
    pub(crate) fn mistyped(&self, escaped: usize) -> Option<&str> {
        let words = &self.words[..self.words.len().saturating_sub(escaped)];
        words.iter().map(String::as_str).find(|word| looks_like_option(word))
    }
}

/// Whether a word is `-x`, `-ngl`, `--name` or `--name=value` and nothing that a person would say.
fn looks_like_option(word: &str) -> bool {
    let Some(name) = word.strip_prefix('-') else { return false };
    let name = name.strip_prefix('-').unwrap_or(name);
    let name = name.split_once('=').map_or(name, |(name, _)| name);
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

/// The option that is nearest to a mistyped one, if one is near.
pub(crate) fn nearest<'a>(typed: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.trim_start_matches('-').split('=').next().unwrap_or_default();
    let near = names.map(|name| (distance(typed, name), name)).min()?;
    (near.0 <= typed.len() / 3).then_some(near.1)
}

/// Insertions, deletions and replacements that make one of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, &y) in b.iter().enumerate() {
            let replaced = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_told_from_what_people_say() {
        for option in ["-n", "-ngl", "--temprature", "--seed=1", "--top_k"] {
            assert!(looks_like_option(option), "{option}");
        }
        for said in
            ["-5", "- milk", "--", "-", "--> there", "-40 degrees", "---", "–5", "--no, thanks", "-.5"]
        {
            assert!(!looks_like_option(said), "{said}");
        }
    }

    #[test]
    fn a_mistyped_option_has_a_nearest_one() {
        let names = ["temperature", "top-k", "seed"];
        assert_eq!(nearest("--temprature", names.into_iter()), Some("temperature"));
        assert_eq!(nearest("--top_k=3", names.into_iter()), Some("top-k"));
        assert_eq!(nearest("--colour", names.into_iter()), None);
    }
}
