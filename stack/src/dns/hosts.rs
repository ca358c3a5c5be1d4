//! The hosts file: names that are known without asking anybody.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Name;

/// What a hosts file says (hosts(5)): an address, its name, its other names, on each line.
#[derive(Debug, Clone, Default)]
pub struct Hosts {
    addresses: BTreeMap<Name, Vec<IpAddr>>,
    names: BTreeMap<IpAddr, Vec<Name>>,
    skipped: usize,
}

impl Hosts {
    /// Reads the text of a hosts file. What cannot be read is left out and counted, for such files have long
    /// been read by programs that say nothing; so is what is beyond 65 536 pairs of name and address.
    pub fn parse(text: &str) -> Self {
        let mut hosts = Self::default();
        let mut entries = 0;
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(address) = words.next() else { continue };
            // An interface behind the address of a link is of no use here: there is one.
            let address = address.split('%').next().unwrap_or_default();
            let Ok(address) = address.parse::<IpAddr>() else {
                hosts.skipped += 1;
                continue;
            };
            for word in words {
                match Name::parse(word) {
                    Ok(name) if entries < ENTRIES_MAX => {
                        entries += 1;
                        hosts.insert(name, address);
                    }
                    _ => hosts.skipped += 1,
                }
            }
        }
        hosts
    }

    /// Lines and names that were left out.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// Addresses of a name, in the order of the file.
    pub fn addresses(&self, name: &Name) -> &[IpAddr] {
        self.addresses.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Names of an address, in the order of the file.
    pub fn names(&self, address: IpAddr) -> &[Name] {
        self.names.get(&address).map(Vec::as_slice).unwrap_or_default()
    }

    fn insert(&mut self, name: Name, address: IpAddr) {
        let names = self.names.entry(address).or_default();
        if names.len() < LIST_LEN_MAX && !names.contains(&name) {
            names.push(name.clone());
        }
        let addresses = self.addresses.entry(name).or_default();
        if addresses.len() < LIST_LEN_MAX && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
}

/// Pairs of a name and an address at most.
const ENTRIES_MAX: usize = 65_536;
/// Addresses of a name, and names of an address.
const LIST_LEN_MAX: usize = 64;
