//! Settings below `/proc/sys/net`: files whose content belongs to the thread's network namespace.

use std::fs;
use std::io;
use std::path::Path;

use super::TestbedError;

const ROOT: &str = "/proc/sys/net";

/// Whether this kernel has IPv6 at all: it may be built, or booted, without.
pub fn has_ipv6() -> bool {
    Path::new(ROOT).join("ipv6").exists()
}

/// Writes a setting of the calling thread's network namespace, unless it has that value already: in a
/// container these files can be read-only and right.
pub(super) fn set(setting: &str, value: &'static str) -> Result<(), TestbedError> {
    let path = format!("{ROOT}/{setting}");
    let result = fs::read_to_string(&path)
        .and_then(|before| if before.trim_end() == value { Ok(()) } else { fs::write(&path, value) });
    result.map_err(|source| TestbedError::Setting { path, value, source })
}

/// As [`set`], for IPv6. If the file is not there, the kernel or the interface (its MTU is below 1280)
/// has no IPv6, and is as silent as can be.
pub(super) fn set_ipv6(setting: &str, value: &'static str) -> Result<(), TestbedError> {
    match set(&format!("ipv6/{setting}"), value) {
        Err(TestbedError::Setting { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
