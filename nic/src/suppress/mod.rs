//! The kernel kept silent for our tuples.
//!
//! A packet socket gets copies: the kernel sees every frame as well, and answers for an address that
//! it takes for its own (a RST, an ICMP unreachable), or forwards what we use. An address that the
//! kernel does not own, with forwarding off or with a MAC address of our own, needs nothing of this;
//! [`assess()`] tells. Otherwise [`install`] makes rules that drop frames for exactly our claims behind
//! the packet socket and before the kernel's IP:
//!
//! ```text
//!   driver ▸ packet sockets (ETH_P_ALL) ▸ nftables ingress ▸ bridge, VLAN ▸ raw PREROUTING ▸ IP, TCP
//!            we get the frame             method `nft`                      method `iptables`
//! ```
//!
//! | method | rules | after SIGKILL |
//! |---|---|---|
//! | [`Nft`](Method::Nft) | a table of family `netdev` with the flag `owner` | the kernel removes them with our socket |
//! | [`Iptables`](Method::Iptables) | table `raw`, chain PREROUTING, with a comment | the next guard sweeps them; or [`sweep()`] |
//!
//! Rules are per claim, not per connection: outgoing connections on an address that the kernel owns
//! take their ports from one guarded range, which [`source_port_range_check`] checks.
//!
//! Later fragments have no ports, so rules on ports let them pass to the kernel. It stays silent: an
//! ICMP for a reassembly that timed out needs the first fragment, which was dropped.
//!
//! What is not done here: ARP and NDP (on a shared address kernel and stack both answer, with the same
//! MAC address); frames that come in from other interfaces; a check that no program of the kernel
//! listens on a claimed port (it would hear nothing).

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::net::if_::if_nametoindex;

use crate::claim::{Claim, Scope};

mod assess;
mod error;
mod iptables;
mod netlink;
mod nft;
mod ports;
mod sweep;

pub use assess::{Need, assess};
pub use error::{SuppressError, SuppressStep};
pub use iptables::{recipe, recipe_removal};
pub use ports::{SourcePortsError, source_port_range_check};
pub use sweep::sweep;

/// How the kernel is kept silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// A table of nftables that the kernel removes when this process ends, however it ends. Linux 5.12.
    Nft,
    /// The programs `iptables` and `ip6tables`, for older kernels.
    Iptables,
    /// Not at all: there is no need, or the administrator has made rules (see [`recipe`]).
    None,
}

impl FromStr for Method {
    type Err = MethodError;

    fn from_str(name: &str) -> Result<Self, MethodError> {
        match name {
            "nft" => Ok(Self::Nft),
            "iptables" => Ok(Self::Iptables),
            "none" => Ok(Self::None),
            _ => Err(MethodError { name: name.to_owned() }),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nft => "nft",
            Self::Iptables => "iptables",
            Self::None => "none",
        })
    }
}

/// A word that names no [`Method`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no method of suppression: use nft, iptables or none")]
pub struct MethodError {
    name: String,
}

/// Makes the kernel drop what comes in from `interface` for `claims`, as long as the [`Guard`] lives.
///
/// Install before the first frame is answered. The rules are made in the network namespace of the
/// calling thread. With no claims, or with [`Method::None`], nothing is done and no privilege is
/// needed. [`Method::Iptables`] first removes what dead processes left, as [`sweep()`] does.
///
/// Our own programs must have their packet socket bound to all protocols (ETH_P_ALL): a socket bound
/// to ETH_P_IP is behind the nftables rules and would starve.
///
/// # Errors
/// At most [`CLAIMS_MAX`] claims are taken, each on an address of a host and with ports that are a
/// range. For other errors see [`SuppressStep`]; CAP_NET_ADMIN is needed. Nothing is left behind.
pub fn install(method: Method, interface: &str, claims: &[Claim]) -> Result<Guard, SuppressError> {
    let interface_error =
        |error| SuppressError::new(SuppressStep::Interface, format!("{interface:?}"), error);
    check_interface(interface).map_err(interface_error)?;
    check_claims(claims)?;
    if claims.is_empty() || method == Method::None {
        return Ok(Guard(Rules::None));
    }
    // Newer kernels (seen on 6.18) take rules for a name that no interface has yet: a typing error
    // would be a guard of nothing.
    if_nametoindex(interface).map_err(|errno| interface_error(errno.into()))?;
    Ok(Guard(match method {
        Method::Nft => Rules::Nft(nft::Table::install(interface, claims)?),
        Method::Iptables => Rules::Iptables(iptables::Rules::install(interface, claims)?),
        Method::None => Rules::None,
    }))
}

/// Rules that keep the kernel silent; dropping it removes them.
///
/// nftables: the rules live as long as a netlink socket inside. It is closed on `exec`, but a child of
/// `fork` shares it, and then both have to end. When the interface is removed, so is the hook: make a
/// new guard for a new interface of the same name (Linux 6.18 was seen to hook into it again, but do
/// not rely on that). iptables: drop the guard in the network namespace in which it was made.
#[derive(Debug)]
pub struct Guard(Rules);

#[derive(Debug)]
enum Rules {
    None,
    Nft(nft::Table),
    Iptables(iptables::Rules),
}

