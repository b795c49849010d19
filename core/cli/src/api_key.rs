//! `realm api-key`: the keys of a server.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use realm_server::Rates;
use realm_server::keys::{Key, Scope, Secret, Sqlite, Store, Used};

use crate::output::{note, say};

/// Make, list, rotate and revoke the API keys of `realm serve`
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    Create(CreateArgs),
    /// The keys, without their secrets, and what they have used
    List {
        #[command(flatten)]
        file: File,
    },
    /// Make a key with the same rights as an old one, which expires
    Rotate {
        /// The old key's id: the part between `rk_` and the second `_`
        id: String,
        /// The time until the old one expires, such as 30m, 24h or 7d
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = seconds)]
        overlap: u64,
        #[command(flatten)]
        file: File,
    },
    /// Refuse a key from now on; a running server notices within a second
    Revoke {
        /// The key's id: the part between `rk_` and the second `_`
        id: String,
        #[command(flatten)]
        file: File,
    },
}

/// Make a key. It is shown once, and kept nowhere
#[derive(clap::Args)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    key: KeyOptions,
    #[command(flatten)]
    file: File,
}

/// What a new key is for.
#[derive(clap::Args)]
pub(crate) struct KeyOptions {
    /// The tenant whose weight and limits the key's requests have
    #[arg(long)]
    pub(crate) tenant: String,
    /// A note, such as the owner's name
    #[arg(long, default_value = "")]
    pub(crate) note: String,
    /// What the key may call: inference, metrics, tenant-administration, administration; may be given several
    /// times
    #[arg(long, value_name = "SCOPE", default_value = "inference")]
    pub(crate) scope: Vec<Scope>,
    /// A model that the key may name; may be given several times [default: all]
    #[arg(long, value_name = "NAME")]
    model: Vec<String>,
    /// The time until the key expires, such as 12h or 90d [default: never]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(crate) expires: Option<u64>,
    /// The most requests in a minute
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) requests_per_minute: Option<u32>,
    /// The most tokens in a minute, of prompts and answers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) tokens_per_minute: Option<u32>,
    /// The most requests at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) concurrent_requests: Option<u32>,
}

impl KeyOptions {
    /// Returns the models that the key may name, or `None` for all.
    pub(crate) fn models(&self) -> Option<&[String]> {
        (!self.model.is_empty()).then_some(&*self.model)
    }
}

/// The file of keys.
#[derive(clap::Args)]
pub(crate) struct File {
    /// The file of keys, the same as for `realm serve`
    #[arg(long, value_name = "FILE.db")]
    api_keys: PathBuf,
}

impl File {
    fn open(&self) -> Result<Sqlite> {
        Ok(Sqlite::open(&self.api_keys)?)
    }

    /// Opens a file that has to be there.
    fn existing(&self) -> Result<Sqlite> {
        if !self.api_keys.exists() {
            let path = self.api_keys.display();
            bail!("there is no file {path}; `realm api-key create --api-keys {path} --tenant NAME` makes it");
        }
        self.open()
    }
}

pub(crate) fn api_key(command: &Command) -> Result<()> {
    match command {
        Command::Create(args) => create(args),
        Command::List { file } => list(&mut file.existing()?),
        Command::Rotate { id, overlap, file } => {
            let mut store = file.existing()?;
            let Some(old) = store.key(id)? else { bail!(no_key(id, &file.api_keys)) };
            let (new, secret) = Key::create(&*old.tenant).context("no random numbers for a key")?;
            let Key { note, scopes, models, rates, .. } = old;
            let new = Key { note, scopes, models, rates, ..new };
            if !store.rotate(id, &new, now() + overlap)? {
                bail!(no_key(id, &file.api_keys));
            }
            note!("{id} expires in {}", duration(*overlap));
            show(&new, &secret)
        }
        Command::Revoke { id, file } => {
            if !file.existing()?.revoke(id)? {
                bail!(no_key(id, &file.api_keys));
            }
            note!("{id} is revoked");
            Ok(())
        }
    }
}

fn create(CreateArgs { key: options, file }: &CreateArgs) -> Result<()> {
    let (key, secret) = Key::create(&*options.tenant).context("no random numbers for a key")?;
    let key = Key {
        note: options.note.clone(),
        scopes: options.scope.clone(),
        models: options.models().map(<[String]>::to_vec),
        rates: Rates {
            requests_per_minute: options.requests_per_minute,
            tokens_per_minute: options.tokens_per_minute,
            concurrent_requests: options.concurrent_requests,
        },
        expires: options.expires.map(|time| key.created + time),
        ..key
    };
    file.open()?.add(&key)?;
    show(&key, &secret)
}

/// Prints a key, alone on stdout.
fn show(key: &Key, secret: &Secret) -> Result<()> {
    note!("a key of the tenant `{}`, which is shown this once:", key.tenant);
    say!("{}", secret.as_str())?;
    Ok(())
}

fn no_key(id: &str, path: &Path) -> String {
    format!("there is no key `{id}` in {}; `realm api-key list` shows their ids", path.display())
}

fn list(store: &mut Sqlite) -> Result<()> {
    let used: HashMap<String, Used> = store.usage()?.into_iter().collect();
    let now = now();
    say!(
        "{:<11} {:<16} {:<20} {:>10} {:>10} {:>12}  note",
        "id",
        "tenant",
        "scopes",
        "expires",
        "requests",
        "tokens"
    )?;
    for key in store.keys()? {
        let Used { requests, prompt_tokens, generated_tokens, .. } =
            used.get(&key.id).copied().unwrap_or_default();
        let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.as_str()).collect();
        let expires = match key.expires {
            None => "never".to_owned(),
            Some(time) if time <= now => "expired".to_owned(),
            Some(time) => format!("in {}", duration(time - now)),
        };
        let line = format!(
            "{:<11} {:<16} {:<20} {expires:>10} {requests:>10} {:>12}  {}",
            key.id,
            key.tenant,
            scopes.join(","),
            prompt_tokens + generated_tokens,
            key.note
        );
        say!("{}", line.trim_end())?;
    }
    Ok(())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

const UNITS: [(char, u64); 4] = [('d', 24 * 3600), ('h', 3600), ('m', 60), ('s', 1)];

/// Parses a time such as 90d, 24h, 30m or 10s.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no time such as 30m, 24h or 90d");
    let unit = UNITS.iter().find(|(unit, _)| text.ends_with(*unit)).ok_or_else(wrong)?;
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    // A thousand years: later times are mistakes.
    number.checked_mul(unit.1).filter(|&time| time < 1000 * 366 * 24 * 3600).ok_or_else(wrong)
}

/// Writes a time in its largest unit.
fn duration(seconds: u64) -> String {
    let (unit, size) = UNITS.iter().find(|(_, size)| seconds >= 2 * size || *size == 1).unwrap_or(&('s', 1));
    format!("{}{unit}", seconds / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        assert_eq!([seconds("90d"), seconds("24h"), seconds("0s")], [Ok(7_776_000), Ok(86_400), Ok(0)]);
        for bad in ["", "d", "5", "-5d", "5w", "5.5h", "99999999999d"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
        assert_eq!([0, 119, 7_200, 86_400, 7_776_000].map(duration), ["0s", "119s", "2h", "24h", "90d"]);
    }
}
