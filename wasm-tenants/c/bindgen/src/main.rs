//! `c-bindgen WIT OUT`: writes, for each world of the contract in the folder WIT, a header, its C code and an
//! object file with the component's type to the folder OUT. Does the same as
//! `wit-bindgen c WIT --world WORLD`, without an installation of wit-bindgen.

use std::path::PathBuf;

use anyhow::{Context, Result};
use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::Resolve;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (wit, out) = arguments.next().zip(arguments.next()).context("usage: c-bindgen WIT OUT")?;
    std::fs::create_dir_all(&out)?;
    for world in ["tenant-program", "tenant-policy"] {
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_path(&wit)?;
        let world = resolve.select_world(&[package], Some(world))?;
        let mut files = Files::default();
        wit_bindgen_c::Opts::default().build().generate(&mut resolve, world, &mut files)?;
        for (name, content) in files.iter() {
            std::fs::write(out.join(name), content)?;
        }
    }
    Ok(())
}
