//! A response: its head, and where its body comes from.

use std::fs::File;
use std::io::{self, Read};

/// An answer to one request.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) body: Body,
}

/// Bytes to be sent.
#[derive(Debug)]
pub(crate) enum Body {
    /// Ready in memory.
    Bytes(Vec<u8>),
    /// So many bytes from where the file stands.
    File(File, u64),
    /// So many bytes of [`pattern_byte`].
    Pattern(u64),
}

impl Response {
    /// A page of plain text.
    pub(crate) fn text(status: u16, text: impl Into<String>) -> Self {
        let body = Body::Bytes(text.into().into_bytes());
        Self { status, content_type: "text/plain; charset=utf-8".to_owned(), body }
    }

    /// A page that says no more than its status.
    pub(crate) fn bare(status: u16) -> Self {
        Self::text(status, format!("{status} {}\n", reason(status)))
    }

    /// Status line and header fields, with the empty line behind them.
    pub(crate) fn head(&self, keep_alive: bool) -> Vec<u8> {
        let Self { status, content_type, body } = self;
        let len = body.len();
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let allow = if *status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
        format!(
            "HTTP/1.1 {status} {}\r\nServer: wirestack\r\nContent-Type: {content_type}\r\n\
             Content-Length: {len}\r\n{allow}Connection: {connection}\r\n\r\n",
            reason(*status)
        )
        .into_bytes()
    }
}

impl Body {
    /// Bytes in all.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, len) | Self::Pattern(len) => *len,
        }
    }

    /// Writes the bytes from `offset` on into the room; returns how many.
    ///
    /// # Errors
    /// The file cannot be read, or is shorter than it was when the head was sent.
    pub(crate) fn read_at(&mut self, offset: u64, room: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len().saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = left.min(room.len());
        let room = &mut room[..len];
        match self {
            Self::Bytes(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let source = bytes.get(start..).and_then(|rest| rest.get(..len)).unwrap_or_default();
                room[..source.len()].copy_from_slice(source);
                Ok(source.len())
            }
            Self::File(file, _) => match file.read(room)? {
                0 if len > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
                read => Ok(read),
            },
            Self::Pattern(_) => {
                for (position, byte) in (offset..).zip(room.iter_mut()) {
                    *byte = pattern_byte(position);
                }
                Ok(len)
            }
        }
    }
}

/// Byte number `position` of the pattern that `/bytes/N` serves: a shift, a loss or a swap of frames
/// changes it, since 251 is prime.
pub(crate) fn pattern_byte(position: u64) -> u8 {
    (position % 251) as u8
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        301 => "Moved Permanently",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        505 => "HTTP Version Not Supported",
        _ => "Internal Server Error",
    }
}
