//! Named chat templates, for files that have no template or a broken one. The names are llama.cpp's.

use crate::Error;

macro_rules! templates {
    ($($name:literal $(| $other:literal)* => $file:literal),* $(,)?) => {
        /// Names and their templates.
        const TEMPLATES: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("builtin/", $file, ".jinja"))), $(($other, include_str!(concat!("builtin/", $file, ".jinja"))),)*)*];
    };
}

templates! {
    "chatml" => "chatml",
    "command-r" => "command-r",
    "deepseek" => "deepseek",
    "deepseek2" => "deepseek2",
    "deepseek3" => "deepseek3",
    "exaone3" => "exaone3",
    "falcon3" => "falcon3",
    "gemma" => "gemma",
    "glm4" | "chatglm4" => "glm4",
    "granite" => "granite",
    "llama2" => "llama2",
    "llama3" => "llama3",
    "minicpm" => "minicpm",
    "mistral-v1" => "mistral-v1",
    "mistral" | "mistral-v3" => "mistral-v3",
    "mistral-v7" => "mistral-v7",
    "monarch" => "monarch",
    "openchat" => "openchat",
    "orion" => "orion",
    "phi3" => "phi3",
    "phi4" => "phi4",
    "vicuna" => "vicuna",
    "zephyr" => "zephyr",
}

/// Names of the builtin chat templates, in alphabetical order: `chatml`, `gemma`, `llama3` and so on.
pub fn names() -> impl Iterator<Item = &'static str> {
    let mut names: Vec<_> = TEMPLATES.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    names.into_iter()
}

/// Returns the template that `text` names, or else `text` itself.
///
/// # Errors
/// A text that is one word but no name: as a template it would give the same prompt for every conversation.
pub(super) fn source(text: &str) -> Result<&str, Error> {
    let name = text.trim();
    if let Some((_, source)) = TEMPLATES.iter().find(|(known, _)| *known == name) {
        return Ok(source);
    }
    let word = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c));
    if word {
        let known = names().collect::<Vec<_>>().join(", ");
        return Err(Error::Template(format!(
            "no builtin template is called `{name}`; there are {known}. A template itself has Jinja's `{{{{ … }}}}` in it"
        )));
    }
    Ok(text)
}
