//! The programs of `wasm-tenants/`, each in its sandbox, on a real model. `ci/build-programs` builds them.

mod agent;
mod best_of_n;
mod chat;
mod contrastive;
mod json;
mod languages;
mod redact;
mod search;
mod speculation;
mod watermark;

use std::path::{Path, PathBuf};

use realm::{Completion, Limits, Message, Model, Program, Realm, Request, Tenant};

/// A model, and a tenant whose program answers its requests.
struct Sandboxed {
    realm: Realm,
    /// The model without a program: Realm's own generation.
    plain: Model,
    tenant: Tenant,
    /// The model as the tenant sees it, with its program.
    model: Model,
}

impl Sandboxed {
    fn new(program: &str) -> Self {
        Self::with(program, Limits::default())
    }

    fn with(program: &str, limits: Limits) -> Self {
        let file = file_of(program);
        assert!(file.is_file(), "`{}` is not there: run ci/build-programs", file.display());
        let realm = Realm::builder().threads(2).build().unwrap();
        let plain = realm.load_model("smollm2-135m").unwrap();
        let tenant = realm.tenant("tenant", limits).unwrap();
        tenant.set_program(Some(&load(&realm, &file)));
        let model = tenant.model(&plain).unwrap();
        Self { realm, plain, tenant, model }
    }

    fn answer(&self, request: Request) -> Completion {
        self.model.generate(request).unwrap()
    }
}

fn load(realm: &Realm, file: &Path) -> Program {
    realm.load_program(file).unwrap_or_else(|error| panic!("`{}`: {error}", file.display()))
}

/// The programs lie beside the folders of cargo's profiles, one of which this test runs in.
fn file_of(program: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target =
        test.ancestors().find(|folder| folder.ends_with("deps")).and_then(|deps| deps.ancestors().nth(2));
    target.unwrap().join("programs").join(program).with_extension("wasm")
}

fn ask(question: &str) -> Request {
    Request::chat([Message::user(question)]).temperature(0.0).max_tokens(48)
}

fn ids(answer: &Completion) -> Vec<u32> {
    answer.tokens.iter().map(|token| token.id).collect()
}
