//! Reading answers of HTTP/1.1: status, length, and whether the connection stays. The server is a stranger.

/// Reads the answers of one connection, one after the other, in pieces as they come.
#[derive(Debug)]
pub(super) struct Response {
    /// What came of a head that is not complete; [`HEAD_BYTES_MAX`] at most.
    partial: Vec<u8>,
    /// The last head with its values. A server answers with the same head again and again: at most its date
    /// changes, once a second. It is compared before it is read.
    known: Vec<u8>,
    known_values: Values,
    /// Of the body; `None`: the head is not complete.
    body_left: Option<u64>,
}

/// What a head says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Values {
    status: u16,
    content_len: u64,
    keeps_alive: bool,
}

/// An answer that is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Done {
    /// Of the answer.
    pub(super) status: u16,
    /// Whether another request can be sent.
    pub(super) keeps_alive: bool,
}

impl Response {
    /// For a new connection.
    pub(super) fn new() -> Self {
        Self { partial: Vec::new(), known: Vec::new(), known_values: Values::default(), body_left: None }
    }

    /// A request was sent.
    pub(super) fn begin(&mut self) {
        self.partial.clear();
        self.body_left = None;
    }

    /// Whether nothing of the answer came yet.
    pub(super) fn is_untouched(&self) -> bool {
        self.partial.is_empty() && self.body_left.is_none()
    }

    /// More came. `None`: there is more to come.
    ///
    /// # Errors
    /// What is wrong with the answer; the connection is of no use any more.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Option<Done>, &'static str> {
        if bytes.is_empty() {
            return Ok(None);
        }
        if let Some(left) = self.body_left {
            return self.body(left, bytes.len());
        }
        if self.partial.is_empty() {
            return self.head(bytes);
        }
        let room = HEAD_BYTES_MAX.saturating_sub(self.partial.len());
        let taken = bytes.len().min(room);
        self.partial.extend_from_slice(&bytes[..taken]);
        let mut all = std::mem::take(&mut self.partial);
        let result = self.head(&all);
        if self.body_left.is_none() && result == Ok(None) {
            self.partial = all;
            return if taken < bytes.len() { Err("its head is too long") } else { Ok(None) };
        }
        // What had no room is of the body.
        all.clear();
        match (result, self.body_left) {
            (Ok(None), Some(left)) if taken < bytes.len() => self.body(left, bytes.len() - taken),
            (Ok(Some(_)), _) if taken < bytes.len() => Err(TOO_MUCH),
            (result, _) => result,
        }
    }

    /// Everything from the beginning of the answer on.
    fn head(&mut self, bytes: &[u8]) -> Result<Option<Done>, &'static str> {
        if !self.known.is_empty() && bytes.starts_with(&self.known) {
            return self.body(self.known_values.content_len, bytes.len() - self.known.len());
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Response::new(&mut headers);
        let len = match head.parse(bytes) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => {
                self.partial.extend_from_slice(bytes);
                return Ok(None);
            }
            Ok(httparse::Status::Partial) => return Err("its head is too long"),
            Err(_) => return Err("that is no HTTP/1.1"),
        };
        self.known_values = values(&head)?;
        self.known.clear();
        self.known.extend_from_slice(bytes.get(..len).unwrap_or_default());
        self.body(self.known_values.content_len, bytes.len() - len)
    }

    /// So many bytes of the body came, of so many that were left.
    fn body(&mut self, left: u64, count: usize) -> Result<Option<Done>, &'static str> {
        let left = left.checked_sub(count as u64).ok_or(TOO_MUCH)?;
        self.body_left = Some(left);
        let Values { status, keeps_alive, .. } = self.known_values;
        Ok((left == 0).then_some(Done { status, keeps_alive }))
    }
}

fn values(head: &httparse::Response<'_, '_>) -> Result<Values, &'static str> {
    let status = head.code.unwrap_or(0);
    let mut content_len = None;
    let mut keeps_alive = head.version == Some(1);
    for header in head.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(header.value).unwrap_or_default().trim();
            let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let len =
                digits.and_then(|digits| digits.parse::<u64>().ok()).ok_or("its Content-Length is none")?;
            if content_len.is_some_and(|other| other != len) {
                return Err("it has two Content-Lengths");
            }
            content_len = Some(len);
        } else if header.name.eq_ignore_ascii_case("connection") {
            let is_close = header.value.trim_ascii().eq_ignore_ascii_case(b"close");
            keeps_alive =
                !is_close && (keeps_alive || header.value.trim_ascii().eq_ignore_ascii_case(b"keep-alive"));
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err("it is chunked; a body of known length is wanted");
        }
    }
    match (status, content_len) {
        // RFC 9110 section 6.4.1: these have no body.
        (204 | 304, _) => Ok(Values { status, content_len: 0, keeps_alive }),
        (200.., Some(content_len)) => Ok(Values { status, content_len, keeps_alive }),
        (200.., None) => Err("it has no Content-Length"),
        _ => Err("its status is none of a last answer"),
    }
}

