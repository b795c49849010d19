//! Models of a server, over gRPC: the protocol `realm.v1` of `realm-rpc`.
//!
//! - [`channel`]: the connection, which is made again when it has broken.
//! - [`convert`]: requests and answers as messages.
//! - [`model`]: a model of the server.
//! - [`sequences`]: sequences of the server.
//! - [`status`]: failures of calls.

mod channel;
mod convert;
mod model;
mod sequences;
mod status;

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use realm_gguf::Gguf;
use realm_rpc::v1;
use realm_rpc::v1::realm_client::RealmClient;
use realm_tokenizer::Tokenizer;

use self::channel::Channel;
use crate::Error;
use crate::error::ErrorCode;
use crate::identity::Identity;
use crate::remote::{Call, ServedModel, Server};

/// The most bytes of a model's tokenizer; the largest ones have some 20 MB.
const MOST_TOKENIZER_BYTES: usize = 256 << 20;

/// A client of one server with one key. A clone is cheap and shares the connection.
type Client = RealmClient<Channel>;

/// Connects to a server, and asks whose key it is.
pub(crate) async fn connect(url: &str, key: &str) -> Result<Arc<dyn Server>, Error> {
    let channel = Channel::new(url, key)?;
    let client = RealmClient::with_origin(channel.clone(), channel.origin().clone())
        // A row of logits and a list of scores may be longer than gRPC's default of 4 MiB.
        .max_decoding_message_size(usize::MAX);
    let tenant =
        client.clone().get_tenant(v1::GetTenantRequest {}).await.map_err(status::error)?.into_inner();
    let identity = Identity::new(&tenant.name, convert::limits(&tenant.limits.unwrap_or_default()))?;
    Ok(Arc::new(Connected { url: url.to_owned(), client, tenant: Arc::new(identity) }))
}

/// A server that has answered.
struct Connected {
    url: String,
    client: Client,
    tenant: Arc<Identity>,
}

impl Server for Connected {
    fn url(&self) -> &str {
        &self.url
    }

    fn tenant(&self) -> &Arc<Identity> {
        &self.tenant
    }

    fn model(&self, name: String) -> Call<Arc<dyn ServedModel>> {
        let mut client = self.client.clone();
        Box::pin(async move {
            let asked = v1::GetModelRequest { model: name.clone() };
            let facts = client.get_model(asked).await.map_err(status::error)?.into_inner();
            let tokenizer = read_tokenizer(&mut client, name.clone()).await?;
            let model = model::Served {
                client,
                name,
                info: convert::info(facts),
                tokenizer,
                sessions: Default::default(),
            };
            Ok(Arc::new(model) as Arc<dyn ServedModel>)
        })
    }

    fn load_tokenizer(&self, model: String) -> Call<Tokenizer> {
        let mut client = self.client.clone();
        Box::pin(async move { read_tokenizer(&mut client, model).await })
    }
}

/// Reads a model's tokenizer, so that texts are encoded here.
async fn read_tokenizer(client: &mut Client, model: String) -> Result<Tokenizer, Error> {
    let asked = v1::GetModelRequest { model };
    let mut parts = client.get_tokenizer(asked).await.map_err(status::error)?.into_inner();
    let mut file = Vec::new();
    while let Some(part) = parts.message().await.map_err(status::error)? {
        if file.len() + part.data.len() > MOST_TOKENIZER_BYTES {
            let why = format!("the server's tokenizer has more than {MOST_TOKENIZER_BYTES} bytes");
            return Err(Error::new(ErrorCode::InvalidModel, why));
        }
        file.extend_from_slice(&part.data);
    }
    Ok(Tokenizer::from_metadata(Gguf::from_bytes(file)?.metadata())?)
}

/// The threads of a process that drive its connections.
struct Threads {
    /// A process that was forked has none of its parent's threads.
    process: u32,
    runtime: tokio::runtime::Runtime,
}

/// Starts a task on the thread that drives the connections to all servers. Futures of calls run anywhere.
fn spawn<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<tokio::task::JoinHandle<T>, Error> {
    static THREADS: Mutex<Option<Threads>> = Mutex::new(None);
    let process = std::process::id();
    let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = match threads.take() {
        Some(Threads { process: own, runtime }) if own == process => runtime,
        parents => {
            // Its end would be waited for.
            std::mem::forget(parents);
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            let builder = builder.worker_threads(1).thread_name("realm-remote").enable_all();
            let failed =
                |error| Error::new(ErrorCode::Io, format_args!("no thread for connections: {error}"));
            builder.build().map_err(failed)?
        }
    };
    let task = runtime.spawn(work);
    *threads = Some(Threads { process, runtime });
    Ok(task)
}
