//! Links the package's library against an older glibc.

include!("../ci/features/link_glibc.rs");

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    link_glibc();
}
