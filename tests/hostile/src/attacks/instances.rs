//! Components that contain many instances.

use wit_component::ComponentEncoder;

/// Makes a component of a core module, with `more` instances of another core module in it.
pub(super) fn with_instances(module: &[u8], more: usize, other: &str) -> Vec<u8> {
    let component = ComponentEncoder::default()
        .module(module)
        .and_then(|mut encoder| encoder.encode())
        .expect("a component");
    let mut at = 8;
    let mut modules = 0;
    while at < component.len() {
        let id = component[at];
        at += 1;
        let (mut size, mut shift) = (0usize, 0);
        loop {
            let byte = component[at];
            at += 1;
            size |= usize::from(byte & 127) << shift;
            shift += 7;
            if byte & 128 == 0 {
                break;
            }
        }
        modules += usize::from(id == 1);
        at += size;
    }
    let other = wat::parse_str(other).expect("a module");
    let mut instances = Vec::new();
    leb(more, &mut instances);
    for _ in 0..more {
        instances.push(0);
        leb(modules, &mut instances);
        leb(0, &mut instances);
    }
    let mut out = component;
    for (id, section) in [(1, other), (2, instances)] {
        out.push(id);
        leb(section.len(), &mut out);
        out.extend(section);
    }
    out
}

/// Encodes a number in WebAssembly's LEB128.
fn leb(mut number: usize, out: &mut Vec<u8>) {
    loop {
        #[allow(clippy::cast_possible_truncation, reason = "seven bits")]
        let byte = (number & 127) as u8;
        number >>= 7;
        if number == 0 {
            out.push(byte);
            return;
        }
        out.push(byte | 128);
    }
}
