//! SIOCETHTOOL: questions to the driver of an interface, and switches.
//!
//! Each function is for commands of one structure of `linux/ethtool.h`. The kernel reads and writes as
//! much memory as that structure has, so a command for another one would be unsound.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::checked;

/// `SIOCETHTOOL` of `linux/sockios.h`; libc has it for other targets only.
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// The name of an interface as `struct ifreq` holds it: ends in at least one zero byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InterfaceName([libc::c_char; libc::IFNAMSIZ]);

impl InterfaceName {
    /// Checks the length of a name and that it has no zero byte; whether such an interface exists is
    /// for the kernel to say.
    pub(crate) fn new(name: &str) -> io::Result<Self> {
        let bytes = name.as_bytes();
        if bytes.is_empty() || bytes.len() >= libc::IFNAMSIZ || bytes.contains(&0) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name:?} is no interface name: 1 to {} bytes are right", libc::IFNAMSIZ - 1),
            ));
        }
        let mut chars = [0; libc::IFNAMSIZ];
        for (char, byte) in chars.iter_mut().zip(bytes) {
            // The same eight bits: `c_char` is signed on some machines.
            *char = *byte as libc::c_char;
        }
        Ok(Self(chars))
    }

    /// As `struct ifreq` has it.
    pub(crate) fn chars(self) -> [libc::c_char; libc::IFNAMSIZ] {
        self.0
    }
}

/// `struct ethtool_value` of `linux/ethtool.h`.
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

/// Runs one ethtool command that carries a number, on an interface of the network namespace in which
/// `socket` was opened. Returns the number that the kernel left there.
///
/// # Errors
/// What the kernel says: ENODEV (no such interface), EOPNOTSUPP (the driver cannot), EPERM.
pub(crate) fn value(
    socket: BorrowedFd<'_>,
    interface: InterfaceName,
    command: u32,
    data: u32,
) -> io::Result<u32> {
    let mut value = EthtoolValue { cmd: command, data };
    // SAFETY: `value` is a `struct ethtool_value`, initialized, writable (the pointer is made from a
    // mutable place) and alive until it is read below. All callers (`crate::ethtool`, the only user of
    // this function) pass the G/S commands that are defined for that structure, so the kernel reads and
    // writes no more than that.
    unsafe { run(socket, interface, (&raw mut value).cast()) }?;
    Ok(value.data)
}

/// `struct ethtool_channels`: numbers of queues.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct EthtoolChannels {
    cmd: u32,
    pub(crate) rx_max: u32,
    pub(crate) tx_max: u32,
    pub(crate) other_max: u32,
    pub(crate) combined_max: u32,
    pub(crate) rx: u32,
    pub(crate) tx: u32,
    pub(crate) other: u32,
    pub(crate) combined: u32,
}

/// ETHTOOL_GCHANNELS: how many queues there are, and how many could be.
///
/// # Errors
/// As [`value`].
pub(crate) fn channels(socket: BorrowedFd<'_>, interface: InterfaceName) -> io::Result<EthtoolChannels> {
    let mut channels = EthtoolChannels { cmd: 0x3c, ..EthtoolChannels::default() };
    // SAFETY: 0x3c is ETHTOOL_GCHANNELS, for which the kernel reads and writes one `struct
    // ethtool_channels`: `channels` is one, initialized, writable and alive until it is returned.
    unsafe { run(socket, interface, (&raw mut channels).cast()) }?;
    Ok(channels)
}

/// Bytes of a name in a set of names (`ETH_GSTRING_LEN`).
const NAME_BYTES: usize = 32;
/// Names that there is room for: the kernel has 64 features, and writes as many as it has.
const NAMES_MAX: usize = 1024;
/// `ETH_SS_FEATURES`: the set of the names of features.
const SET_FEATURES: u32 = 4;

/// `struct ethtool_gstrings` with room for names.
#[repr(C)]
struct EthtoolStrings {
    cmd: u32,
    string_set: u32,
    len: u32,
    data: [[u8; NAME_BYTES]; NAMES_MAX],
}

/// `struct ethtool_sset_info` for one set.
#[repr(C)]
struct EthtoolSetInfo {
    cmd: u32,
    reserved: u32,
    sset_mask: u64,
    data: [u32; 1],
}