impl Guard {
    /// Packets that were dropped for each claim, in the order of the claims given to [`install`], each
    /// claim beginning at 0. Empty for a guard that does nothing.
    ///
    /// A frame counts for the first claim that matches it. This asks the kernel, or runs a program:
    /// it is for a report, not for the loop.
    ///
    /// # Errors
    /// The kernel could not be asked, or somebody else has removed the rules.
    pub fn counters(&mut self) -> io::Result<Vec<u64>> {
        match &mut self.0 {
            Rules::None => Ok(Vec::new()),
            Rules::Nft(table) => table.dropped(),
            Rules::Iptables(rules) => rules.dropped(),
        }
    }

    /// How this guard works; [`Method::None`] as well if there was nothing to guard.
    pub fn method(&self) -> Method {
        match &self.0 {
            Rules::None => Method::None,
            Rules::Nft(_) => Method::Nft,
            Rules::Iptables(_) => Method::Iptables,
        }
    }
}

/// Where an administrator finds the rules.
impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Rules::None => f.write_str("no rules"),
            Rules::Nft(table) => write!(f, "nftables table netdev {}", table.name()),
            Rules::Iptables(rules) => {
                write!(f, "iptables table raw, chain PREROUTING, comment {}", rules.comment())
            }
        }
    }
}

/// Claims that one guard takes: rules are walked for each frame, and a range of ports is one claim.
pub const CLAIMS_MAX: usize = 64;

fn check_claims(claims: &[Claim]) -> Result<(), SuppressError> {
    let refuse = |subject: String, why: String| {
        let source = io::Error::new(io::ErrorKind::InvalidInput, why);
        Err(SuppressError::new(SuppressStep::Claim, subject, source))
    };
    if claims.len() > CLAIMS_MAX {
        let why = format!("at most {CLAIMS_MAX} are possible: join ports to ranges");
        return refuse(format!("{} claims", claims.len()), why);
    }
    for claim in claims {
        let address = claim.address;
        if address.is_unspecified() || address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return refuse(claim.to_string(), "it is not the address of a host".to_owned());
        }
        if matches!(&claim.scope, Scope::Ports { ports, .. } if ports.is_empty()) {
            return refuse(
                claim.to_string(),
                "a range of ports is FIRST-LAST, FIRST not above LAST".to_owned(),
            );
        }
    }
    Ok(())
}

/// Refuses what cannot be the name of an interface, as the kernel does (`dev_valid_name` in
/// net/core/dev.c): it becomes part of paths and commands.
fn check_interface(name: &str) -> io::Result<()> {
    let valid = !name.is_empty()
        && name.len() < libc::IFNAMSIZ
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c == '\0' || c.is_ascii_whitespace());
    if valid {
        return Ok(());
    }
    let why = "an interface name has 1 to 15 bytes, without `/`, `:` and white space";
    Err(io::Error::new(io::ErrorKind::InvalidInput, why))
}

/// A name that no other guard of this network namespace has: process, count, and chance, since
/// processes of different PID namespaces may share a network namespace.
fn unique_id() -> String {
    static GUARDS: AtomicU64 = AtomicU64::new(0);
    let count = GUARDS.fetch_add(1, Ordering::Relaxed);
    // The keys of a `RandomState` come from the kernel's random numbers.
    let chance = RandomState::new().hash_one(count);
    format!("{}_{count}_{chance:016x}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::Protocol;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn methods() {
        for method in [Method::Nft, Method::Iptables, Method::None] {
            assert_eq!(method.to_string().parse(), Ok(method));
        }
        assert_eq!(
            "pf".parse::<Method>().unwrap_err().to_string(),
            "\"pf\" is no method of suppression: use nft, iptables or none"
        );
    }

    #[test]
    fn what_is_refused() {
        let says = |interface: &str, claims: &[Claim]| match install(Method::None, interface, claims) {
            Ok(guard) => guard.to_string(),
            Err(error) => error.to_string(),
        };
        let ports = |address, ports| Claim::ports(address, Protocol::Tcp, ports);
        assert_eq!(says("eth0", &[ports(ADDRESS, 80..=80)]), "no rules");
        #[allow(clippy::reversed_empty_ranges, reason = "it is what is refused")]
        let reversed = ports(ADDRESS, 90..=80);
        assert_eq!(
            says("eth0", &[reversed]),
            "cannot guard 10.0.0.2 tcp 90-80: a range of ports is FIRST-LAST, FIRST not above LAST"
        );
        for address in ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255"] {
            let claim = Claim::address(address.parse().unwrap());
            assert_eq!(
                says("eth0", &[claim]),
                format!("cannot guard {address}: it is not the address of a host")
            );
        }
        let many = vec![ports(ADDRESS, 80..=80); CLAIMS_MAX + 1];
        assert_eq!(
            says("eth0", &many),
            "cannot guard 65 claims: at most 64 are possible: join ports to ranges"
        );
        for name in ["", "..", "a/b", "a b", "eth0:1", "sixteen-bytes-xx"] {
            assert_eq!(
                says(name, &[]),
                format!(
                    "cannot guard interface {name:?}: an interface name has 1 to 15 bytes, without `/`, `:` \
                     and white space"
                )
            );
        }
    }

    #[test]
    fn ids_differ() {
        assert_ne!(unique_id(), unique_id());
        assert!(sweep::is_id(&unique_id()));
    }
}
