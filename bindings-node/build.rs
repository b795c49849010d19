//! What Node's linker needs, and an older glibc's symbols.

include!("../ci/features/link_glibc.rs");

fn main() {
    napi_build::setup();
    link_glibc();
}