const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
const TOO_MUCH: &str = "more came than an answer";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Result<Option<Done>, &'static str> {
        let mut response = Response::new();
        let mut last = Ok(None);
        for piece in pieces {
            last = response.push(piece);
        }
        last
    }

    #[test]
    fn an_answer_is_complete_with_its_last_byte() {
        let good: &[u8] = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 5\r\n\r\nhello";
        let done = Ok(Some(Done { status: 200, keeps_alive: true }));
        assert_eq!(read(&[good]), done);
        for cut in 1..good.len() {
            assert_eq!(read(&[&good[..cut]]), Ok(None), "cut at {cut}");
            assert_eq!(read(&[&good[..cut], &good[cut..]]), done, "cut at {cut}");
        }
        let single: Vec<&[u8]> = good.chunks(1).collect();
        assert_eq!(read(&single), done);
    }

    #[test]
    fn the_same_head_again_is_known_and_another_is_read() {
        let mut response = Response::new();
        for (len, body) in [(3, "abc"), (3, "def"), (4, "ghij"), (3, "abc")] {
            response.begin();
            assert!(response.is_untouched());
            let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n{body}");
            assert_eq!(response.push(text.as_bytes()), Ok(Some(Done { status: 200, keeps_alive: true })));
            assert!(!response.is_untouched());
        }
    }

    #[test]
    fn what_the_head_says_counts() {
        let done = |status, keeps_alive| Ok(Some(Done { status, keeps_alive }));
        let cases: [(&str, Result<Option<Done>, &str>); 12] = [
            ("HTTP/1.1 204 No Content\r\n\r\n", done(204, true)),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", done(200, false)),
            ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", done(200, true)),
            ("HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", done(404, false)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxy", Err(TOO_MUCH)),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", Err("its Content-Length is none")),
            ("HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n", Err("its Content-Length is none")),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                Err("it has two Content-Lengths"),
            ),
            ("HTTP/1.1 200 OK\r\n\r\n", Err("it has no Content-Length")),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                Err("it is chunked; a body of known length is wanted"),
            ),
            ("HTTP/1.1 100 Continue\r\n\r\n", Err("its status is none of a last answer")),
            ("SSH-2.0-OpenSSH\r\n\r\n", Err("that is no HTTP/1.1")),
        ];
        for (text, expected) in cases {
            assert_eq!(read(&[text.as_bytes()]), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn pieces_make_no_difference(
            bodies in proptest::collection::vec(0_usize..40_000, 1..5),
            cuts in proptest::collection::vec(1_usize..20_000, 1..20),
        ) {
            let mut response = Response::new();
            let mut cuts = cuts.into_iter().cycle();
            for len in bodies {
                response.begin();
                let mut all = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n").into_bytes();
                all.resize(all.len() + len, b'x');
                let mut rest = &all[..];
                while !rest.is_empty() {
                    let (piece, more) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
                    rest = more;
                    let done = response.push(piece);
                    let expected = rest.is_empty().then_some(Done { status: 200, keeps_alive: true });
                    proptest::prop_assert_eq!(done, Ok(expected));
                }
            }
        }

        #[test]
        fn garbage_does_no_harm(pieces in proptest::collection::vec(proptest::collection::vec(0_u8..128, 0..40), 0..20)) {
            let mut response = Response::new();
            for piece in pieces {
                if response.push(&piece).is_err() {
                    break;
                }
            }
            proptest::prop_assert!(response.partial.len() <= HEAD_BYTES_MAX);
        }
    }

    #[test]
    fn a_head_without_an_end_is_refused() {
        let mut response = Response::new();
        let mut result = response.push(b"HTTP/1.1 200 OK\r\nX: ");
        let mut pieces = 0;
        while result == Ok(None) {
            result = response.push(&[b'a'; 1000]);
            pieces += 1;
            assert!(pieces < 20);
        }
        assert_eq!(result, Err("its head is too long"));
    }
}
