//! Tells the linker how a module of Node's is linked.

fn main() {
    napi_build::setup();
}
