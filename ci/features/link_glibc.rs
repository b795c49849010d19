// Part of the packages' build scripts, by `include!`.

/// Links this crate's shared library against the glibc in the folder that `REALM_GLIBC` names (ci/old-glibc
/// makes one), so that it runs on systems older than the one it is built on. Without the variable it is
/// linked against this system's.
fn link_glibc() {
    println!("cargo:rerun-if-env-changed=REALM_GLIBC");
    if let Ok(folder) = std::env::var("REALM_GLIBC")
        && !folder.is_empty()
        && std::env::var("CARGO_CFG_TARGET_ENV").as_deref() == Ok("gnu")
    {
        println!("cargo:rustc-cdylib-link-arg=-L{folder}");
    }
}
