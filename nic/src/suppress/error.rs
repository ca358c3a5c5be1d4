//! Why the kernel could not be kept silent.

use std::fmt;
use std::io;

/// The step of installing a guard at which [`SuppressError`] happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SuppressStep {
    /// Checking a claim: a host's address, ports that are a range, not too many claims.
    Claim,
    /// Checking the name of the interface, and that it exists.
    Interface,
    /// nft: opening the netlink socket that owns the table.
    Socket,
    /// nft: the batch as a whole.
    Batch,
    /// nft: the table with an owner.
    Table,
    /// nft: the chain in the ingress hook.
    Chain,
    /// nft: the rule of a claim.
    Rule,
    /// iptables: the abstract socket that shows others that this guard is alive.
    Marker,
    /// iptables: listing rules, to find those of dead processes.
    List,
    /// iptables: inserting the rule of a claim.
    Insert,
    /// iptables: deleting a rule.
    Delete,
}

impl fmt::Display for SuppressStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Claim => "guard",
            Self::Interface => "guard interface",
            Self::Socket => "open a netfilter socket for",
            Self::Batch => "send nftables rules for",
            Self::Table => "create the nftables table",
            Self::Chain => "hook into the ingress of",
            Self::Rule => "add the nftables rule for",
            Self::Marker => "bind the abstract socket",
            Self::List => "list rules with",
            Self::Insert => "insert the rule of",
            Self::Delete => "delete the rule",
        })
    }
}

/// Why a guard could not be installed or swept: where, what, what the kernel said, and what helps.
#[derive(Debug)]
#[non_exhaustive]
pub struct SuppressError {
    /// The step that failed. What earlier steps made was removed again.
    pub step: SuppressStep,
    /// What the step was about: an interface, a claim, a table, a program or a rule.
    pub subject: String,
    /// What the kernel or the program said.
    pub source: io::Error,
}

impl SuppressError {
    pub(super) fn new(step: SuppressStep, subject: impl fmt::Display, source: io::Error) -> Self {
        Self { step, subject: subject.to_string(), source }
    }

    /// What a person can do about it, for the causes that are known.
    pub fn hint(&self) -> Option<&'static str> {
        use SuppressStep::{Chain, Delete, Insert, List, Rule, Socket, Table};
        let errno = self.source.raw_os_error();
        if matches!(self.step, List | Insert | Delete) {
            return self.iptables_hint();
        }
        match (self.step, errno?) {
            (_, libc::EPERM | libc::EACCES) => Some(NEEDS_NET_ADMIN),
            (Socket, libc::EPROTONOSUPPORT) => Some(NEEDS_NF_TABLES),
            (SuppressStep::Batch, libc::EOPNOTSUPP | libc::EINVAL) => Some(NEEDS_NF_TABLES),
            (Table, libc::EAFNOSUPPORT) => Some(
                "the kernel has no nftables family `netdev` (CONFIG_NF_TABLES_NETDEV): use the method `iptables`",
            ),
            (Table, libc::EOPNOTSUPP | libc::EINVAL) => {
                Some("a table with an owner needs Linux 5.12 or newer: use the method `iptables`")
            }
            (SuppressStep::Interface | Chain, libc::ENOENT | libc::ENODEV) => {
                Some("`ip link` lists the interfaces of this network namespace")
            }
            (Chain, libc::EOPNOTSUPP) => {
                Some("the kernel has no ingress hook (CONFIG_NETFILTER_INGRESS): use the method `iptables`")
            }
            (Rule, libc::EOPNOTSUPP | libc::ENOENT) => {
                Some("the kernel's nftables lacks an expression: use the method `iptables`")
            }
            _ => None,
        }
    }

    /// The programs say what failed in words only.
    fn iptables_hint(&self) -> Option<&'static str> {
        if self.source.kind() == io::ErrorKind::NotFound {
            return Some("install iptables, with /usr/sbin in PATH, or use the method `nft`");
        }
        let said = self.source.to_string();
        let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
        if says(&["ermission denied", "you must be root", "not permitted"]) {
            Some("iptables needs CAP_NET_ADMIN in this network namespace: run as root")
        } else if says(&["able does not exist", "raw': ", "can't initialize"]) {
            Some("the kernel lacks the raw table (CONFIG_IP_NF_RAW, CONFIG_IP6_NF_RAW): use the method `nft`")
        } else if says(&["comment", "No chain/target/match"]) {
            Some(
                "the kernel lacks the match `comment` (CONFIG_NETFILTER_XT_MATCH_COMMENT): use the method `nft`",
            )
        } else if says(&["xtables lock"]) {
            Some("another program is changing rules: try again")
        } else {
            None
        }
    }
}

impl fmt::Display for SuppressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.step, self.subject, self.source)?;
        match self.hint() {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for SuppressError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

const NEEDS_NET_ADMIN: &str = "rules need CAP_NET_ADMIN in this network namespace: run as root, or \
    `setcap cap_net_raw,cap_net_admin+ep` the program";
const NEEDS_NF_TABLES: &str = "the kernel has no nf_tables (CONFIG_NF_TABLES): use the method `iptables`";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_each() {
        let errno = io::Error::from_raw_os_error;
        let error = SuppressError::new(SuppressStep::Batch, "eth0", errno(libc::EPERM)).to_string();
        assert_eq!(
            error,
            "cannot send nftables rules for eth0: Operation not permitted (os error 1) (rules need CAP_NET_ADMIN in \
             this network namespace: run as root, or `setcap cap_net_raw,cap_net_admin+ep` the program)"
        );
        let error = SuppressError::new(SuppressStep::Table, "t", errno(libc::EOPNOTSUPP));
        assert!(error.hint().unwrap().contains("5.12"));
        let error = SuppressError::new(SuppressStep::List, "iptables", errno(libc::ENOENT));
        assert!(error.hint().unwrap().contains("install iptables"));
        for (said, hint) in [
            ("Could not fetch rule set generation id: Permission denied (you must be root)", "run as root"),
            (
                "can't initialize iptables table `raw': Table does not exist (do you need to insmod?)",
                "raw table",
            ),
            ("Couldn't load match `comment':No such file or directory", "match `comment`"),
            ("iptables: No chain/target/match by that name.", "match `comment`"),
            ("Another app is currently holding the xtables lock", "try again"),
        ] {
            let error = SuppressError::new(SuppressStep::Insert, "10.0.0.2", io::Error::other(said));
            assert!(error.hint().is_some_and(|found| found.contains(hint)), "{said}: {error}");
        }
    }
}
