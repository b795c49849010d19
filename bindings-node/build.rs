//! Sets the options of Node's linker, and links against an older glibc's symbols.

include!("../ci/features/link_glibc.rs");

fn main() {
    napi_build::setup();
    link_glibc();
}
