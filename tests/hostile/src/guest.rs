//! Programs in WebAssembly's text form: core modules that import the contract's functions by their canonical
//! names, made into components.
//!
//! Results that a function returns in memory go to `RESULT`. The error part of each has the form that `run`
//! itself has to return, so a program that ends with a host function's error returns that address.

use std::path::Path;
use std::sync::OnceLock;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{PackageId, Resolve};

/// The address at which host functions put their results; a handle, a list or an error is 4 bytes further.
const RESULT: u32 = 1024;

/// The address of a program's own `ok(stop)`: zeros.
const OK: u32 = 2048;

/// Functions of the contract: interface, name, name in these programs, and parameters; `->` before a result.
const IMPORTS: &[(&str, &str, &str)] = &[
    ("models", "[static]model.current", "(result i32)"),
    ("models", "[static]model.open", "(param i32 i32 i32)"),
    ("models", "[method]model.encode", "(param i32 i32 i32 i32)"),
    ("models", "[method]model.decode", "(param i32 i32 i32 i32)"),
    ("models", "[method]model.is-end", "(param i32 i32) (result i32)"),
    ("models", "[method]model.tokenize", "(param i32 i32 i32 i32 i32 i32 i32 i32 i32)"),
    ("models", "[resource-drop]model", "(param i32)"),
    ("models", "[constructor]text-decoder", "(param i32 i32 i32) (result i32)"),
    ("models", "[method]text-decoder.push", "(param i32 i32 i32)"),
    ("logits", "[method]logits.argmax", "(param i32) (result i32)"),
    ("logits", "[method]logits.copy", "(param i32 i32)"),
    ("logits", "[method]logits.read", "(param i32 i32)"),
    ("logits", "[method]logits.top", "(param i32 i32 i32)"),
    ("logits", "[method]logits.write", "(param i32 i32 i32 i32)"),
    ("logits", "[method]logits.keep", "(param i32 i32 i32)"),
    ("logits", "[resource-drop]logits", "(param i32)"),
    ("logits", "[static]token-set.of", "(param i32 i32 i32 i32)"),
    ("logits", "[static]token-set.matching", "(param i32 i32 i32 i32)"),
    ("logits", "[static]sampler.open", "(param i32 i32)"),
    ("logits", "[method]sampler.observe", "(param i32 i32)"),
    ("logits", "[static]matcher.open", "(param i32 i32 i32 i32 i32)"),
    ("logits", "[method]matcher.mask", "(param i32 i32 i32)"),
    ("sequences", "[static]sequence.open", "(param i32 i32)"),
    ("sequences", "[method]sequence.append", "(param i32 i32 i32 i32)"),
    ("sequences", "[method]sequence.truncate", "(param i32 i32 i32)"),
    ("sequences", "[method]sequence.fork", "(param i32 i32)"),
    ("sequences", "[method]sequence.forward", "(param i32 i32)"),
    ("sequences", "[method]sequence.forward-all", "(param i32 i32)"),
    ("sequences", "[resource-drop]sequence", "(param i32)"),
    ("sequences", "forward-each", "(param i32 i32 i32)"),
    ("output", "emit", "(param i32 i32 i32 i32 i32)"),
    ("capabilities", "log", "(param i32 i32 i32 i32)"),
    ("capabilities", "now", "(param i32)"),
    ("capabilities", "random", "(param i32 i32)"),
    ("capabilities", "call", "(param i32 i32 i32 i32 i32)"),
    ("capabilities", "run-program", "(param i32 i32 i32 i32 i32)"),
    ("store", "get", "(param i32 i32 i32)"),
    ("store", "set", "(param i32 i32 i32 i32 i32)"),
    ("store", "keys", "(param i32 i32 i32)"),
    ("layers", "[static]tensor.from-values", "(param i32 i32 i32 i32 i32 i32)"),
    ("layers", "[method]tensor.read", "(param i32 i32)"),
    ("layers", "[method]tensor.gather", "(param i32 i32 i32 i32)"),
    ("layers", "[method]tensor.add", "(param i32 i32 f32 i32)"),
    ("layers", "[resource-drop]tensor", "(param i32)"),
    ("layers", "[static]kv-cache.open", "(param i32 i32 i32)"),
    ("layers", "load-layer", "(param i32 i32 i32)"),
    ("layers", "[method]layer.attention-forward", "(param i32 i32 i32 i32)"),
    ("layers", "[method]layer.feed-forward", "(param i32 i32 i32)"),
    ("layers", "embed", "(param i32 i32 i32 i32)"),
    ("layers", "matmul", "(param i32 i32 i32 i32)"),
    ("layers", "lm-head", "(param i32 i32)"),
    ("models", "[method]model.info", "(param i32 i32)"),
    ("models", "[method]model.encode-piece", "(param i32 i32 i32 i32 i32)"),
    ("models", "[method]model.token-bytes", "(param i32 i32 i32)"),
    ("models", "[method]text-decoder.finish", "(param i32 i32)"),
    ("models", "[resource-drop]text-decoder", "(param i32)"),
    ("logits", "[method]logits.vocabulary", "(param i32) (result i32)"),
    ("logits", "[method]logits.get", "(param i32 i32 i32)"),
    ("logits", "[method]logits.log-normalizer", "(param i32) (result f32)"),
    ("logits", "[method]logits.logprob", "(param i32 i32 i32)"),
    ("logits", "[method]logits.entropy", "(param i32) (result f32)"),
    ("logits", "[method]logits.bias", "(param i32 i32 i32 i32)"),
    ("logits", "[method]logits.ban", "(param i32 i32 i32)"),
    ("logits", "[method]logits.scale", "(param i32 f32)"),
    ("logits", "[method]logits.add", "(param i32 i32 f32 i32)"),
    ("logits", "[method]token-set.contains", "(param i32 i32) (result i32)"),
    ("logits", "[method]token-set.len", "(param i32) (result i32)"),
    ("logits", "[resource-drop]token-set", "(param i32)"),
    ("logits", "[method]sampler.sample", "(param i32 i32 i32)"),
    ("logits", "[method]sampler.sample-matching", "(param i32 i32 i32 i32)"),
    ("logits", "[resource-drop]sampler", "(param i32)"),
    ("logits", "[method]matcher.accept", "(param i32 i32 i32)"),
    ("logits", "[method]matcher.is-finished", "(param i32) (result i32)"),
    ("logits", "[method]matcher.forced", "(param i32 i32)"),
    ("logits", "[resource-drop]matcher", "(param i32)"),
    ("sequences", "[static]sequence.open-with", "(param i32 i32 i32 i32 f32 i32)"),
    ("sequences", "[method]sequence.len", "(param i32) (result i32)"),
    ("sequences", "[method]sequence.context-length", "(param i32) (result i32)"),
    ("sequences", "[method]sequence.tokens", "(param i32 i32)"),
    ("sequences", "[method]sequence.forward-hidden", "(param i32 i32)"),
    ("layers", "[method]tensor.rows", "(param i32) (result i32)"),
    ("layers", "[method]tensor.width", "(param i32) (result i32)"),
    ("layers", "[method]kv-cache.len", "(param i32 i32 i32)"),
    ("layers", "[method]kv-cache.truncate", "(param i32 i32)"),
    ("layers", "[resource-drop]kv-cache", "(param i32)"),
    ("layers", "[resource-drop]layer", "(param i32)"),
    ("store", "delete", "(param i32 i32 i32)"),
];

