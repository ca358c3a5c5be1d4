//! The little that `perf client` and `perf server` say to each other.
//!
//! ```text
//! client to server, first on every connection:  "WSPF" version mode flags 0 | request u32 | response u32
//! server to client, last after a stream:        bytes that came u64 | microseconds that took u64
//! server to client, for a report:               memory u64 | CPU microseconds u64 | connections u64 | refused u64
//! ```
//!
//! Numbers are big-endian. What is not exactly so is no client of ours: the connection is closed and counted.

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Bytes until the client's FIN; then a [`Trailer`].
    Stream,
    /// Requests and responses until the client's FIN.
    Requests,
    /// One request and response; then the server closes.
    Once,
    /// A [`Report`]; then the server closes.
    Report,
}

/// The first bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hello {
    /// What it is for.
    pub(super) purpose: Purpose,
    /// For a stream: the server sends, too.
    pub(super) server_sends: bool,
    /// Bytes of a request, 1 at least; for a stream that the server sends, bytes that it writes at once.
    pub(super) request_bytes: u32,
    /// Bytes of a response, 1 at least.
    pub(super) response_bytes: u32,
}

impl Hello {
    /// Bytes of it.
    pub(super) const LEN: usize = 16;

    /// As sent.
    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let mode = match self.purpose {
            Purpose::Stream => 1,
            Purpose::Requests => 2,
            Purpose::Once => 3,
            Purpose::Report => 4,
        };
        let [m0, m1, m2, m3] = MAGIC;
        let [a, b, c, d] = self.request_bytes.to_be_bytes();
        let [e, f, g, h] = self.response_bytes.to_be_bytes();
        [m0, m1, m2, m3, VERSION, mode, u8::from(self.server_sends), 0, a, b, c, d, e, f, g, h]
    }

    /// Reads one. `None`: that is none, or of another version.
    pub(super) fn parse(bytes: [u8; Self::LEN]) -> Option<Self> {
        let [m0, m1, m2, m3, VERSION, mode, flags @ 0..=1, 0, a, b, c, d, e, f, g, h] = bytes else {
            return None;
        };
        let purpose = match mode {
            1 => Purpose::Stream,
            2 => Purpose::Requests,
            3 => Purpose::Once,
            4 => Purpose::Report,
            _ => return None,
        };
        let server_sends = flags == 1;
        let request_bytes = u32::from_be_bytes([a, b, c, d]);
        let response_bytes = u32::from_be_bytes([e, f, g, h]);
        let sizes = 1..=super::args::SIZE_BYTES_MAX;
        let is_sound = [m0, m1, m2, m3] == MAGIC
            && sizes.contains(&request_bytes)
            && sizes.contains(&response_bytes)
            && (!server_sends || purpose == Purpose::Stream);
        is_sound.then_some(Self { purpose, server_sends, request_bytes, response_bytes })
    }
}

/// What the server says after a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Trailer {
    /// Bytes that came.
    pub(super) bytes: u64,
    /// From the hello to the client's FIN.
    pub(super) micros: u64,
}

impl Trailer {
    /// Bytes of it.
    pub(super) const LEN: usize = 16;

    /// As sent.
    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        (u128::from(self.bytes) << 64 | u128::from(self.micros)).to_be_bytes()
    }

    /// Reads one.
    pub(super) fn parse(bytes: [u8; Self::LEN]) -> Self {
        let both = u128::from_be_bytes(bytes);
        Self { bytes: (both >> 64) as u64, micros: both as u64 }
    }
}

/// How the server does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Resident bytes of its process.
    pub(super) memory_bytes: u64,
    /// CPU time of its process, in microseconds.
    pub(super) cpu_micros: u64,
    /// Connections that it has, that of the report included.
    pub(super) connections: u64,
    /// Connections that it has closed because of what came on them.
    pub(super) refused: u64,
}

impl Report {
    /// Bytes of it.
    pub(super) const LEN: usize = 32;

    /// As sent.
    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let words = [self.memory_bytes, self.cpu_micros, self.connections, self.refused];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    /// Reads one.
    pub(super) fn parse(bytes: [u8; Self::LEN]) -> Self {
        let mut words = [0; 4];
        for (word, place) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = place.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        let [memory_bytes, cpu_micros, connections, refused] = words;
        Self { memory_bytes, cpu_micros, connections, refused }
    }
}

const MAGIC: [u8; 4] = *b"WSPF";
const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        for purpose in [Purpose::Stream, Purpose::Requests, Purpose::Once, Purpose::Report] {
            let server_sends = purpose == Purpose::Stream;
            let hello = Hello { purpose, server_sends, request_bytes: 1, response_bytes: 0x01_00_00_00 };
            assert_eq!(Hello::parse(hello.to_bytes()), Some(hello));
        }
        let trailer = Trailer { bytes: u64::MAX - 1, micros: 7 };
        assert_eq!(Trailer::parse(trailer.to_bytes()), trailer);
        let report = Report { memory_bytes: 1, cpu_micros: 2 << 40, connections: 3, refused: u64::MAX };
        assert_eq!(Report::parse(report.to_bytes()), report);
    }

    #[test]
    fn a_stranger_is_none_of_ours() {
        let good = Hello { purpose: Purpose::Once, server_sends: false, request_bytes: 1, response_bytes: 1 };
        // Each place with a value that makes it wrong.
        let wrong =
            [(0, b'w'), (3, 0), (4, 2), (5, 0), (5, 5), (6, 1), (6, 2), (7, 1), (8, 2), (11, 0), (15, 0)];
        for (place, value) in wrong {
            let mut bytes = good.to_bytes();
            bytes[place] = value;
            assert_eq!(Hello::parse(bytes), None, "byte {place} is {value}");
        }
        assert_eq!(Hello::parse(*b"GET / HTTP/1.1\r\n"), None);
    }
}
