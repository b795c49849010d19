//! The code that `wasmtime` generates from the contract in `wit/`.
#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]

use crate::error::HostError;
use crate::handles;

wasmtime::component::bindgen!({
    path: "wit",
    world: "tenant-program",
    imports: {
        "realm:tenant/models.[method]model.encode": async | trappable,
        "realm:tenant/models.[method]model.encode-piece": async | trappable,
        "realm:tenant/models.[method]model.tokenize": async | trappable,
        "realm:tenant/sequences.[static]sequence.open": async | trappable,
        "realm:tenant/sequences.[static]sequence.open-with": async | trappable,
        "realm:tenant/sequences.[method]sequence.truncate": async | trappable,
        "realm:tenant/sequences.[method]sequence.fork": async | trappable,
        "realm:tenant/sequences.[method]sequence.forward": async | trappable,
        "realm:tenant/sequences.[method]sequence.forward-all": async | trappable,
        "realm:tenant/sequences.[method]sequence.forward-hidden": async | trappable,
        "realm:tenant/sequences.forward-each": async | trappable,
        "realm:tenant/logits.[static]token-set.matching": async | trappable,
        "realm:tenant/logits.[static]matcher.open": async | trappable,
        "realm:tenant/output.emit": async | trappable,
        "realm:tenant/capabilities.log": async | trappable,
        "realm:tenant/capabilities.call": async | trappable,
        "realm:tenant/capabilities.run-program": async | trappable,
        "realm:tenant/layers.[static]tensor.from-values": async | trappable,
        "realm:tenant/layers.[method]tensor.read": async | trappable,
        "realm:tenant/layers.[method]tensor.gather": async | trappable,
        "realm:tenant/layers.[method]tensor.add": async | trappable,
        "realm:tenant/layers.[static]kv-cache.open": async | trappable,
        "realm:tenant/layers.[method]kv-cache.truncate": async | trappable,
        "realm:tenant/layers.[method]layer.attention-forward": async | trappable,
        "realm:tenant/layers.[method]layer.feed-forward": async | trappable,
        "realm:tenant/layers.embed": async | trappable,
        "realm:tenant/layers.matmul": async | trappable,
        "realm:tenant/layers.lm-head": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    trappable_error_type: { "realm:tenant/types.error" => HostError },
    with: {
        "realm:tenant/models.model": handles::Model,
        "realm:tenant/models.text-decoder": handles::TextDecoder,
        "realm:tenant/logits.logits": handles::Logits,
        "realm:tenant/logits.token-set": handles::TokenSet,
        "realm:tenant/logits.sampler": handles::Sampler,
        "realm:tenant/logits.matcher": handles::Matcher,
        "realm:tenant/sequences.sequence": handles::Sequence,
        "realm:tenant/layers.tensor": handles::Tensor,
        "realm:tenant/layers.kv-cache": handles::KvCache,
        "realm:tenant/layers.layer": handles::Layer,
    },
});

/// The exports of a policy, with the same imports.
pub mod policy {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "tenant-policy",
        imports: { default: trappable },
        exports: { default: async },
        with: { "realm:tenant": super::realm::tenant },
    });
}