/// Interfaces that a policy does not have.
const LOOP: &[&str] = &["sequences", "output", "layers"];

/// Returns the short name of a function in these programs: `[method]logits.copy` is `$logits.copy`,
/// `[resource-drop]model` is `$model.drop`.
fn short(name: &str) -> String {
    match (name.strip_prefix("[resource-drop]"), name.strip_prefix("[constructor]")) {
        (Some(resource), _) => format!("{resource}.drop"),
        (_, Some(resource)) => format!("{resource}.new"),
        _ => name.rsplit(']').next().unwrap_or(name).to_owned(),
    }
}

/// The common part of all programs: imports, memory, an allocator that frees nothing, and short helper
/// functions.
fn prelude(policy: bool) -> String {
    let imports: String = IMPORTS
        .iter()
        .filter(|(interface, ..)| !policy || !LOOP.contains(interface))
        .map(|(interface, name, ty)| {
            format!("(import \"realm:tenant/{interface}@0.1.0\" \"{name}\" (func ${} {ty}))\n", short(name))
        })
        .collect();
    format!(
        r#"{imports}
        (memory (export "memory") 2)
        (global $top (mut i32) (i32.const 65536))
        (global $R i32 (i32.const {RESULT}))
        (global $OK i32 (i32.const {OK}))
        (func $realloc (export "cabi_realloc") (param $old i32) (param $had i32) (param $align i32) (param $size i32)
                       (result i32) (local $at i32)
          (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
          (global.set $top (i32.add (local.get $at) (local.get $size)))
          (if (i32.lt_u (global.get $top) (local.get $at)) (then unreachable))
          (if (i32.gt_u (global.get $top) (i32.shl (memory.size) (i32.const 16)))
            (then (if (i32.eq (i32.const -1) (memory.grow
                (i32.sub (i32.shr_u (i32.add (global.get $top) (i32.const 65535)) (i32.const 16)) (memory.size))))
              (then unreachable))))
          (memory.copy (local.get $at) (local.get $old) (select (local.get $had) (local.get $size)
            (i32.lt_u (local.get $had) (local.get $size))))
          (local.get $at))
        ;; Whether the last call failed, and what it returned if not.
        (func $failed (result i32) (i32.load8_u (global.get $R)))
        (func $got (result i32) (i32.load offset=4 (global.get $R)))
        ;; `Failed` with a message that tells one place from another.
        (func $complain (param $code i32) (result i32)
          (i32.store8 (i32.const 3072) (i32.const 1))
          (i32.store8 (i32.const 3076) (local.get $code))
          (i32.store (i32.const 3080) (i32.const 3100)) (i32.store (i32.const 3084) (i32.const 3))
          (i32.store (i32.const 3100) (i32.const 0x00796177))
          (i32.const 3072))
        "#
    )
}

/// Makes a program whose `run` is `body`, which returns the address of its result; `rest` is other functions
/// and data.
pub fn program(body: &str, rest: &str) -> Vec<u8> {
    let module = format!(
        r#"(module {}
          (func $run (export "realm:tenant/program@0.1.0#run") (param $request i32) (result i32)
            (local $i i32) (local $h i32) (local $s i32) (local $t i32) (local $u i32) (local $v i32) (local $model i32)
            {body})
          {rest})"#,
        prelude(false)
    );
    component(&module, "tenant-program")
}

