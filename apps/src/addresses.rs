//! The addresses of a program: those that were given, a lease, a router's prefix; and waiting until they can
//! be used.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use smoltcp::time::{Duration, Instant};
use wirestack::config::parse_cidr;
use wirestack::ip::{Address, AddressState, Origin};
use wirestack::neighbor::AddressProbes;
use wirestack::observe::Event;
use wirestack::shard::Shard;
use wirestack::{EthernetAddress, IpCidr};

use crate::error::AppError;
use crate::serve::print_error;

/// A value of `--address`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressArg {
    /// An address with its prefix length.
    Static(IpCidr),
    /// Whatever a DHCP server gives.
    Dhcp,
    /// Whatever a router's advertisement makes of our hardware address.
    Slaac,
}

impl AddressArg {
    /// An address without neighbours.
    pub(crate) fn whole(address: IpAddr) -> Self {
        Self::Static(IpCidr::new(address.into(), if address.is_ipv4() { 32 } else { 128 }))
    }
}

impl FromStr for AddressArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "dhcp" => Ok(Self::Dhcp),
            "slaac" => Ok(Self::Slaac),
            _ if text.contains(['/', '.', ':']) => {
                parse_cidr(text).map(Self::Static).map_err(|error| error.to_string())
            }
            _ => {
                Err("an address with prefix length, dhcp or slaac is accepted, as in 10.0.0.2/24".to_owned())
            }
        }
    }
}

impl fmt::Display for AddressArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static(cidr) => cidr.fmt(f),
            Self::Dhcp => f.write_str("dhcp"),
            Self::Slaac => f.write_str("slaac"),
        }
    }
}

/// Reads the value of `--probe`.
pub(crate) fn parse_probes(text: &str) -> Result<AddressProbes, &'static str> {
    match text {
        "full" => Ok(AddressProbes::Full),
        "quick" => Ok(AddressProbes::Quick),
        "none" => Ok(AddressProbes::None),
        _ => Err("full, quick or none is accepted"),
    }
}

/// The addresses that a program waits for before it says that it is ready.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// In the order of the ready line.
    pub addresses: Vec<AddressArg>,
    /// How long leases and routers are waited for.
    pub timeout: Duration,
    /// Whose our addresses are as well, as far as somebody has said so.
    pub conflicts: Conflicts,
}

/// Who else has an address of ours; filled in by a hook of the shard.
#[derive(Debug, Clone, Default)]
pub struct Conflicts(Arc<Mutex<BTreeMap<IpAddr, EthernetAddress>>>);

impl Conflicts {
    /// Notes conflicts of this shard from now on, and logs what becomes of its addresses.
    pub fn watch(&self, shard: &mut Shard) {
        let conflicts = Arc::clone(&self.0);
        let hook = move |_: Instant, event: &Event<'_>| match event {
            Event::AddressConflict { address, mac } => {
                conflicts.lock().unwrap_or_else(PoisonError::into_inner).insert(*address, *mac);
            }
            Event::AddressAdded(cidr) => log::info!("{cidr} is in use"),
            Event::AddressRemoved(address) => log::info!("{address} is gone"),
            Event::DnsServers(servers) => log::info!("name servers: {servers:?}"),
            _ => {}
        };
        shard.set_hook(Some(Box::new(hook)));
    }

    fn of(&self, address: IpAddr) -> Option<EthernetAddress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&address).copied()
    }
}

/// The wait for addresses; see [`Waiting::look`].
#[derive(Debug)]
pub struct Waiting<'a> {
    wanted: &'a Wanted,
    give_up: Instant,
}

impl<'a> Waiting<'a> {
    /// Begins to wait, and says so if somebody else is to give an address.
    pub fn begin(wanted: &'a Wanted, now: Instant) -> Self {
        let lacks = |arg| wanted.addresses.contains(&arg);
        if lacks(AddressArg::Dhcp) {
            print_error("wirestack: waiting for a DHCP lease");
        }
        if lacks(AddressArg::Slaac) {
            print_error("wirestack: waiting for a router's advertisement");
        }
        Self { wanted, give_up: now + wanted.timeout }
    }

    /// The addresses, once all can be used. `None`: not yet; look again after the next turn, and at
    /// [`deadline`](Self::deadline).
    ///
    /// # Errors
    /// Somebody else has an address that was given, or nobody gave one in time. One line.
    pub fn look(&self, shard: &Shard, now: Instant) -> Result<Option<Vec<IpAddr>>, AppError> {
        let mut found = Vec::new();
        for arg in &self.wanted.addresses {
            match usable(shard, *arg) {
                Some(address) => found.push(address.ip()),
                None => {
                    self.check(shard, *arg, now)?;
                    return Ok(None);
                }
            }
        }
        if let Some(lease) = shard.dhcp_lease() {
            let list = |addresses: &[std::net::Ipv4Addr]| {
                addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
            };
            print_error(format_args!(
                "wirestack: leased {} from {}, routers: {}, name servers: {}",
                lease.address,
                lease.server,
                list(&lease.routers),
                list(&lease.dns)
            ));
        }
        Ok(Some(found))
    }

    /// When to look even if nothing has happened.
    pub fn deadline(&self) -> Instant {
        self.give_up
    }

    /// What speaks against waiting any longer.
    fn check(&self, shard: &Shard, arg: AddressArg, now: Instant) -> Result<(), AppError> {
        let failed =
            |problem: fmt::Arguments<'_>| Err(AppError::running(format_args!("--address {arg}: {problem}")));
        if let AddressArg::Static(cidr) = arg {
            let ip = IpAddr::from(cidr.address());
            let is_taken = |address: &Address| address.ip() == ip && address.state == AddressState::Duplicate;
            return match shard.addresses().any(is_taken) {
                true => match self.wanted.conflicts.of(ip) {
                    Some(mac) => failed(format_args!("another host has it, {mac}")),
                    None => failed(format_args!("another host has it")),
                },
                false => Ok(()),
            };
        }
        if now < self.give_up {
            return Ok(());
        }
        let seconds = self.wanted.timeout.total_millis() as f64 / 1000.0;
        match arg {
            AddressArg::Dhcp => {
                failed(format_args!("no server has given a lease within {seconds} s (--address-timeout)"))
            }
            _ => failed(format_args!(
                "no router has advertised a prefix within {seconds} s (--address-timeout)"
            )),
        }
    }
}

/// The address that a value of `--address` has led to, if it can be used.
fn usable(shard: &Shard, arg: AddressArg) -> Option<&Address> {
    let is_it = |address: &&Address| match arg {
        AddressArg::Static(cidr) => address.ip() == IpAddr::from(cidr.address()),
        AddressArg::Dhcp => address.origin == Origin::Dhcp,
        AddressArg::Slaac => address.origin == Origin::Slaac,
    };
    shard.addresses().filter(|address| address.is_usable()).find(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for text in ["10.0.0.2/24", "fd00::2/64", "dhcp", "slaac"] {
            assert_eq!(text.parse::<AddressArg>().expect("good").to_string(), text);
        }
        for (text, words) in [
            ("10.0.0.2", "prefix length is missing"),
            ("10.0.0.2/33", "0 to 32"),
            ("DHCP", "dhcp or slaac"),
            ("auto", "dhcp or slaac"),
            ("", "dhcp or slaac"),
        ] {
            let error = text.parse::<AddressArg>().expect_err(text);
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }
}
