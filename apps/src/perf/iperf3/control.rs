//! The control connection: states of one byte, a cookie, and JSON behind its length. The other end is a stranger.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::pin::pin;

use futures_util::future::{Either, select};
use serde_json::Value;
use smoltcp::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::sockets::Sockets;

/// What is to be done next, as one end tells the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i8)]
pub(super) enum State {
    /// Make ready.
    TestStart = 1,
    /// Data may flow.
    TestRunning = 2,
    /// The client's time is over.
    TestEnd = 4,
    /// Tell me what to do.
    ParamExchange = 9,
    /// Open the streams.
    CreateStreams = 10,
    /// The server was told to end.
    ServerTerminate = 11,
    /// The client was told to end.
    ClientTerminate = 12,
    /// Tell me what came of it.
    ExchangeResults = 13,
    /// That is all.
    DisplayResults = 14,
    /// Before anything was said.
    IperfStart = 15,
    /// Good-bye.
    IperfDone = 16,
    /// Another test is running.
    AccessDenied = -1,
    /// It cannot be done; two numbers follow.
    ServerError = -2,
}

impl State {
    /// Of a byte. `None`: of no version that is known here.
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        ALL.into_iter().find(|state| state.to_byte() == byte)
    }

    /// As sent.
    pub(super) fn to_byte(self) -> u8 {
        (self as i8).cast_unsigned()
    }
}

const ALL: [State; 13] = [
    State::TestStart,
    State::TestRunning,
    State::TestEnd,
    State::ParamExchange,
    State::CreateStreams,
    State::ServerTerminate,
    State::ClientTerminate,
    State::ExchangeResults,
    State::DisplayResults,
    State::IperfStart,
    State::IperfDone,
    State::AccessDenied,
    State::ServerError,
];

/// The next state. Cancel-safe.
///
/// # Errors
/// The connection ended, or that is no state (`InvalidData`).
pub(super) async fn read_state<R: AsyncRead + Unpin>(control: &mut R) -> io::Result<State> {
    let byte = control.read_u8().await?;
    State::from_byte(byte).ok_or_else(|| invalid(format!("{byte} is no state of iperf3")))
}

/// Tells the other end.
pub(super) async fn write_state<W: AsyncWrite + Unpin>(control: &mut W, state: State) -> io::Result<()> {
    control.write_all(&[state.to_byte()]).await?;
    control.flush().await
}

/// An error of the server: two numbers of its own.
pub(super) async fn read_error<R: AsyncRead + Unpin>(control: &mut R) -> io::Result<(i32, i32)> {
    Ok((control.read_i32().await?, control.read_i32().await?))
}

/// Says that it cannot be done: bad parameters.
pub(super) async fn write_params_error<W: AsyncWrite + Unpin>(control: &mut W) -> io::Result<()> {
    let mut bytes = vec![State::ServerError.to_byte()];
    bytes.extend_from_slice(&ERROR_PARAMS.to_be_bytes());
    bytes.extend_from_slice(&0_i32.to_be_bytes());
    control.write_all(&bytes).await?;
    control.flush().await
}

/// JSON behind its length.
///
/// # Errors
/// Too long or no JSON (`InvalidData`), or the connection ended.
pub(super) async fn read_json<R: AsyncRead + Unpin>(control: &mut R) -> io::Result<Value> {
    let len = control.read_u32().await?;
    if len > JSON_BYTES_MAX {
        return Err(invalid(format!("JSON of {len} bytes; {JSON_BYTES_MAX} are accepted")));
    }
    let mut bytes = vec![0; len as usize];
    control.read_exact(&mut bytes).await?;
    // Some versions count the zero at the end of their string.
    let text = bytes.strip_suffix(&[0]).unwrap_or(&bytes);
    serde_json::from_slice(text).map_err(|error| invalid(format!("no JSON: {error}")))
}

/// Likewise.
pub(super) async fn write_json<W: AsyncWrite + Unpin>(control: &mut W, value: &Value) -> io::Result<()> {
    let text = value.to_string();
    let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
    let mut bytes = len.to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    control.write_all(&bytes).await?;
    control.flush().await
}

/// Does something that the other end may make wait for ever, but not longer than this.
///
/// # Errors
/// That of `step`, or `TimedOut`.
pub(super) async fn within<S: Sockets, T>(
    sockets: &S,
    timeout: Duration,
    step: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let sleep = pin!(sockets.sleep_until(sockets.now() + timeout));
    match select(pin!(step), sleep).await {
        Either::Left((result, _)) => result,
        Either::Right(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// What the connections of one test have in common: 36 letters and digits, and a zero.
pub(super) type Cookie = [u8; 37];

/// One that nobody else has.
pub(super) fn new_cookie() -> Cookie {
    let mut cookie = [0; 37];
    for (index, place) in cookie.iter_mut().take(36).enumerate() {
        // The standard library seeds each of its hashers anew.
        let letter = RandomState::new().hash_one(index) % 32;
        *place = LETTERS[letter as usize];
    }
    cookie
}

pub(super) fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

const LETTERS: [u8; 32] = *b"abcdefghijklmnopqrstuvwxyz234567";
/// Parameters and results of 128 streams fit.
const JSON_BYTES_MAX: u32 = 64 << 10;
/// iperf3's number for parameters that cannot be had.
const ERROR_PARAMS: i32 = 114;

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        futures_util::FutureExt::now_or_never(future).expect("nothing to wait for")
    }

    #[test]
    fn states_are_bytes() {
        let cases = [(1, State::TestStart), (16, State::IperfDone), (255, State::AccessDenied)];
        for (byte, state) in cases {
            assert_eq!(State::from_byte(byte), Some(state));
        }
        for byte in 0..=u8::MAX {
            let state = State::from_byte(byte);
            assert!(state.is_none_or(|state| state.to_byte() == byte), "{byte}");
        }
        assert_eq!((0..=u8::MAX).filter_map(State::from_byte).count(), 13);
    }

    #[test]
    fn json_is_bounded_and_checked() {
        let read = |bytes: &[u8]| block_on(read_json(&mut &*bytes)).map_err(|error| error.kind());
        let mut good = Vec::new();
        block_on(write_json(&mut good, &serde_json::json!({"a": 1}))).expect("a Vec takes all");
        assert_eq!(good[..4], [0, 0, 0, 7]);
        assert_eq!(read(&good), Ok(serde_json::json!({"a": 1})));
        assert_eq!(read(b"\0\0\0\x03{}\0"), Ok(serde_json::json!({})));
        let cases: [(&[u8], io::ErrorKind); 5] = [
            (b"\0\x01\0\x01", io::ErrorKind::InvalidData),
            (b"\xff\xff\xff\xff", io::ErrorKind::InvalidData),
            (b"\0\0\0\x02{]", io::ErrorKind::InvalidData),
            (b"\0\0\0\x02{", io::ErrorKind::UnexpectedEof),
            (b"\0\0", io::ErrorKind::UnexpectedEof),
        ];
        for (bytes, expected) in cases {
            assert_eq!(read(bytes), Err(expected), "{bytes:?}");
        }
        // Nesting is bounded, too.
        let mut deep = 50_000_u32.to_be_bytes().to_vec();
        deep.extend_from_slice(&[b'['; 50_000]);
        assert_eq!(read(&deep), Err(io::ErrorKind::InvalidData));
    }

    #[test]
    fn cookies_differ_and_end_with_a_zero() {
        let (one, other) = (new_cookie(), new_cookie());
        assert_ne!(one, other);
        assert_eq!(one[36], 0);
        assert!(one[..36].iter().all(u8::is_ascii_alphanumeric));
    }
}
