//! wit-bindgen's code for the contract in `wit/`.
//!
//! The imports are generated once, and the exports of both worlds on top of them, so that a `Request` is the
//! same type for a program and for a policy. The attribute that a component uses decides its exports: only
//! that attribute's macro is expanded, with the section that describes the exports. Imports that are never
//! called do not end up in the component.

#![allow(missing_docs, unreachable_pub, clippy::undocumented_unsafe_blocks, clippy::all)]

/// The imports of both worlds.
pub mod imports {
    wit_bindgen::generate!({
        path: "wit",
        inline: "
            package realm:sdk;
            world imports {
                import realm:tenant/models@0.1.0;
                import realm:tenant/logits@0.1.0;
                import realm:tenant/sequences@0.1.0;
                import realm:tenant/output@0.1.0;
                import realm:tenant/capabilities@0.1.0;
                import realm:tenant/store@0.1.0;
                import realm:tenant/layers@0.1.0;
            }
        ",
        with: {
            "realm:tenant/types@0.1.0/error": crate::Error,
            "realm:tenant/types@0.1.0/error-code": crate::ErrorCode,
        },
        generate_all,
        generate_unused_types: true,
        additional_derives: [PartialEq],
    });
}

/// The types that all levels share.
pub mod types {
    pub use super::imports::realm::tenant::types::*;
    pub use crate::{Error, ErrorCode};
}

/// The exports of a program.
pub mod program {
    wit_bindgen::generate!({
        path: "wit",
        world: "tenant-program",
        with: {
            "realm:tenant/types@0.1.0": super::types,
            "realm:tenant/models@0.1.0": super::imports::realm::tenant::models,
            "realm:tenant/logits@0.1.0": super::imports::realm::tenant::logits,
            "realm:tenant/sequences@0.1.0": super::imports::realm::tenant::sequences,
            "realm:tenant/output@0.1.0": super::imports::realm::tenant::output,
            "realm:tenant/capabilities@0.1.0": super::imports::realm::tenant::capabilities,
            "realm:tenant/store@0.1.0": super::imports::realm::tenant::store,
            "realm:tenant/layers@0.1.0": super::imports::realm::tenant::layers,
        },
        pub_export_macro: true,
        export_macro_name: "export_program",
        default_bindings_module: "realm_tenant::bindings::program",
    });
}

/// The exports of a policy.
pub mod policy {
    wit_bindgen::generate!({
        path: "wit",
        world: "tenant-policy",
        with: {
            "realm:tenant/types@0.1.0": super::types,
            "realm:tenant/models@0.1.0": super::imports::realm::tenant::models,
            "realm:tenant/logits@0.1.0": super::imports::realm::tenant::logits,
            "realm:tenant/capabilities@0.1.0": super::imports::realm::tenant::capabilities,
            "realm:tenant/store@0.1.0": super::imports::realm::tenant::store,
        },
        pub_export_macro: true,
        export_macro_name: "export_policy",
        default_bindings_module: "realm_tenant::bindings::policy",
    });
}