/// ETHTOOL_GSTRINGS: the names of all features, in the order of their bits. Bits that are not used have
/// empty names.
///
/// # Errors
/// As [`value`]; [`io::ErrorKind::Unsupported`]: a kernel with more names than there is room for.
pub(crate) fn feature_names(socket: BorrowedFd<'_>, interface: InterfaceName) -> io::Result<Vec<String>> {
    let mut info = EthtoolSetInfo { cmd: 0x37, reserved: 0, sset_mask: 1 << SET_FEATURES, data: [0] };
    // SAFETY: 0x37 is ETHTOOL_GSSET_INFO, for which the kernel reads one `struct ethtool_sset_info` and
    // writes it with one number for each bit of `sset_mask`: there is one bit and room for one number.
    // `info` is initialized, writable and alive until it is read below.
    unsafe { run(socket, interface, (&raw mut info).cast()) }?;
    let count = info.data[0] as usize;
    if info.sset_mask == 0 || count > NAMES_MAX {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let mut strings = Box::new(EthtoolStrings {
        cmd: 0x1b,
        string_set: SET_FEATURES,
        len: count as u32,
        data: [[0; NAME_BYTES]; NAMES_MAX],
    });
    // SAFETY: 0x1b is ETHTOOL_GSTRINGS, for which the kernel writes a `struct ethtool_gstrings` and
    // after it the names of the set, whose number is a constant of the running kernel: it was asked for
    // above, and there is room for as many. `strings` is initialized, writable and alive until it is
    // read below.
    unsafe { run(socket, interface, (&raw mut *strings).cast()) }?;
    let len = (strings.len as usize).min(count);
    let text = |name: &[u8; NAME_BYTES]| {
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(NAME_BYTES);
        String::from_utf8_lossy(&name[..end]).into_owned()
    };
    Ok(strings.data[..len].iter().map(text).collect())
}

/// Groups of 32 features that there is room for.
const FEATURE_GROUPS_MAX: usize = NAMES_MAX / 32;

/// `struct ethtool_get_features_block`: a bit for each of 32 features.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FeatureGroup {
    pub(crate) available: u32,
    pub(crate) requested: u32,
    pub(crate) active: u32,
    pub(crate) never_changed: u32,
}

/// `struct ethtool_gfeatures` with room for groups.
#[repr(C)]
struct EthtoolFeatures {
    cmd: u32,
    size: u32,
    groups: [FeatureGroup; FEATURE_GROUPS_MAX],
}

/// ETHTOOL_GFEATURES: which features there are and are on, the lowest bits first.
///
/// # Errors
/// As [`value`].
pub(crate) fn features(socket: BorrowedFd<'_>, interface: InterfaceName) -> io::Result<Vec<FeatureGroup>> {
    let groups = [FeatureGroup::default(); FEATURE_GROUPS_MAX];
    let mut features = EthtoolFeatures { cmd: 0x3a, size: FEATURE_GROUPS_MAX as u32, groups };
    // SAFETY: 0x3a is ETHTOOL_GFEATURES, for which the kernel reads a `struct ethtool_gfeatures` and
    // writes at most `size` groups after it: there is room for as many. `features` is initialized,
    // writable and alive until it is read below.
    unsafe { run(socket, interface, (&raw mut features).cast()) }?;
    let len = (features.size as usize).min(FEATURE_GROUPS_MAX);
    Ok(features.groups[..len].to_vec())
}

/// One SIOCETHTOOL on an interface of the network namespace in which `socket` was opened.
///
/// # Safety
/// `data` must point to a structure that begins with a command and is the one that `linux/ethtool.h`
/// defines for this command, with as much memory behind it as the kernel writes for it; it must be
/// initialized and writable, and nobody else may use it during the call.
unsafe fn run(socket: BorrowedFd<'_>, interface: InterfaceName, data: *mut libc::c_char) -> io::Result<()> {
    let mut request =
        libc::ifreq { ifr_name: interface.0, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: data } };
    // SAFETY: SIOCETHTOOL reads a `struct ifreq` at its argument: `request` is one, initialized above
    // and alive until the end of this function. The kernel then reads and writes at `ifr_data`, which
    // the caller vouches for. `socket` is open: it is borrowed.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    checked(result).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_fit_the_kernel_structure() {
        assert!(InterfaceName::new("lo").is_ok());
        assert!(InterfaceName::new("fifteen-bytes-x").is_ok());
        for wrong in ["", "sixteen-bytes-xx", "a\0b"] {
            let error = InterfaceName::new(wrong).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{wrong:?}");
        }
    }
}
