//! `realm serve`: models over HTTP.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use realm_server::{Config, ModelConfig, Reloader, Server, Stopper, Tls};

use crate::options::LoadingOptions;
use crate::output::note;
use crate::progress::Bars;

/// Serve models over HTTP, to the clients of OpenAI, Anthropic and ollama
#[derive(clap::Args, Clone)]
pub(crate) struct Args {
    /// Models: GGUF files, folders as transformers saves them, catalog names, or hf: references. Clients name
    /// one as it is written here, a file by its name without folders and `.gguf`, and NAME=MODEL by NAME
    #[arg(value_name = "MODEL")]
    models: Vec<String>,
    /// The address and port of administration, such as 127.0.0.1:8081, for `realm admin`. Needs --api-keys
    /// or --state
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin: Option<SocketAddr>,
    /// The file that keeps what administration changes, for a server without --api-keys
    #[arg(long, value_name = "FILE.db")]
    state: Option<PathBuf>,
    /// A file for a line of JSON about each act of administration and each refused key
    #[arg(long, value_name = "FILE")]
    audit_log: Option<PathBuf>,
    /// The address to listen at; another one than this machine's own needs --api-keys [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    host: Option<IpAddr>,
    /// The port to listen at; 0 for any free one [default: 8080]
    #[arg(long)]
    port: Option<u16>,
    /// Options in TOML; those of the command win
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The file of API keys that `realm api-key` makes
    #[arg(long, value_name = "FILE.db")]
    api_keys: Option<PathBuf>,
    /// Refuse requests with unknown fields
    #[arg(long)]
    strict: bool,
    /// A name by which clients may call the server; may be given several times
    #[arg(long, value_name = "NAME")]
    allowed_host: Vec<String>,
    /// An origin of web pages that may call the server, such as https://chat.example.com; may be given
    /// several times
    #[arg(long, value_name = "ORIGIN")]
    allowed_origin: Vec<String>,
    /// A file for a line of JSON about each request, without texts; `-` for stderr
    #[arg(long, value_name = "FILE")]
    access_log: Option<PathBuf>,
    /// A chain of certificates in PEM, for HTTPS
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// The certificate's key in PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    #[command(flatten)]
    load: LoadingOptions,
}

pub(crate) fn serve(args: &Args) -> Result<()> {
    let config = args.config()?;
    let (realm, defaults) = args.load.start(None)?;
    let mut models = Vec::new();
    for (name, model) in &config.models {
        let options = model.load_options(&defaults);
        let source = model.source.as_deref().unwrap_or(name);
        let loaded = realm.load_model_with(source, &options, &mut Bars::new());
        models.push((name.clone(), loaded.with_context(|| format!("model `{name}`"))?));
    }
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let rereading = args.clone();
    let read = move || rereading.config().map_err(|error| realm_server::Error::new(format!("{error:#}")));
    let server = Server::new(config, realm, models)?.load_options(defaults).on_reload(read);
    let names = server.models().join(", ");
    handle_signals(server.stopper(), server.reloader());
    server.run_at(|addresses| {
        // Administration's models are its own to list.
        let names = if names.is_empty() { names } else { format!("{names} ") };
        let address = addresses.clients;
        if let Some(admin) = addresses.admin {
            note!("administration is at {admin}; `realm admin --help` says how");
        }
        note!("serving {names}at {scheme}://{address}; Ctrl-C ends it when its requests have ended, twice at once");
    })?;
    Ok(())
}

/// Stops the server at Ctrl-C and, where there are such signals, at SIGTERM; reads the configuration again at
/// SIGHUP.
fn handle_signals(stopper: Stopper, reloader: Reloader) {
    #[cfg(unix)]
    {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        // Without a handler, all end the program as usual.
        let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
        let wait = move || {
            for signal in signals.forever() {
                if signal == SIGHUP {
                    reload(reloader.clone());
                } else {
                    stopper.stop();
                }
            }
        };
        let _ = std::thread::Builder::new().name("realm-signals".into()).spawn(wait);
    }
    #[cfg(not(unix))]
    {
        let _ = reloader;
        let _ = ctrlc::set_handler(move || stopper.stop());
    }
}

/// Reads the configuration again, on a thread of its own: a second signal may end the server meanwhile.
#[cfg(unix)]
fn reload(reloader: Reloader) {
    let work = move || match reloader.reload() {
        Ok(()) => note!("the configuration was read again"),
        Err(error) => note!("realm: the configuration stays as it was: {error}"),
    };
    if let Err(error) = std::thread::Builder::new().name("realm-reload".into()).spawn(work) {
        note!("realm: no thread reads the configuration again: {error}");
    }
}

impl Args {
    /// Returns the file's options with the command's.
    fn config(&self) -> Result<Config> {
        let mut config = match &self.config {
            Some(path) => Config::read(path)?,
            None => Config::default(),
        };
        config.host = self.host.unwrap_or(config.host);
        config.port = self.port.unwrap_or(config.port);
        config.strict |= self.strict;
        config.admin = self.admin.or(config.admin);
        for (file, own) in [
            (&mut config.api_keys, &self.api_keys),
            (&mut config.state, &self.state),
            (&mut config.access_log, &self.access_log),
            (&mut config.audit_log, &self.audit_log),
        ] {
            if own.is_some() {
                file.clone_from(own);
            }
        }
        config.allowed_hosts.extend(self.allowed_host.iter().cloned());
        config.allowed_origins.extend(self.allowed_origin.iter().cloned());
        if let (Some(certificate), Some(key)) = (&self.tls_certificate, &self.tls_key) {
            config.tls = Some(Tls { certificate: certificate.clone(), key: key.clone() });
        }
        for model in &self.models {
            let (name, source) = named(model);
            let entry = ModelConfig { source: Some(source.to_owned()), ..ModelConfig::default() };
            if config.models.insert(name.to_owned(), entry).is_some() {
                bail!(
                    "there are two models with the name `{name}`; name one of them otherwise, as NAME={source}"
                );
            }
        }
        if config.models.is_empty() && config.admin.is_none() {
            bail!(
                "there is no model to serve: name one, such as `realm serve smollm2-135m`, or list some in --config FILE"
            );
        }
        config.check()?;
        Ok(config)
    }
}

/// Splits NAME=MODEL. A model without a name is called by its reference, a file or folder by its own name.
fn named(model: &str) -> (&str, &str) {
    if let Some((name, source)) = model.split_once('=')
        && !name.is_empty()
        && !name.contains(['/', '\\'])
    {
        return (name, source);
    }
    if model.starts_with("hf:") {
        return (model, model);
    }
    let file = model.trim_end_matches('/').rsplit(['/', '\\']).next().unwrap_or(model);
    (file.strip_suffix(".gguf").unwrap_or(file), model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_called_by_short_names() {
        for (argument, name, source) in [
            ("smollm2-135m", "smollm2-135m", "smollm2-135m"),
            ("/models/qwen-q4.gguf", "qwen-q4", "/models/qwen-q4.gguf"),
            ("models/folder/", "folder", "models/folder/"),
            ("small=/models/a=b.gguf", "small", "/models/a=b.gguf"),
            ("./a=b.gguf", "a=b", "./a=b.gguf"),
            ("hf:owner/repo/file.gguf", "hf:owner/repo/file.gguf", "hf:owner/repo/file.gguf"),
            ("big=hf:owner/repo", "big", "hf:owner/repo"),
        ] {
            assert_eq!(named(argument), (name, source), "{argument}");
        }
    }
}
