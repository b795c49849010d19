//! Checks that Realm works on this machine: compares the text of the built-in generation with those of a
//! sandboxed program and of eight tenants at once.
//!
//!     cargo run --release -p simple-realm-test [MODEL]

use anyhow::ensure;
use realm::{Limits, Realm, Request};

fn main() -> anyhow::Result<()> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "smollm2-135m".into());
    let realm = Realm::builder().build()?;
    let model = realm.load_model(&name)?;
    println!("model:    {name}, {} layers, on {}", model.info().layers, model.info().device);
    let request = || Request::text("The three primary colours are").temperature(0.0).max_tokens(24);

    let plain = model.generate(request())?.text;
    println!("built-in: {plain:?}");

    let program = realm.load_program(realm_examples::program("chat")?)?;
    let tenants = (0..8)
        .map(|i| realm.tenant(&format!("tenant {i}"), Limits::default()))
        .collect::<Result<Vec<_>, _>>()?;
    let streams = tenants
        .iter()
        .map(|tenant| {
            tenant.set_program(Some(&program));
            tenant.model(&model)?.stream(request())
        })
        .collect::<Result<Vec<_>, _>>()?;
    for (tenant, stream) in tenants.iter().zip(streams) {
        let text = stream.finish()?.text;
        ensure!(text == plain, "{} got another text: {text:?}", tenant.name());
    }
    println!("sandbox:  the same from 8 tenants' programs at once\nOK");
    Ok(())
}
