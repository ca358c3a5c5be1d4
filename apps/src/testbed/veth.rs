//! A wire: a pair of virtual interfaces, each in its own network namespace.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use rtnetlink::LinkUnspec;
use smoltcp::wire::EthernetAddress;
use wirestack_nic::ethtool::{self, Offload, Offloads};

use super::netlink::{self, LinkInfo, NewEnd};
use super::{Namespace, TestbedError, sysctl};

/// What the names of all interfaces start with that were not given one.
pub const NAME_PREFIX: &str = "wst";

/// How long an interface may take to get a carrier, once both ends are up. It is there within
/// milliseconds, except on a machine that has other things to do.
const CARRIER_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a random name is drawn before giving up on finding a free one.
const NAME_TRIES: u32 = 8;

/// How a pair is to be.
#[derive(Debug, Clone)]
pub struct VethOptions {
    /// The longest packet that both ends take, in bytes, without the Ethernet header.
    pub mtu: u32,
    /// Queues of each end, in each direction.
    pub queues: u32,
    /// Names of the two ends, at most 15 bytes; `None`: random ones that start with [`NAME_PREFIX`].
    pub names: Option<[String; 2]>,
    /// Addresses of the two ends; `None`: random ones, of the locally administered kind.
    pub macs: Option<[EthernetAddress; 2]>,
    /// Whether the kernel gives each end an IPv6 link-local address when it comes up. Without one it
    /// is silent at first; with one it tells and asks the neighbours about it.
    pub link_local: bool,
}

impl Default for VethOptions {
    fn default() -> Self {
        Self { mtu: 1500, queues: 1, names: None, macs: None, link_local: false }
    }
}

/// Two interfaces with a wire between them; dropping it removes both.
#[derive(Debug)]
pub struct VethPair {
    ends: [VethEnd; 2],
}

impl VethPair {
    /// Makes a pair with one end in each namespace. Both are down, until [`up`](VethPair::up).
    ///
    /// # Errors
    /// [`TestbedError::Link`]: not permitted, or a given name is taken or cannot be one.
    pub fn between(a: &Namespace, b: &Namespace, options: &VethOptions) -> Result<Self, TestbedError> {
        let names = add(a, b, options)?;
        let [a, b] = [(a, &names[0]), (b, &names[1])].map(|(namespace, name)| find(namespace, name));
        // If one cannot be found, the other one's drop takes the pair away.
        let pair = Self { ends: [a?, b?] };
        for end in &pair.ends {
            end.run(|| end.quieten(options.link_local))??;
        }
        Ok(pair)
    }

    /// Sets both ends up, and waits until frames flow.
    ///
    /// # Errors
    /// [`TestbedError::Link`] and [`TestbedError::NoCarrier`].
    pub fn up(&self) -> Result<(), TestbedError> {
        self.ends.iter().try_for_each(|end| end.set_up())?;
        self.ends.iter().try_for_each(|end| end.wait_until_up(CARRIER_TIMEOUT))
    }

    /// The end in the first namespace.
    pub fn a(&self) -> &VethEnd {
        &self.ends[0]
    }

    /// The end in the second namespace.
    pub fn b(&self) -> &VethEnd {
        &self.ends[1]
    }

    /// The end in the first namespace, to change what it knows of itself.
    pub fn a_mut(&mut self) -> &mut VethEnd {
        &mut self.ends[0]
    }

    /// The end in the second namespace, to change what it knows of itself.
    pub fn b_mut(&mut self) -> &mut VethEnd {
        &mut self.ends[1]
    }

    /// Switches all offloads of both ends on or off, see [`VethEnd::set_offloads`].
    ///
    /// # Errors
    /// As for [`VethEnd::set_offloads`].
    pub fn set_offloads(&self, on: bool) -> Result<(), TestbedError> {
        self.ends.iter().try_for_each(|end| end.set_offloads(on))
    }
}

/// One of the two interfaces of a [`VethPair`].
///
/// All operations act in the namespace of the interface, whichever the calling thread is in.
pub struct VethEnd {
    namespace: Namespace,
    link: LinkInfo,
}

impl VethEnd {
    /// The name of the interface.
    pub fn name(&self) -> &str {
        &self.link.name
    }

    /// The number of the interface in its namespace.
    pub fn index(&self) -> u32 {
        self.link.index
    }

