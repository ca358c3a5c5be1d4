//! Who else has packet sockets on an interface.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

/// A packet socket of another process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Other {
    /// `None`: its process is not for us to see.
    pub(super) pid: Option<u32>,
    /// Name of the process, or empty.
    pub(super) name: String,
}

/// Inodes of packet sockets that see frames of an interface, of a text like `/proc/net/packet`.
pub(super) fn inodes(text: &str, index: i32) -> HashSet<u64> {
    let inode = |line: &str| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let on: i32 = words.get(4)?.parse().ok()?;
        // Without a protocol it only sends. On no interface: on all.
        let takes = u32::from_str_radix(words.get(3)?, 16).ok()? != 0;
        (takes && (on == index || on == 0)).then(|| words.get(8)?.parse().ok())?
    };
    text.lines().skip(1).filter_map(inode).collect()
}

/// The packet sockets on an interface, each once.
pub(super) fn others(index: i32) -> Vec<Other> {
    let text = fs::read_to_string("/proc/thread-self/net/packet").unwrap_or_default();
    let inodes = inodes(&text, index);
    if inodes.is_empty() {
        return Vec::new();
    }
    let owners = owners(&inodes);
    let other = |inode: &u64| owners.get(inode).cloned().unwrap_or(Other { pid: None, name: String::new() });
    let mut all: Vec<_> = inodes.iter().map(other).collect();
    all.sort();
    all.dedup();
    all
}

/// Whose sockets these are. It looks at the descriptors of all processes, as far as it may.
fn owners(inodes: &HashSet<u64>) -> HashMap<u64, Other> {
    let mut owners = HashMap::new();
    let Ok(processes) = fs::read_dir("/proc") else { return owners };
    for process in processes.flatten().take(PROCESSES_MAX) {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        for descriptor in descriptors.flatten().take(DESCRIPTORS_MAX) {
            let inode = fs::read_link(descriptor.path()).ok().and_then(|to| inode_of(&to));
            if let Some(inode) = inode.filter(|inode| inodes.contains(inode)) {
                let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                let name = name.trim().chars().filter(|c| !c.is_control()).collect();
                owners.insert(inode, Other { pid: Some(pid), name });
            }
        }
    }
    owners
}

/// Of a link like `socket:[4711]`.
fn inode_of(link: &Path) -> Option<u64> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Processes that are looked at.
const PROCESSES_MAX: usize = 50_000;
/// Descriptors of each that are looked at.
const DESCRIPTORS_MAX: usize = 10_000;
