//! `realm admin keys`.

use anyhow::Result;
use serde_json::{Value, json};

use super::client::{Client, escaped};
use super::shown::table;
use crate::api_key::{KeyOptions, seconds};
use crate::output::{note, say};

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// The keys, without their secrets, and what they have used
    List,
    /// Make a key. It is shown once
    Create(KeyOptions),
    /// Make a key with the same rights as an old one, which expires
    Rotate {
        /// The old key's id: the part between `rk_` and the second `_`
        id: String,
        /// The time until the old one expires, such as 30m, 24h or 7d
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = seconds)]
        overlap: u64,
    },
    /// Refuse a key from now on
    Revoke {
        /// The key's id: the part between `rk_` and the second `_`
        id: String,
    },
}

impl Command {
    pub(super) fn run(&self, client: &Client) -> Result<()> {
        match self {
            Self::List => {
                let all = client.get("/admin/keys")?;
                if client.json {
                    return client.show(&all);
                }
                let columns = ["id", "tenant", "scopes", "expires", "used.requests", "note"];
                table(&all["keys"], &columns)
            }
            Self::Create(options) => create(options, client),
            Self::Rotate { id, overlap } => {
                let path = format!("/admin/keys/{}/rotate", escaped(id));
                show(client, &client.send("POST", &path, &json!({"overlap": overlap}))?)
            }
            Self::Revoke { id } => {
                client.send("DELETE", &format!("/admin/keys/{}", escaped(id)), &Value::Null)?;
                note!("{id} is revoked");
                Ok(())
            }
        }
    }
}

fn create(options: &KeyOptions, client: &Client) -> Result<()> {
    let scopes: Vec<_> = options.scope.iter().map(|scope| scope.as_str()).collect();
    let body = json!({
        "tenant": options.tenant,
        "note": options.note,
        "scopes": scopes,
        "models": options.models(),
        "rates": {
            "requests-per-minute": options.requests_per_minute,
            "tokens-per-minute": options.tokens_per_minute,
            "concurrent-requests": options.concurrent_requests,
        },
        "expires-in": options.expires,
    });
    show(client, &client.send("POST", "/admin/keys", &body)?)
}

/// Prints a key, alone on stdout.
fn show(client: &Client, answer: &Value) -> Result<()> {
    if client.json {
        return client.show(answer);
    }
    note!(
        "a key of the tenant `{}`, which is shown this once:",
        answer["tenant"].as_str().unwrap_or_default()
    );
    say!("{}", answer["key"].as_str().unwrap_or_default())?;
    Ok(())
}
