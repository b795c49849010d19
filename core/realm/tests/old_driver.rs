//! A driver that is too old for the kernels: the error states both versions, and `auto` runs on the CPU.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use realm::{ErrorCode, Level, Realm};

/// The only functions of a driver that are called before it is refused.
const DRIVER: &str = "int cuDriverGetVersion(int *version) { *version = 12040; return 0; }\n\
                      int cuInit(unsigned flags) { return 100; }\n";

/// Set where the test runs beside such a driver.
const CHILD: &str = "REALM_TEST_OLD_DRIVER";

/// Compiles a driver into `folder`, under the file names of real drivers.
fn driver(folder: &Path) {
    let source = folder.join("driver.c");
    std::fs::write(&source, DRIVER).unwrap();
    let library = folder.join("libcuda.so");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let arguments = [Path::new("-shared"), Path::new("-fPIC"), Path::new("-o"), &library, &source];
    let done = Command::new(compiler).args(arguments).status().expect("a C compiler");
    assert!(done.success());
    std::fs::copy(&library, folder.join("libcuda.so.1")).unwrap();
}

#[test]
fn an_old_driver_is_named_and_auto_runs_on_the_cpu() {
    if std::env::var_os(CHILD).is_some() {
        return beside_an_old_driver();
    }
    let folder = tempfile::tempdir().unwrap();
    driver(folder.path());
    // The dynamic loader reads its search path only when the process starts.
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "an_old_driver_is_named_and_auto_runs_on_the_cpu", "--nocapture"])
        .env("LD_LIBRARY_PATH", folder.path())
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}

fn beside_an_old_driver() {
    let Err(error) = Realm::builder().device("cuda").build() else { panic!("a driver without functions") };
    assert_eq!(error.code(), ErrorCode::Unsupported);
    for figure in ["12.4", "13.0", "580"] {
        assert!(error.message().contains(figure), "{error}");
    }
    let said = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&said);
    let keep = move |_: Level, _: &str, message: &str| sink.lock().unwrap().push(message.to_owned());
    realm::log_to(Level::Info, Some(keep)).unwrap();
    for _ in 0..2 {
        let realm = Realm::builder().threads(2).build().unwrap();
        let model = realm.load_model("smollm2-135m").unwrap();
        assert!(model.info().device.starts_with("cpu"), "{}", model.info().device);
    }
    let said = said.lock().unwrap();
    let about = said.iter().filter(|line| line.contains("running on the CPU") && line.contains("12.4"));
    assert_eq!(about.count(), 1, "{said:?}");
}
