//! `realm admin keys`.

use anyhow::Result;
use realm_server::keys::Scope;
use serde_json::{Value, json};

use super::client::{Client, escaped};
use super::shown::table;
use crate::api_key::seconds;
use crate::output::{note, say};

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// The keys, without their secrets, and what they have used
    List,
    /// Make a key. It is shown once
    Create(Create),
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

#[derive(clap::Args)]
pub(crate) struct Create {
    /// The tenant that the key's requests belong to
    #[arg(long)]
    tenant: String,
    /// A note, such as the owner's name
    #[arg(long, default_value = "")]
    note: String,
    /// What the key may call: inference, metrics, tenant-administration, administration; may be given several
    /// times
    #[arg(long, value_name = "SCOPE", default_value = "inference")]
    scope: Vec<Scope>,
    /// A model that the key may name; may be given several times [default: all]
    #[arg(long, value_name = "NAME")]
    model: Vec<String>,
    /// The time until the key expires, such as 12h or 90d [default: never]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    expires: Option<u64>,
    /// The most requests in a minute
    #[arg(long, value_name = "N")]
    requests_per_minute: Option<u32>,
    /// The most tokens in a minute, of prompts and answers
    #[arg(long, value_name = "N")]
    tokens_per_minute: Option<u32>,
    /// The most requests at once
    #[arg(long, value_name = "N")]
    concurrent_requests: Option<u32>,
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
            Self::Create(create) => create.run(client),
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

impl Create {
    fn run(&self, client: &Client) -> Result<()> {
        let scopes: Vec<_> = self.scope.iter().map(|scope| scope.as_str()).collect();
        let body = json!({
            "tenant": self.tenant,
            "note": self.note,
            "scopes": scopes,
            "models": (!self.model.is_empty()).then_some(&self.model),
            "rates": {
                "requests-per-minute": self.requests_per_minute,
                "tokens-per-minute": self.tokens_per_minute,
                "concurrent-requests": self.concurrent_requests,
            },
            "expires-in": self.expires,
        });
        show(client, &client.send("POST", "/admin/keys", &body)?)
    }
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
