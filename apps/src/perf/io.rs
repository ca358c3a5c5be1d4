//! Reading what nobody wants and writing what says nothing, without a buffer for each connection.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A buffer that all connections read into, one after the other: nothing stays in it. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Sink {
    buffer: Rc<RefCell<Box<[u8]>>>,
}

impl Sink {
    /// A buffer of [`CHUNK_BYTES`].
    pub(super) fn new() -> Self {
        Self { buffer: Rc::new(RefCell::new(vec![0; CHUNK_BYTES].into_boxed_slice())) }
    }

    /// Reads once, `len_max` bytes at most, and shows them to `see`. 0: the peer has finished.
    pub(super) async fn read<R: AsyncRead + Unpin>(
        &self,
        stream: &mut R,
        len_max: usize,
        mut see: impl FnMut(&[u8]),
    ) -> io::Result<usize> {
        poll_fn(|context| {
            let mut buffer = self.buffer.borrow_mut();
            let end = len_max.min(buffer.len());
            let mut room = ReadBuf::new(&mut buffer[..end]);
            std::task::ready!(Pin::new(&mut *stream).poll_read(context, &mut room))?;
            see(room.filled());
            Poll::Ready(Ok(room.filled().len()))
        })
        .await
    }

    /// Reads exactly so much. False: the peer had finished before the first byte.
    ///
    /// # Errors
    /// The peer finished in between (`UnexpectedEof`), or the connection was lost.
    pub(super) async fn read_exact<R: AsyncRead + Unpin>(
        &self,
        stream: &mut R,
        len: usize,
    ) -> io::Result<bool> {
        let mut left = len;
        while left > 0 {
            match self.read(stream, left, |_| {}).await? {
                0 if left == len => return Ok(false),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => left -= count,
            }
        }
        Ok(true)
    }
}

/// What is written: the same bytes always. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Source {
    bytes: Rc<[u8]>,
}

impl Source {
    /// A pattern of `len` bytes; not zeros, which some path may compress.
    pub(super) fn new(len: usize) -> Self {
        // A byte of a multiplicative sequence: no period below 256, the same in every run.
        let byte = |index: usize| (index as u32).wrapping_mul(0x9e37_79b1).to_be_bytes()[0];
        Self { bytes: (0..len).map(byte).collect() }
    }

    /// The pattern.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Writes so many bytes.
    pub(super) async fn write_all<W: AsyncWrite + Unpin>(
        &self,
        stream: &mut W,
        len: usize,
    ) -> io::Result<()> {
        let mut left = len;
        while left > 0 {
            let chunk = &self.bytes[..left.min(self.bytes.len())];
            left -= write_some(stream, chunk).await?;
        }
        Ok(())
    }
}

/// A stream that one task moves bytes on while another asks it how it does. Clones are the same stream.
#[derive(Debug)]
pub(super) struct Shared<T>(Rc<RefCell<T>>);

impl<T> Shared<T> {
    /// Shares it.
    pub(super) fn new(stream: T) -> Self {
        Self(Rc::new(RefCell::new(stream)))
    }

    /// Looks at it.
    pub(super) fn with<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.0.borrow())
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Shared<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_read(context, room)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Shared<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(context)
    }
}

/// Writes once; 0 is an error, as for `write_all`.
pub(super) async fn write_some<W: AsyncWrite + Unpin>(stream: &mut W, bytes: &[u8]) -> io::Result<usize> {
    match poll_fn(|context| Pin::new(&mut *stream).poll_write(context, bytes)).await? {
        0 if !bytes.is_empty() => Err(io::ErrorKind::WriteZero.into()),
        count => Ok(count),
    }
}

/// Lets others have their turn now and then: what can always go on would keep the thread, and the other half of its
/// own connection from it.
#[derive(Debug, Default)]
pub(super) struct Turns {
    taken: u8,
}

impl Turns {
    /// Something was done.
    pub(super) async fn take(&mut self) {
        self.taken += 1;
        if self.taken < TURNS_MAX {
            return;
        }
        self.taken = 0;
        let mut is_first = true;
        poll_fn(|context| {
            if std::mem::replace(&mut is_first, false) {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }
}

/// The last bytes of what went by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tail<const N: usize> {
    bytes: [u8; N],
    seen: u64,
}

impl<const N: usize> Tail<N> {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self { bytes: [0; N], seen: 0 }
    }

    /// More went by.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.seen += bytes.len() as u64;
        let new = &bytes[bytes.len().saturating_sub(N)..];
        self.bytes.copy_within(new.len().., 0);
        self.bytes[N - new.len()..].copy_from_slice(new);
    }

    /// The last `N`, if there were so many.
    pub(super) fn bytes(&self) -> Option<[u8; N]> {
        (self.seen >= N as u64).then_some(self.bytes)
    }
}

/// Reads, writes or datagrams in a turn.
const TURNS_MAX: u8 = 16;
/// Bytes moved at once.
pub(super) const CHUNK_BYTES: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_last_bytes_however_they_come() {
        for chunk in 1..9 {
            let all: Vec<u8> = (0..23).collect();
            let mut tail = Tail::<4>::new();
            for piece in all.chunks(chunk) {
                tail.push(piece);
            }
            assert_eq!(tail.bytes(), Some([19, 20, 21, 22]), "in pieces of {chunk}");
        }
        let mut short = Tail::<4>::new();
        short.push(&[1, 2, 3]);
        assert_eq!(short.bytes(), None);
    }
}