    /// The Ethernet address.
    pub fn mac(&self) -> EthernetAddress {
        self.link.mac
    }

    /// Where the interface is.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Sets the Ethernet address.
    ///
    /// # Errors
    /// [`TestbedError::Link`]: it is a group address, or the interface is gone.
    pub fn set_mac(&mut self, mac: EthernetAddress) -> Result<(), TestbedError> {
        let message = LinkUnspec::new_with_index(self.index()).address(mac.as_bytes().to_vec()).build();
        self.ask("change the MAC of", || netlink::change(message))?;
        self.link.mac = mac;
        Ok(())
    }

    /// Sets the longest packet that this end takes, in bytes, without the Ethernet header.
    ///
    /// # Errors
    /// [`TestbedError::Link`]: less than 68 or more than 65535, or the interface is gone.
    pub fn set_mtu(&self, mtu: u32) -> Result<(), TestbedError> {
        let message = LinkUnspec::new_with_index(self.index()).mtu(mtu).build();
        self.ask("change the MTU of", || netlink::change(message))
    }

    /// The longest packet that this end takes now.
    ///
    /// # Errors
    /// [`TestbedError::Link`]: the interface is gone.
    pub fn mtu(&self) -> Result<u32, TestbedError> {
        Ok(self.ask("look up", || netlink::link(self.name()))?.mtu)
    }

    /// Gives the kernel at this end an address, which can be used at once.
    ///
    /// # Errors
    /// [`TestbedError::Link`]: it has it already, or the kernel has no IPv6 here.
    pub fn add_address(&self, address: IpAddr, prefix_len: u8) -> Result<(), TestbedError> {
        self.ask("add an address to", || netlink::add_address(self.index(), address, prefix_len))
    }

    /// Takes an address from the kernel at this end.
    ///
    /// # Errors
    /// [`TestbedError::Link`]: it does not have it.
    pub fn remove_address(&self, address: IpAddr, prefix_len: u8) -> Result<(), TestbedError> {
        self.ask("remove an address from", || netlink::delete_address(self.index(), address, prefix_len))
    }

    /// Sets the interface up. Frames flow once the other end is up as well.
    ///
    /// # Errors
    /// [`TestbedError::Link`]: the interface is gone.
    pub fn set_up(&self) -> Result<(), TestbedError> {
        let message = LinkUnspec::new_with_index(self.index()).up().build();
        self.ask("set up", || netlink::change(message))
    }

    /// Sets the interface down. The other end loses its carrier.
    ///
    /// # Errors
    /// [`TestbedError::Link`]: the interface is gone.
    pub fn set_down(&self) -> Result<(), TestbedError> {
        let message = LinkUnspec::new_with_index(self.index()).down().build();
        self.ask("set down", || netlink::change(message))
    }

    /// Sleeps until frames flow.
    ///
    /// # Errors
    /// [`TestbedError::NoCarrier`]: they do not after `timeout`. [`TestbedError::Link`]: gone.
    pub fn wait_until_up(&self, timeout: Duration) -> Result<(), TestbedError> {
        if self.ask("wait for the carrier of", || netlink::wait_until_up(self.index(), timeout))? {
            return Ok(());
        }
        Err(TestbedError::NoCarrier { interface: self.link.name.clone(), waited: timeout })
    }

    /// Removes the interface and the other end of the pair. Dropping the pair does it too.
    ///
    /// # Errors
    /// [`TestbedError::Link`]: it is gone already.
    pub fn delete(&self) -> Result<(), TestbedError> {
        self.ask("remove", || netlink::delete(self.index()))
    }

    /// Whether the interface still exists.
    ///
    /// # Errors
    /// [`TestbedError::Link`]: the kernel could not be asked.
    pub fn exists(&self) -> Result<bool, TestbedError> {
        let links = self.ask("look for", netlink::links)?;
        // By name as well: numbers are used again.
        Ok(links.iter().any(|link| link.index == self.index() && link.name == self.name()))
    }

    /// Which offloads the interface has on.
    ///
    /// # Errors
    /// [`TestbedError::Link`]: the interface is gone.
    pub fn offloads(&self) -> Result<Offloads, TestbedError> {
        self.ask("read offloads of", || ethtool::offloads(self.name()))
    }

