# The commands that people use here; `just` lists them. Each is a script of ci/ or one line of cargo. See CONTRIBUTING.md.

set shell := ["bash", "-euo", "pipefail", "-c"]

[private]
default:
    @just --list --unsorted

# Puts on this machine what the tests need, and fetches the models
setup:
    ci/setup

# Everything that must hold for a change
test:
    ci/test

# Tests of Rust, such as: just rust 'package(realm-engine) & test(stop)'
rust filter="all()":
    cargo nextest run --locked --workspace -E '{{ filter }}'

# Formats, lints, and checks spelling, links, generated pages and workflows
check:
    ci/quick
    cargo clippy --quiet --locked --workspace --all-targets -- -D warnings

# Tests one package as its users have it: python, node, c, swift, neon
package name:
    ci/test-{{ name }}

# Longer runs, fuzzers and release packages; some three hours
nightly:
    ci/nightly

# Fuzzes every target for some seconds, or those that are named: just fuzz 60 gguf/open
fuzz seconds="60" *targets:
    ci/fuzz {{ seconds }} {{ targets }}

# How fast a model is here; just bench qwen2.5-coder-0.5b --tenants 1,16 --live
bench model="smollm2-135m" *options:
    cargo run --quiet --release --locked -p realm-cli -- bench {{ model }} {{ options }}

# Realm beside llama.cpp, in turns
peers *options:
    ci/bench-peers {{ options }}

# Writes the pages and plots that are made from docs/data
report:
    ci/bench-report

# Builds the documentation's site, or serves it: just book serve
book *command:
    ci/book {{ command }}

# Builds the programs of wasm-tenants/
programs:
    ci/build-programs
