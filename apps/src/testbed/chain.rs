//! Two kernels and a place between them: a bump in the wire under test.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    IPV4_PREFIX_LEN, IPV6_PREFIX_LEN, Namespace, TestbedError, VethEnd, VethOptions, VethPair, has_ipv6,
    sysctl,
};

/// Address of the kernel at the left end.
pub const LEFT_IPV4: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
/// Address of the kernel at the right end.
pub const RIGHT_IPV4: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);
/// Address of the kernel at the left end.
pub const LEFT_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 1);
/// Address of the kernel at the right end.
pub const RIGHT_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 2);

/// Two wires, end to end: the kernels at their outer ends have addresses of one network, and reach each
/// other if something in the middle joins the inner ends. The kernel in the middle has no address and no
/// IPv6, and does not forward.
///
/// ```text
///   left 10.78.0.1, fd78::1 ── veth ── [ middle ] ── veth ── right 10.78.0.2, fd78::2
/// ```
#[derive(Debug)]
pub struct Chain {
    left: VethPair,
    right: VethPair,
}

impl Chain {
    /// A chain whose wires have these MTUs, up at all ends.
    ///
    /// # Errors
    /// Any of [`TestbedError`], most likely for want of privilege.
    pub fn with_mtus([left_mtu, right_mtu]: [u32; 2]) -> Result<Self, TestbedError> {
        let (left, middle, right) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
        // Before there is an interface: later ones take `default` over.
        middle.try_run(|| {
            sysctl::set_ipv6("conf/all/disable_ipv6", "1")?;
            sysctl::set_ipv6("conf/default/disable_ipv6", "1")
        })??;
        let options = |mtu| VethOptions { mtu, ..VethOptions::default() };
        let chain = Self {
            left: VethPair::between(&left, &middle, &options(left_mtu))?,
            right: VethPair::between(&middle, &right, &options(right_mtu))?,
        };
        chain.left.up()?;
        chain.right.up()?;
        chain.left().add_address(LEFT_IPV4.into(), IPV4_PREFIX_LEN)?;
        chain.right().add_address(RIGHT_IPV4.into(), IPV4_PREFIX_LEN)?;
        if has_ipv6() {
            chain.left().add_address(LEFT_IPV6.into(), IPV6_PREFIX_LEN)?;
            chain.right().add_address(RIGHT_IPV6.into(), IPV6_PREFIX_LEN)?;
        }
        Ok(chain)
    }

    /// The end of the left kernel.
    pub fn left(&self) -> &VethEnd {
        self.left.a()
    }

    /// The two ends in the middle, the left wire's first.
    pub fn middle(&self) -> [&VethEnd; 2] {
        [self.left.b(), self.right.a()]
    }

    /// The end of the right kernel.
    pub fn right(&self) -> &VethEnd {
        self.right.b()
    }

    /// Switches all offloads of all ends on or off.
    ///
    /// # Errors
    /// As for [`VethEnd::set_offloads`].
    pub fn set_offloads(&self, on: bool) -> Result<(), TestbedError> {
        self.left.set_offloads(on)?;
        self.right.set_offloads(on)
    }

    /// Runs `f` on a thread of the left kernel, and waits for it.
    ///
    /// # Panics
    /// As for [`Namespace::run`].
    pub fn at_left<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.left().namespace().run(f)
    }

    /// Runs `f` on a thread in the middle, and waits for it.
    ///
    /// # Panics
    /// As for [`Namespace::run`].
    pub fn at_middle<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.left.b().namespace().run(f)
    }

    /// Runs `f` on a thread of the right kernel, and waits for it.
    ///
    /// # Panics
    /// As for [`Namespace::run`].
    pub fn at_right<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.right().namespace().run(f)
    }
}
