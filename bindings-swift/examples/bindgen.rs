//! Writes uniffi's Swift code for the built library: `bindgen LIBRARY FOLDER`.

use uniffi_bindgen::bindings::{SwiftBindingsOptions, generate_swift_bindings};

fn main() -> anyhow::Result<()> {
    let [library, folder] = std::env::args()
        .skip(1)
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|_| anyhow::anyhow!("usage: bindgen LIBRARY FOLDER"))?;
    generate_swift_bindings(SwiftBindingsOptions {
        generate_swift_sources: true,
        generate_headers: true,
        source: library.into(),
        out_dir: folder.into(),
        config: Some(concat!(env!("CARGO_MANIFEST_DIR"), "/uniffi.toml").into()),
        ..SwiftBindingsOptions::default()
    })
}
