//! From a name to an address: files of this host, and servers.

use std::net::IpAddr;

use wirestack::dns::{Answer, DnsError, Kind};
use wirestack::ip::Address;
use wirestack::shard::Shard;

use super::args::PingArgs;
use crate::error::AppError;

/// What is asked for.
pub(super) fn kind(args: &PingArgs) -> Kind {
    match (args.ipv4, args.ipv6) {
        (true, _) => Kind::A,
        (_, true) => Kind::Aaaa,
        _ => Kind::Addresses,
    }
}

/// The destination, if it is an address as it stands. The interface behind `%` is the one that there is.
pub(super) fn literal(args: &PingArgs) -> Result<Option<IpAddr>, AppError> {
    let text = args.destination.split('%').next().unwrap_or_default();
    let Ok(address) = text.parse::<IpAddr>() else { return Ok(None) };
    if (args.ipv4 && address.is_ipv6()) || (args.ipv6 && address.is_ipv4()) {
        let flag = if args.ipv4 { "-4" } else { "-6" };
        return Err(AppError::flag(flag, &args.destination, "it is an address of the other IP version"));
    }
    Ok(Some(address))
}

/// The address to be pinged: the first one of an IP version that we have an address of.
pub(super) fn choose(args: &PingArgs, shard: &Shard, answer: &Answer) -> Result<IpAddr, AppError> {
    let has_version = |version_of: &IpAddr| {
        let speaks = |address: &Address| {
            let is_scoped = matches!(address.ip(), IpAddr::V6(v6) if v6.is_unicast_link_local());
            address.is_usable() && !is_scoped && address.ip().is_ipv4() == version_of.is_ipv4()
        };
        shard.addresses().any(speaks)
    };
    let first = answer.addresses.iter().find(|address| has_version(address));
    first.or(answer.addresses.first()).copied().ok_or_else(|| failed(args, DnsError::NoData))
}

/// A name that led nowhere.
pub(super) fn failed(args: &PingArgs, error: impl std::fmt::Display) -> AppError {
    AppError::usage(format_args!("{}: {error}", args.destination))
}
