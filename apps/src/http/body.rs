//! The body of a response: nothing, bytes in memory, a pattern, or a part of a file that is read as it is sent.

use std::fs::File;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::response::pattern_byte;

/// What follows the head of a response of a site.
#[derive(Debug)]
pub struct SiteBody(Kind);

#[derive(Debug)]
enum Kind {
    Bytes(Bytes),
    Pattern { position: u64, end: u64 },
    File(Reading),
}

impl SiteBody {
    /// Nothing.
    pub(super) fn empty() -> Self {
        Self(Kind::Bytes(Bytes::new()))
    }

    /// Bytes that are ready.
    pub(super) fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self(Kind::Bytes(bytes.into()))
    }

    /// So many bytes of [`pattern_byte`].
    pub(super) fn pattern(len: u64) -> Self {
        Self(Kind::Pattern { position: 0, end: len })
    }

    /// So many bytes from where the file stands. The first of them are read at once.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn file(file: File, len: u64) -> io::Result<Self> {
        let first = usize::try_from(len).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        let chunk = read_chunk(&file, first)?;
        let unread = len - first as u64;
        Ok(Self(Kind::File(Reading { file: Arc::new(file), left: len, unread, next: Next::Ready(chunk) })))
    }

    /// Bytes that are still to come.
    pub(super) fn left(&self) -> u64 {
        match &self.0 {
            Kind::Bytes(bytes) => bytes.len() as u64,
            Kind::Pattern { position, end } => end - position,
            Kind::File(reading) => reading.left,
        }
    }
}

impl Body for SiteBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let chunk = match &mut self.0 {
            Kind::Bytes(bytes) => std::mem::take(bytes),
            Kind::Pattern { position, end } => {
                let chunk = pattern_chunk(*position, *end);
                *position += chunk.len() as u64;
                chunk
            }
            Kind::File(reading) => ready!(reading.poll_chunk(cx))?,
        };
        Poll::Ready((!chunk.is_empty()).then(|| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left())
    }
}

/// A part of a file: one chunk is sent while the next one is read.
#[derive(Debug)]
struct Reading {
    file: Arc<File>,
    /// Bytes that were not given yet.
    left: u64,
    /// Of these, bytes for which no read has begun.
    unread: u64,
    next: Next,
}

#[derive(Debug)]
enum Next {
    Nothing,
    Ready(Bytes),
    Read(JoinHandle<io::Result<Bytes>>),
}

impl Reading {
    /// The next chunk; an empty one is the end.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if matches!(self.next, Next::Nothing) {
            self.read_on()?;
        }
        let chunk = match std::mem::replace(&mut self.next, Next::Nothing) {
            Next::Nothing => return Poll::Ready(Ok(Bytes::new())),
            Next::Ready(chunk) => chunk,
            Next::Read(mut read) => match Pin::new(&mut read).poll(cx) {
                Poll::Ready(chunk) => chunk.map_err(io::Error::other)??,
                Poll::Pending => {
                    self.next = Next::Read(read);
                    return Poll::Pending;
                }
            },
        };
        self.left = self.left.saturating_sub(chunk.len() as u64);
        // Without a pool, reading ahead would only hold memory.
        if Handle::try_current().is_ok() {
            self.read_on()?;
        }
        Poll::Ready(Ok(chunk))
    }

    fn read_on(&mut self) -> io::Result<()> {
        let len = usize::try_from(self.unread).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        if len == 0 {
            return Ok(());
        }
        self.unread -= len as u64;
        let file = Arc::clone(&self.file);
        self.next = match Handle::try_current() {
            Ok(pool) => Next::Read(pool.spawn_blocking(move || read_chunk(&file, len))),
            Err(_) => Next::Ready(read_chunk(&file, len)?),
        };
        Ok(())
    }
}

/// Exactly so many bytes: the head has promised them.
fn read_chunk(file: &File, len: usize) -> io::Result<Bytes> {
    let mut bytes = Vec::with_capacity(len);
    file.take(len as u64).read_to_end(&mut bytes)?;
    if bytes.len() == len { Ok(bytes.into()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn pattern_chunk(position: u64, end: u64) -> Bytes {
    let len = usize::try_from(end - position).unwrap_or(usize::MAX).min(CHUNK_BYTES);
    let start = usize::from(pattern_byte(position));
    PATTERN.slice(start..start + len)
}

/// The pattern from any of its positions on, one chunk long.
static PATTERN: LazyLock<Bytes> =
    LazyLock::new(|| (0..CHUNK_BYTES as u64 + 256).map(pattern_byte).collect::<Vec<_>>().into());

/// What is read from a file at a time: large enough that going to another thread for it does not count.
const CHUNK_BYTES: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use std::io::Seek;

    use http_body_util::BodyExt;

    use super::*;

    fn collect(body: SiteBody) -> io::Result<Vec<u8>> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async { Ok(body.collect().await?.to_bytes().to_vec()) })
    }

    #[test]
    fn the_pattern_is_the_same_at_every_border_of_chunks() {
        let len = 3 * CHUNK_BYTES as u64 + 7;
        let expected: Vec<u8> = (0..len).map(pattern_byte).collect();
        assert!(collect(SiteBody::pattern(len)).expect("read") == expected);
        assert_eq!(SiteBody::pattern(1 << 40).left(), 1 << 40);
    }

    #[test]
    fn a_part_of_a_file_arrives_whole_with_and_without_a_pool() {
        let len = 2 * CHUNK_BYTES + 5;
        let bytes: Vec<u8> = (0..len as u64).map(pattern_byte).collect();
        let mut file = tempfile::tempfile().expect("a file");
        io::Write::write_all(&mut file, &bytes).expect("written");
        let open = |start: u64, len: u64| {
            let mut file = file.try_clone().expect("cloned");
            file.seek(io::SeekFrom::Start(start)).expect("sought");
            SiteBody::file(file, len)
        };
        for (start, len) in [(0, len), (3, CHUNK_BYTES), (1, 2 * CHUNK_BYTES + 1), (7, 0), (len - 1, 1)] {
            let body = |context: &str| open(start as u64, len as u64).expect(context);
            assert!(collect(body("pool")).expect("read") == bytes[start..start + len], "{start} {len}");
            let read = futures_util::FutureExt::now_or_never(body("none").collect()).expect("no waiting");
            assert!(read.expect("read").to_bytes() == bytes[start..start + len], "{start} {len}");
        }
        // The file is shorter than was promised: an error, not a short body.
        assert!(open(0, len as u64 * 2).is_ok_and(|body| collect(body).is_err()));
    }
}