    /// Switches all offloads on (64 KB frames, checksums left undone) or off (frames as on a wire).
    ///
    /// # Errors
    /// [`TestbedError::Link`]: the interface is gone. [`TestbedError::Offloads`]: it did not obey.
    pub fn set_offloads(&self, on: bool) -> Result<(), TestbedError> {
        self.ask("switch offloads of", || {
            let available = ethtool::offloads(self.name())?;
            let mut offloads = Offload::ALL.into_iter().filter(|&offload| available.is_available(offload));
            offloads.try_for_each(|offload| ethtool::set(self.name(), offload, on))
        })?;
        // The kernel may refuse silently what depends on something else.
        let found = self.offloads()?;
        if if on { found.is_all() } else { found.is_empty() } {
            return Ok(());
        }
        let wanted = if on { "all of them" } else { "none" };
        Err(TestbedError::Offloads { interface: self.link.name.clone(), found: found.to_string(), wanted })
    }

    /// Runs `f` on a thread in the namespace of the interface, and waits for it.
    ///
    /// # Errors
    /// [`TestbedError::Namespace`]: the namespace cannot be entered any more.
    fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> Result<R, TestbedError> {
        self.namespace.try_run(f)
    }

    fn ask<R: Send>(
        &self,
        step: &'static str,
        f: impl FnOnce() -> io::Result<R> + Send,
    ) -> Result<R, TestbedError> {
        self.run(f)?.map_err(|source| link_error(self.name(), step, source))
    }

    /// Keeps the kernel from talking on its own: no router solicitations, nothing taken from routers,
    /// and no waiting for neighbours who might have the same address.
    fn quieten(&self, link_local: bool) -> Result<(), TestbedError> {
        let settings = [
            ("accept_ra", "0"),
            ("router_solicitations", "0"),
            ("accept_dad", "0"),
            ("addr_gen_mode", if link_local { "0" } else { "1" }),
        ];
        settings.iter().try_for_each(|(setting, value)| {
            sysctl::set_ipv6(&format!("conf/{}/{setting}", self.name()), value)
        })
    }
}

impl Drop for VethPair {
    fn drop(&mut self) {
        // Namespaces go away in the background, and their interfaces with them. Asking for it here
        // means that it is done when this returns. It fails if a test has removed the pair itself.
        let [a, _] = &self.ends;
        let _ = a.delete();
    }
}

impl fmt::Debug for VethEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VethEnd({} = {}, {})", self.link.index, self.link.name, self.link.mac)
    }
}

/// Makes the pair, and says by which names.
fn add(a: &Namespace, b: &Namespace, options: &VethOptions) -> Result<[String; 2], TestbedError> {
    let mut tries = NAME_TRIES;
    loop {
        let names = options.names.clone().unwrap_or_else(random_names);
        let [here, there] = [0, 1].map(|end| NewEnd {
            name: &names[end],
            mac: options.macs.map(|macs| macs[end]),
            mtu: options.mtu,
            queues: options.queues,
        });
        let added = a.try_run(|| netlink::add_veth(&here, &there, b.raw_fd()))?;
        tries -= 1;
        match added {
            Ok(()) => return Ok(names),
            Err(error)
                if error.kind() == io::ErrorKind::AlreadyExists && options.names.is_none() && tries > 0 => {}
            Err(source) => return Err(link_error(&names[0], "make the pair with", source)),
        }
    }
}

/// Looks up what the kernel made.
fn find(namespace: &Namespace, name: &str) -> Result<VethEnd, TestbedError> {
    let link =
        namespace.try_run(|| netlink::link(name))?.map_err(|source| link_error(name, "find", source))?;
    Ok(VethEnd { namespace: namespace.clone(), link })
}

/// Two names that nobody else has: 32 random bits, the same for both ends.
fn random_names() -> [String; 2] {
    // A hasher with a key of its own is the random number generator of the standard library.
    let bits = RandomState::new().hash_one(NAME_PREFIX) as u32;
    ["a", "b"].map(|end| format!("{NAME_PREFIX}{bits:08x}{end}"))
}

fn link_error(interface: &str, step: &'static str, source: io::Error) -> TestbedError {
    TestbedError::Link { interface: interface.to_owned(), step, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_names_fit_and_differ() {
        let [a, b] = random_names();
        assert!(a.len() <= 15 && a.starts_with(NAME_PREFIX), "{a}");
        assert_ne!(a, b);
        assert_ne!(a, random_names()[0]);
    }
}
