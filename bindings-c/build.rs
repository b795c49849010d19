//! The name that programs look the shared library up by: the version of its ABI, not of the file.

include!("../ci/features/link_glibc.rs");

fn main() {
    link_glibc();
    println!("cargo:rerun-if-changed=build.rs");
    match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("linux") => {
            println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,librealm.so.0");
            // Functions of our dependencies stay out of the library's exports.
            println!("cargo:rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
        }
        Ok("macos") => println!("cargo:rustc-cdylib-link-arg=-Wl,-install_name,@rpath/librealm.0.dylib"),
        _ => {}
    }
}
