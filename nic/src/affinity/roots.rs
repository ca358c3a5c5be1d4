//! Where the kernel's files are: `/sys`, `/proc`, or others.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// Roots of the file systems in which the kernel shows and takes settings.
///
/// What `/sys/class/net` shows belongs to the network namespace of whoever *mounted* it, not of whoever
/// reads it. [`Roots::of_this_namespace`] therefore makes an instance of its own.
#[derive(Debug, Clone)]
pub struct Roots {
    /// Of sysfs.
    pub sys: PathBuf,
    /// Of procfs.
    pub proc: PathBuf,
    /// Keeps the instance of sysfs that `sys` leads to.
    _mount: Option<Arc<OwnedFd>>,
}

impl Roots {
    /// Roots at other places than the usual ones.
    pub fn at(sys: impl Into<PathBuf>, proc: impl Into<PathBuf>) -> Self {
        Self { sys: sys.into(), proc: proc.into(), _mount: None }
    }

    /// Roots that show the network namespace of the calling thread: sysfs mounted anew and attached
    /// nowhere, so nobody else sees it and it goes away with the last clone of this value. That takes
    /// CAP_SYS_ADMIN; without it this is `/sys` as it is, which may show another namespace: see
    /// [`Roots::shows`].
    pub fn of_this_namespace() -> Self {
        match mount_sysfs() {
            Ok(mount) => Self {
                // Not `thread-self`: a clone may be used by another thread.
                sys: format!("/proc/self/fd/{}", mount.as_raw_fd()).into(),
                proc: "/proc".into(),
                _mount: Some(Arc::new(mount)),
            },
            Err(error) => {
                log::debug!("no sysfs of our own: {error}");
                Self::at("/sys", "/proc")
            }
        }
    }

    /// Whether sysfs shows this very interface, and not one of the same name in another namespace.
    pub fn shows(&self, interface: &crate::Interface) -> bool {
        let folder = self.interface(&interface.name);
        let text = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
        let index = text("ifindex").trim() == interface.index.to_string();
        let mac = interface.mac.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>();
        index && text("address").trim() == mac.join(":")
    }

    /// The folder of an interface.
    pub(crate) fn interface(&self, name: &str) -> PathBuf {
        self.sys.join("class/net").join(name)
    }
}

impl Default for Roots {
    /// `/sys` and `/proc`.
    fn default() -> Self {
        Self::at("/sys", "/proc")
    }
}

/// An instance of sysfs for the network namespace of this thread, attached to no folder (Linux 5.2).
fn mount_sysfs() -> io::Result<OwnedFd> {
    let context = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// Reads a file of one value, without the line end.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    let text = fs::read_to_string(path);
    Ok(text
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?
        .trim()
        .to_owned())
}

/// The same, with `None` for a value that this kernel or device does not have.
pub(crate) fn read_optional(path: &Path) -> Option<String> {
    read(path).ok()
}
