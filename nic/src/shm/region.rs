//! A mapping of a packet socket's rings, or plain memory that stands in for it in tests.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

/// Memory shared with the kernel. It gives out no slice: a [`SlotRing`](super::SlotRing) does, for a
/// slot that is ours at the moment.
#[derive(Debug)]
pub(crate) struct Region {
    start: NonNull<u8>,
    len: usize,
    backing: Backing,
}

#[derive(Debug, Clone, Copy)]
enum Backing {
    /// Made by `mmap`; ends by `munmap`.
    Mapping,
    /// Made by the allocator, page-aligned and zeroed: the kernel of a test is another thread, that of a
    /// fuzzer is its input.
    Heap,
}

// SAFETY: a Region owns its memory and has no access to it of its own. All access goes through
// SlotRing, whose methods need a borrow of it, and whose areas of the region do not overlap
// (SlotRing::new checks the bounds, AfPacket::open hands out [0, rx) and [rx, rx + tx)).
unsafe impl Send for Region {}

// SAFETY: as above: a shared Region offers only `start` and `len`, which never change.
unsafe impl Sync for Region {}

impl Region {
    /// Maps the rings of a packet socket: `len` must be the sum of what PACKET_RX_RING and
    /// PACKET_TX_RING were given; the kernel maps the RX ring first.
    ///
    /// # Errors
    /// What `mmap(2)` says; EINVAL if `len` is not that sum.
    pub(crate) fn map(socket: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // MAP_POPULATE: the pages exist already, so this only fills the page table, and the first
        // turn through the ring takes no faults.
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: a null hint lets the kernel choose free addresses, so no existing mapping is
        // touched; the descriptor is open because it is borrowed.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, socket.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len, backing: Backing::Mapping })
    }

    /// Zeroed memory of the process, for tests of the rings without a kernel.
    ///
    /// # Panics
    /// If `len` is 0, or there is no memory.
    pub(crate) fn heap(len: usize) -> Self {
        let layout = std::alloc::Layout::from_size_align(len, 4096).expect("a test's length");
        assert_ne!(len, 0);
        // SAFETY: the layout has a size that is not zero, asserted above.
        let start = unsafe { std::alloc::alloc_zeroed(layout) };
        let start = NonNull::new(start).expect("memory for a test");
        Self { start, len, backing: Backing::Heap }
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        match self.backing {
            Backing::Mapping => {
                // SAFETY: `start` and `len` are those of the mapping made in `map`; nothing refers to
                // it any more, because every SlotRing holds an Arc of this Region.
                let result = unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
                debug_assert_eq!(result, 0, "munmap of our own mapping");
            }
            Backing::Heap => {
                let layout = std::alloc::Layout::from_size_align(self.len, 4096).expect("as in `heap`");
                // SAFETY: allocated in `heap` with this layout; unreferenced as above.
                unsafe { std::alloc::dealloc(self.start.as_ptr(), layout) };
            }
        }
    }
}
