//! Requests to the kernel about the interfaces of the calling thread's network namespace.
//!
//! Each function opens a netlink socket, asks, and closes it. That is slow (some 100 µs) and leaves
//! nothing behind: no thread, no socket in a namespace that should go away.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage, State};
use rtnetlink::{Error, Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, MulticastGroup};
use smoltcp::wire::EthernetAddress;
use tokio::runtime::{Builder, Runtime};

/// What is to be known of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LinkInfo {
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) mac: EthernetAddress,
    pub(super) mtu: u32,
    /// The number of the interface that this one is a port of.
    pub(super) controller: Option<u32>,
}

/// One end of a pair that is to be made.
#[derive(Debug, Clone)]
pub(super) struct NewEnd<'a> {
    pub(super) name: &'a str,
    pub(super) mac: Option<EthernetAddress>,
    pub(super) mtu: u32,
    pub(super) queues: u32,
}

impl NewEnd<'_> {
    fn describe<T>(&self, builder: LinkMessageBuilder<T>) -> LinkMessageBuilder<T> {
        let builder = builder
            .name(self.name)
            .mtu(self.mtu)
            .append_extra_attribute(LinkAttribute::NumTxQueues(self.queues))
            .append_extra_attribute(LinkAttribute::NumRxQueues(self.queues));
        match self.mac {
            Some(mac) => builder.address(mac.as_bytes().to_vec()),
            None => builder,
        }
    }
}

/// Makes a veth pair: `here` in this namespace, `there` in the one with descriptor `namespace`.
pub(super) fn add_veth(here: &NewEnd<'_>, there: &NewEnd<'_>, namespace: i32) -> io::Result<()> {
    let there = there.describe(LinkMessageBuilder::<LinkUnspec>::new()).setns_by_fd(namespace);
    let message = here
        .describe(LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth))
        .set_info_data(InfoData::Veth(InfoVeth::Peer(there.build())))
        .build();
    request(|handle| async move { handle.link().add(message).execute().await })
}

/// Looks an interface up by its name.
pub(super) fn link(name: &str) -> io::Result<LinkInfo> {
    let name = name.to_owned();
    let message = request(|handle| async move {
        let mut links = handle.link().get().match_name(name).execute().boxed();
        links.try_next().await?.ok_or(Error::RequestFailed)
    })?;
    link_info(&message)
}

/// All interfaces of this namespace.
pub(super) fn links() -> io::Result<Vec<LinkInfo>> {
    let messages =
        request(
            |handle| async move { handle.link().get().execute().try_collect::<Vec<LinkMessage>>().await },
        )?;
    messages.iter().map(link_info).collect()
}

/// Sets an interface up by its name, without waiting for a carrier.
pub(super) fn set_up(name: &str) -> io::Result<()> {
    change(LinkUnspec::new_with_name(name).up().build())
}

/// Sends a change of an interface.
pub(super) fn change(message: LinkMessage) -> io::Result<()> {
    request(|handle| async move { handle.link().set(message).execute().await })
}

/// Removes an interface, and with it the other end if it is one of a pair.
pub(super) fn delete(index: u32) -> io::Result<()> {
    request(|handle| async move { handle.link().del(index).execute().await })
}

/// Gives an interface an address. An IPv6 address can be used at once: nobody is asked first whether
/// it is taken (RFC 4862, 5.4), which would take a second.
pub(super) fn add_address(index: u32, address: IpAddr, prefix_len: u8) -> io::Result<()> {
    request(|handle| async move {
        let mut add = handle.address().add(index, address, prefix_len);
        if address.is_ipv6() {
            add.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        add.execute().await
    })
}

/// Takes an address from an interface.
pub(super) fn delete_address(index: u32, address: IpAddr, prefix_len: u8) -> io::Result<()> {
    request(|handle| async move {
        // The kernel finds an address by what it was added with.
        let message = handle.address().add(index, address, prefix_len).message_mut().clone();
        handle.address().del(message).execute().await
    })
}

/// Sleeps until the kernel sends frames on an interface. Says whether it does, at the deadline.
pub(super) fn wait_until_up(index: u32, timeout: Duration) -> io::Result<bool> {
    runtime()?.block_on(async {
        // Events first, then the question: so no change is missed between the two.
        let (connection, handle, mut events) = rtnetlink::new_multicast_connection(&[MulticastGroup::Link])?;
        tokio::spawn(connection);
        let up = async {
            while !is_up(&handle, index).await? {
                if events.next().await.is_none() {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
            }
            Ok(true)
        };
        tokio::time::timeout(timeout, up).await.unwrap_or(Ok(false))
    })
}

async fn is_up(handle: &Handle, index: u32) -> io::Result<bool> {
    let mut links = handle.link().get().match_index(index).execute().boxed();
    let Some(link) = links.try_next().await.map_err(into_io)? else { return Ok(false) };
    // Not the flags: the carrier comes on some time before the queues are started.
    Ok(link.attributes.contains(&LinkAttribute::OperState(State::Up)))
}

fn link_info(message: &LinkMessage) -> io::Result<LinkInfo> {
    let mut info = LinkInfo {
        name: String::new(),
        index: message.header.index,
        mac: EthernetAddress([0; 6]),
        mtu: 0,
        controller: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => info.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => info.mtu = *mtu,
            LinkAttribute::Controller(index) => info.controller = Some(*index),
            // Interfaces of other kinds have longer and shorter ones.
            LinkAttribute::Address(mac) if mac.len() == 6 => info.mac = EthernetAddress::from_bytes(mac),
            _ => {}
        }
    }
    if info.name.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel tells no name of an interface"));
    }
    Ok(info)
}

/// Runs one request over a connection of its own, opened by the calling thread.
fn request<T, F>(work: impl FnOnce(Handle) -> F) -> io::Result<T>
where
    F: Future<Output = Result<T, Error>>,
{
    runtime()?.block_on(async {
        let (connection, handle, _events) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        work(handle).await.map_err(into_io)
    })
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_io().enable_time().build()
}

/// What the kernel said, as the number that it is; what the crate says of itself, as text.
fn into_io(error: Error) -> io::Error {
    match error {
        Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}
