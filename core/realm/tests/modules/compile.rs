//! Compiling on tenants' accounts: in turns, and charged to the tenant that asked for it.

use std::sync::atomic::{AtomicUsize, Ordering};

use realm::{ErrorCode, Limits, MemoryKind, Realm, Tenant};
use tempfile::TempDir;

/// A realm that has compiled nothing yet.
fn fresh() -> (Realm, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let realm = Realm::builder().threads(1).device("cpu").cache_folder(folder.path()).build().unwrap();
    (realm, folder)
}

fn tenant(realm: &Realm, memory: usize) -> Tenant {
    realm.tenant("acme", Limits { memory, ..Limits::default() }).unwrap()
}

/// A program with this number of loads; each `number` gives another program.
fn module(number: usize, loads: usize) -> Vec<u8> {
    let loads = "(drop (i32.load (i32.const 8)))".repeat(loads);
    let module = format!(
        r#"(module (memory (export "memory") 1) (func (export "realm_run") (result i32) {loads} (i32.const {number})))"#
    );
    wat::parse_str(module).unwrap()
}

fn code(tenant: &Tenant) -> usize {
    tenant.memory().of(MemoryKind::Code)
}

#[test]
fn tenants_have_their_programs_compiled_in_fair_turns() {
    const MANY: usize = 40;
    let (realm, _folder) = fresh();
    let [many, one] = [(); 2].map(|()| tenant(&realm, 1 << 30));
    let modules: Vec<_> = (0..MANY).map(|number| module(number, 4000)).collect();
    let bytes: usize = modules.iter().map(Vec::len).sum();
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for wasm in &modules {
            let (many, done) = (&many, &done);
            scope.spawn(move || {
                let program = many.compile_program(wasm).unwrap();
                done.fetch_add(1, Ordering::SeqCst);
                program
            });
        }
        // Nearly all of them wait by now: waiting programs count as the tenant's memory.
        while code(&many) < bytes / 2 && done.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        one.compile_program(&module(MANY, 4000)).unwrap();
        let before = done.load(Ordering::SeqCst);
        assert!(before < MANY - 5, "{before} of the other's {MANY} came first");
    });
}

#[test]
fn compiled_code_is_the_memory_of_the_tenant_that_had_it_compiled() {
    let (realm, _folder) = fresh();
    let [owner, other] = [(); 2].map(|()| tenant(&realm, 1 << 30));
    let program = owner.compile_program(&module(0, 100)).unwrap();
    let held = code(&owner);
    assert!(held > 1000 && code(&other) == 0, "{held}");
    // Charged once, however the tenant uses the program, until its last use ends.
    owner.set_program(Some(&program));
    owner.add_program("again", &program);
    assert_eq!(code(&owner), held);
    // Any other tenant that has the program is charged, too.
    other.set_program(Some(&program));
    assert_eq!((code(&owner), code(&other)), (held, held));
    drop(program);
    owner.set_program(None);
    owner.remove_program("again");
    assert_eq!(code(&owner), held, "the other has it");
    other.set_program(None);
    assert_eq!((code(&owner), code(&other)), (0, 0));
    // A program that the application compiled is charged to no tenant until one uses it.
    let program = realm.compile_program(&module(0, 100)).unwrap();
    assert_eq!(code(&owner), 0);
    owner.set_program(Some(&program));
    assert_eq!(code(&owner), held);
}

#[test]
fn a_tenant_has_no_more_compiled_than_its_memory_holds() {
    let (realm, _folder) = fresh();
    let wasm = module(0, 1000);
    for memory in [wasm.len() / 2, wasm.len() + 100] {
        // Refused before it is compiled, or once the size of the code is known.
        let small = tenant(&realm, memory);
        let error = small.compile_program(&wasm).unwrap_err();
        assert_eq!(error.code(), ErrorCode::LimitExceeded);
        for part in ["`acme`", "code", "`memory`"] {
            assert!(error.message().contains(part), "{error}");
        }
        assert_eq!(code(&small), 0);
    }
    // A refused program holds no memory.
    let tenant = tenant(&realm, 1 << 20);
    assert_eq!(tenant.compile_program(b"\0asm").unwrap_err().code(), ErrorCode::InvalidProgram);
    assert_eq!(code(&tenant), 0);
    assert!(tenant.compile_program(&wasm).is_ok());
}
