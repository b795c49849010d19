//! Pulls the smallest model of the catalog from its real source into the user's own cache.

use std::fs;

use realm_hub::{Hub, Reference, catalog};

use crate::common::sha256;

#[test]
fn a_catalog_name_becomes_a_verified_model() {
    let entry = catalog().iter().find(|entry| entry.name == "smollm2-135m").expect("an entry");
    let hub = Hub::new().expect("a cache folder");
    let path = hub.resolve(&Reference::parse("smollm2-135m").expect("a name"), &mut ()).expect("the model");
    let bytes = fs::read(path).expect("the model");
    assert!(bytes.starts_with(b"GGUF"));
    assert_eq!(sha256(&bytes), entry.sha256);
}
