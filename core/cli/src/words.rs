//! A prompt on the command line.

use std::ffi::OsString;
use std::io::{IsTerminal, Read};

use anyhow::{Context, Result, bail};

/// Marks a word of a prompt that begins with a hyphen, so that it is not parsed as an option: a code point
/// that is not a character.
const MARK: char = '\u{10FFFF}';

/// The words of a prompt.
#[derive(clap::Args)]
pub(crate) struct Words {
    /// Prompt to answer: words, with or without quotes, which may begin with a hyphen; `-`, or nothing if
    /// stdin is not a terminal, reads stdin
    #[arg(value_name = "PROMPT")]
    words: Vec<String>,
}

impl Words {
    /// Returns the text of the prompt.
    pub(crate) fn read(&self) -> Result<String> {
        let words: Vec<&str> =
            self.words.iter().map(|word| word.strip_prefix(MARK).unwrap_or(word)).collect();
        let from_stdin = match words[..] {
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
            return Ok(words.join(" "));
        }
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read the prompt from stdin")?;
        Ok(text)
    }
}

/// Marks the arguments that begin with a hyphen and can be neither an option nor the value of one, such as
/// `-5` or `- milk`: they are words of a prompt. `takes_value` returns whether the argument before is an
/// option that takes a value.
pub(crate) fn mark(arguments: Vec<OsString>, takes_value: impl Fn(&str) -> bool) -> Vec<OsString> {
    let mut marked: Vec<OsString> = Vec::with_capacity(arguments.len());
    let mut escaped = false;
    for argument in arguments {
        escaped |= argument == "--";
        let said = argument.to_str().is_some_and(|text| {
            text.len() > 1 && text.starts_with('-') && text != "--" && !looks_like_option(text)
        });
        let is_value = marked.last().and_then(|before| before.to_str()).is_some_and(&takes_value);
        marked.push(match argument.to_str() {
            Some(text) if said && !is_value && !escaped => format!("{MARK}{text}").into(),
            _ => argument,
        });
    }
    marked
}

/// Returns whether a word looks like `-x`, `-ngl`, `--name` or `--name=value`, and not like ordinary text.
fn looks_like_option(word: &str) -> bool {
    let Some(name) = word.strip_prefix('-') else { return false };
    let name = name.strip_prefix('-').unwrap_or(name);
    let name = name.split_once('=').map_or(name, |(name, _)| name);
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
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
    fn what_is_said_is_marked_and_values_and_options_are_not() {
        let marked = |arguments: &[&str]| {
            let arguments = arguments.iter().map(OsString::from).collect();
            let marked = mark(arguments, |option| option == "--seed");
            marked.iter().map(|word| word.to_str().unwrap().replace(MARK, "*")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(marked(&["run", "m", "-5", "--seed", "-1", "- milk"]), "run m *-5 --seed -1 *- milk");
        assert_eq!(marked(&["run", "m", "-x", "-", "--", "-5"]), "run m -x - -- -5");
    }
}
