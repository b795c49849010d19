//! Folders and files that only this user may write.
//!
//! Other users who may write into the cache folder could put a module where Python looks for pip, a link
//! where a lock is opened, or another model's bytes under a model's name.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::path::Path;

/// Describes who else may write a file or folder with this metadata; `None` if only this user and root may.
/// Always `None` where the operating system does not tell.
#[cfg(unix)]
pub(crate) fn shared(metadata: &Metadata) -> Option<&'static str> {
    use std::os::unix::fs::MetadataExt;

    let (user, group) = ids();
    if metadata.uid() != user && metadata.uid() != 0 {
        return Some("belongs to another user");
    }
    if metadata.mode() & 0o002 != 0 {
        return Some("can be written by all users");
    }
    // Systems with one group for each user give it the user's number, and let it write by default.
    let own_group = metadata.gid() == group && group == user;
    if metadata.mode() & 0o020 != 0 && !own_group && metadata.gid() != 0 {
        return Some("can be written by a group");
    }
    None
}

/// Describes who else may write a file or folder with this metadata; `None` if only this user and root may.
/// Always `None` where the operating system does not tell.
#[cfg(not(unix))]
pub(crate) fn shared(_metadata: &Metadata) -> Option<&'static str> {
    None
}

/// Returns the ids of this process's user and group.
#[cfg(unix)]
#[allow(unsafe_code)]
fn ids() -> (u32, u32) {
    // SAFETY: the calls take no arguments, touch no memory of ours and can't fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

/// Creates a folder that others may read, and its missing parents.
pub(crate) fn create_folder(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o755);
    builder.recursive(true).create(folder)
}

/// Opens a file for reading and writing and keeps its content; creates it if it does not exist.
///
/// # Errors
/// Fails for a link, whose target is not ours to write, and for anything else that is not a file.
pub(crate) fn open_to_write(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    // Without `O_NONBLOCK` the open of a pipe would wait for its other end.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    Ok(file)
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn what_others_may_write_is_shared() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("a/b");
        create_folder(&folder).expect("a folder");
        let shared_with = |mode| {
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).expect("a mode");
            shared(&fs::metadata(&folder).expect("a folder"))
        };
        assert_eq!(shared_with(0o755), None);
        assert_eq!(shared_with(0o757), Some("can be written by all users"));
        // A sticky bit keeps others from removing files, not from adding some.
        assert_eq!(shared_with(0o1777), Some("can be written by all users"));
    }

    #[test]
    fn a_link_is_not_written_through() {
        let folder = tempfile::tempdir().expect("a folder");
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        fs::write(&target, "kept").expect("a file");
        symlink(&target, &link).expect("a link");
        assert!(open_to_write(&link).is_err());
        drop(open_to_write(&target).expect("a file"));
        assert_eq!(fs::read(&target).expect("a file"), b"kept");
        assert!(open_to_write(folder.path()).is_err());
    }
}
