//! The server's directories: who owns them, and a socket path that the system takes.

use super::ServerError;
use nix::unistd::{Gid, Uid, User, chown};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `sun_path` has 108 bytes, one of them the terminating zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Whom postgres runs as.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Owner {
    name: String,
    uid: Uid,
    gid: Gid,
    /// Whether this process is root and must become the owner.
    changes: bool,
}

impl Owner {
    /// The user `name` when this process is root, else the user it runs as.
    pub(super) fn find(name: &str) -> Result<Owner, ServerError> {
        let uid = Uid::effective();
        if !uid.is_root() {
            let name = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
            return Ok(Owner { name, uid, gid: Gid::effective(), changes: false });
        }
        let user = User::from_name(name).ok().flatten().filter(|user| !user.uid.is_root());
        let user = user.ok_or_else(|| ServerError::NoSuchUser { user: name.to_string() })?;
        Ok(Owner { name: user.name, uid: user.uid, gid: user.gid, changes: true })
    }

    /// What the hidden subcommand must become; nothing when it need not change.
    pub(super) fn ids(&self) -> Option<(u32, u32)> {
        self.changes.then(|| (self.uid.as_raw(), self.gid.as_raw()))
    }

    /// Lets `command` run as the owner; the standard library then leaves root's supplementary groups as well.
    pub(super) fn drop_privileges(&self, command: &mut Command) {
        if let Some((uid, gid)) = self.ids() {
            command.uid(uid).gid(gid);
        }
    }

    /// Gives the file or directory `path` to the owner.
    pub(super) fn give(&self, path: &Path) -> Result<(), ServerError> {
        if !self.changes {
            return Ok(());
        }
        chown(path, Some(self.uid), Some(self.gid))
            .map_err(|error| ServerError::io("give to its user", path)(error.into()))
    }

    /// Replaces the file `path` by one with `text`, of mode 0600.
    pub(super) fn write(&self, path: &Path, text: &str) -> Result<(), ServerError> {
        let fresh = sibling(path, "tmp");
        fs::write(&fresh, text).map_err(ServerError::io("write", &fresh))?;
        set_mode(&fresh, 0o600)?;
        self.give(&fresh)?;
        fs::rename(&fresh, path).map_err(ServerError::io("replace", path))
    }

    /// Whether the owner can pass every directory above `path`.
    fn check_reachable(&self, path: &Path) -> Result<(), ServerError> {
        if !self.changes {
            return Ok(());
        }
        for dir in path.ancestors().skip(1) {
            let Ok(data) = fs::metadata(dir) else { continue };
            let bit = match (data.uid() == self.uid.as_raw(), data.gid() == self.gid.as_raw()) {
                (true, _) => 0o100,
                (false, true) => 0o010,
                (false, false) => 0o001,
            };
            if data.mode() & bit == 0 {
                return Err(ServerError::Unreachable {
                    user: self.name.clone(),
                    path: path.to_path_buf(),
                    blocked: dir.to_path_buf(),
                });
            }
        }
        Ok(())
    }
}

/// `path` with `.suffix` appended to its last component.
pub(super) fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// Where the socket goes unless it is told.
pub(super) fn default_socket_dir(data_dir: &Path) -> PathBuf {
    sibling(data_dir, "socket")
}

/// `path` as an absolute path; it need not exist. Its parent is made and resolved, so that the path compares with what
/// the kernel says of a process' directory.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, ServerError> {
    let path = std::path::absolute(path).map_err(ServerError::io("resolve", path))?;
    if path.exists() {
        return path.canonicalize().map_err(ServerError::io("resolve", &path));
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(ServerError::Directory { path, reason: "not a place for a database".to_string() });
    };
    fs::create_dir_all(parent).map_err(ServerError::io("create", parent))?;
    let parent = parent.canonicalize().map_err(ServerError::io("resolve", parent))?;
    Ok(parent.join(name))
}

/// An existing directory without PG_VERSION must be empty: initdb's result takes its place.
pub(super) fn check_empty(dir: &Path) -> Result<(), ServerError> {
    match fs::read_dir(dir) {
        Err(_) => Ok(()),
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(ServerError::Directory {
                path: dir.to_path_buf(),
                reason: "has files but no PG_VERSION: not a database, and not empty to make one in"
                    .to_string(),
            }),
        },
    }
}

/// Makes `dir` a directory of mode 0700 that belongs to `owner` and that the owner can reach.
pub(super) fn make_private(dir: &Path, owner: &Owner) -> Result<(), ServerError> {
    fs::create_dir_all(dir).map_err(ServerError::io("create", dir))?;
    owner.check_reachable(dir)?;
    let data = fs::symlink_metadata(dir).map_err(ServerError::io("look at", dir))?;
    if !data.is_dir() {
        return Err(ServerError::Directory {
            path: dir.to_path_buf(),
            reason: "not a directory".to_string(),
        });
    }
    let uid = Uid::from_raw(data.uid());
    if uid != owner.uid && !(owner.changes && uid.is_root()) {
        return Err(ServerError::Directory {
            path: dir.to_path_buf(),
            reason: format!("belongs to user id {uid}, not to {}", owner.name),
        });
    }
    owner.give(dir)?;
    set_mode(dir, 0o700)
}

/// Makes the socket's directory, or a short one under /tmp when the socket's path would be too long.
pub(super) fn make_socket_dir(wanted: &Path, owner: &Owner) -> Result<PathBuf, ServerError> {
    let wanted = absolute(wanted)?;
    let fits = |dir: &Path| {
        // The lock file beside the socket is no socket; it may be longer.
        crate::connection::socket_path(dir).as_os_str().as_bytes().len() <= SOCKET_PATH_BYTES_MAX
    };
    let dir = if fits(&wanted) {
        wanted
    } else {
        let name = steeldb_types::Digest::of("steeldb/socket", &[wanted.as_os_str().as_bytes()]);
        let dir = PathBuf::from(format!("/tmp/steeldb-{}-{name:?}", owner.uid));
        tracing::info!(wanted = %wanted.display(), dir = %dir.display(), "the socket's path would be too long");
        dir
    };
    make_private(&dir, owner)?;
    Ok(dir)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), ServerError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(ServerError::io("set the mode of", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_socket_path_is_replaced_by_a_short_one() {
        let owner = Owner { name: "me".into(), uid: Uid::effective(), gid: Gid::effective(), changes: false };
        let base = tempfile::tempdir().unwrap();
        let short = make_socket_dir(&base.path().join("s"), &owner).unwrap();
        assert_eq!(short, base.path().canonicalize().unwrap().join("s"));
        let long = make_socket_dir(&base.path().join("d".repeat(100)), &owner).unwrap();
        assert!(long.starts_with("/tmp"));
        assert_eq!(fs::metadata(&long).unwrap().mode() & 0o777, 0o700);
        fs::remove_dir(&long).unwrap();
    }

    #[test]
    fn a_directory_with_other_files_is_not_initialised() {
        let base = tempfile::tempdir().unwrap();
        assert!(check_empty(base.path()).is_ok());
        fs::write(base.path().join("holiday.jpg"), "x").unwrap();
        assert!(check_empty(base.path()).is_err());
    }
}
