//! Writes the Rust code of `core/rpc` and the description of its protocol: `ci/rpc` runs it.

use std::path::Path;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = std::env::args().nth(1).ok_or("usage: realm-rpc-generator FOLDER")?;
    let rpc = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../core/rpc");
    let descriptors = protox::compile(["realm/v1/realm.proto"], [rpc.join("proto")])?;
    std::fs::create_dir_all(&out)?;
    let mut served = descriptors.clone();
    // Reflection needs no comments and no places in the source.
    served.file.iter_mut().for_each(|file| file.source_code_info = None);
    std::fs::write(Path::new(&out).join("descriptors.bin"), served.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .out_dir(&out)
        .compile_fds(descriptors)?;
    Ok(())
}