/// Makes a policy with these `sample` and `observe` functions; its other functions do nothing.
pub fn policy(sample: &str, observe: &str) -> Vec<u8> {
    let module = format!(
        r#"(module {}
          (func (export "realm:tenant/policy@0.1.0#begin") (param i32) (result i32) (global.get $OK))
          (func (export "realm:tenant/policy@0.1.0#sample") (param $logits i32) (result i32) (local $i i32) {sample})
          (func (export "realm:tenant/policy@0.1.0#observe") (param i32 i32 i32) (result i32) {observe})
          (func (export "realm:tenant/policy@0.1.0#end") (param i32) (result i32) (global.get $OK)))"#,
        prelude(true)
    );
    component(&module, "tenant-policy")
}

/// Returns the core module with the type of the world `world` embedded, of which Realm makes a component.
pub fn component(module: &str, world: &str) -> Vec<u8> {
    static CONTRACT: OnceLock<(Resolve, PackageId)> = OnceLock::new();
    let (resolve, package) = CONTRACT.get_or_init(contract);
    embed(module, resolve, *package, world)
}

/// Makes a component of a world of its own that imports interfaces of other packages: `packages` are the
/// texts of those packages, and `imports` is added to the imports that programs have.
pub fn component_with(module: &str, packages: &[&str], imports: &str) -> Vec<u8> {
    let (mut resolve, _) = contract();
    for (i, text) in packages.iter().enumerate() {
        resolve.push_str(format!("{i}.wit"), text).expect("a package");
    }
    let world = format!(
        "package tests:hostile; world hostile {{ include realm:tenant/tenant-program@0.1.0; {imports} }}"
    );
    let package = resolve.push_str("world.wit", &world).expect("a world");
    let module = embed(module, &resolve, package, "hostile");
    // Realm itself makes components only of modules that use nothing but the contract.
    ComponentEncoder::default().module(&module).and_then(|mut encoder| encoder.encode()).expect("a component")
}

fn contract() -> (Resolve, PackageId) {
    let mut resolve = Resolve::default();
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../core/sandbox/wit"));
    let (package, _) = resolve.push_path(folder).expect("the contract");
    (resolve, package)
}

fn embed(module: &str, resolve: &Resolve, package: PackageId, world: &str) -> Vec<u8> {
    let world = resolve.select_world(&[package], Some(world)).expect("a world");
    let mut module = wat::parse_str(module).unwrap_or_else(|error| panic!("{error}"));
    embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8).expect("metadata");
    module
}

/// Appends the tokens `1, 2, …, $n` to sequence `$h` and generates `$count` tokens greedily, like a
/// well-behaved program.
pub fn greedy(first: u32, tokens: u32) -> Vec<u8> {
    program(
        &format!(
            "(local.set $model (call $model.current))
             (call $sequence.open (local.get $model) (global.get $R))
             (if (call $failed) (then (return (global.get $R))))
             (local.set $h (call $got))
             (i32.store (i32.const 4096) (i32.const {first}))
             (i32.store (i32.const 4100) (i32.const 7))
             (i32.store (i32.const 4104) (i32.const {first}))
             (call $sequence.append (local.get $h) (i32.const 4096) (i32.const 3) (global.get $R))
             (loop $next
               (call $sequence.forward (local.get $h) (global.get $R))
               (if (call $failed) (then (return (global.get $R))))
               (local.set $t (call $got))
               (i32.store (i32.const 4096) (call $logits.argmax (local.get $t)))
               (call $logits.drop (local.get $t))
               (call $emit (i32.const 0) (i32.const 0) (i32.const 4096) (i32.const 1) (global.get $R))
               (call $sequence.append (local.get $h) (i32.const 4096) (i32.const 1) (global.get $R))
               (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {tokens}))))
             (global.get $OK)"
        ),
        "",
    )
}
