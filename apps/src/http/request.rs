//! Reading the head of a request. Everything here comes from a stranger.

/// What a server of files needs to know of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Whether the answer has a body: GET, not HEAD.
    pub wants_body: bool,
    /// The path, percent-decoded, without query; begins with a slash.
    pub path: Vec<u8>,
    /// Whether the connection stays open afterwards (RFC 9112 section 9.3).
    pub keep_alive: bool,
}

/// What the first bytes of a connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// A request, in so many bytes.
    Request(Request, usize),
    /// The beginning of one; more bytes are needed.
    Incomplete,
    /// Nothing that is answered with a page: the status to answer with, and the connection ends.
    Refused(u16),
}

/// Reads the head of a request from the start of what has come.
///
/// Requests with a body are refused: a server of files has no use for one, and where it ended would
/// decide what the next request is.
pub fn parse(bytes: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let head_len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(head_len)) => head_len,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Parsed::Incomplete,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => return Parsed::Refused(431),
        Err(httparse::Error::Version) => return Parsed::Refused(505),
        Err(_) => return Parsed::Refused(400),
    };
    let wants_body = match request.method {
        Some("GET") => true,
        Some("HEAD") => false,
        _ => return Parsed::Refused(405),
    };
    let values = |name: &'static str| {
        let headers = request.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        headers.map(|header| String::from_utf8_lossy(header.value).trim().to_ascii_lowercase())
    };
    let is_1_1 = request.version == Some(1);
    // RFC 9112 section 3.2: one Host, and none only in HTTP/1.0.
    if values("host").count() > 1 || (is_1_1 && values("host").count() == 0) {
        return Parsed::Refused(400);
    }
    // Several lengths, or one beside a coding, are how requests are smuggled (section 11.2).
    if values("transfer-encoding").next().is_some() || values("content-length").any(|len| len != "0") {
        return Parsed::Refused(413);
    }
    let has =
        |option: &str| values("connection").any(|line| line.split(',').any(|word| word.trim() == option));
    let keep_alive = !has("close") && (is_1_1 || has("keep-alive"));
    match path(request.path.unwrap_or_default()) {
        Some(path) => Parsed::Request(Request { wants_body, path, keep_alive }, head_len),
        None => Parsed::Refused(400),
    }
}

/// The path of a request's target (RFC 9112 section 3.2): `/x?y` or `http://host/x?y`.
fn path(target: &str) -> Option<Vec<u8>> {
    let target = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => rest.find(['/', '?']).map_or("/", |at| &rest[at..]),
        _ => target,
    };
    let path = target.split(['?', '#']).next()?;
    let path = if path.is_empty() && !target.is_empty() { "/" } else { path };
    path.starts_with('/').then(|| percent_encoding::percent_decode_str(path).collect())
}

/// Bytes of a head, at most; a longer one is refused.
pub(super) const HEAD_BYTES_MAX: usize = 8 << 10;
/// Header lines of a head, at most.
const HEADERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Request {
        match parse(text.as_bytes()) {
            Parsed::Request(request, len) => {
                assert_eq!(len, text.len());
                request
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn requests_are_read() {
        let get = request("GET /a%20b/c.html?x=1 HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(get, Request { wants_body: true, path: b"/a b/c.html".to_vec(), keep_alive: true });
        assert!(!request("HEAD / HTTP/1.1\r\nhost: h\r\n\r\n").wants_body);
        assert!(!request("GET / HTTP/1.1\r\nHost: h\r\nConnection: foo, Close\r\n\r\n").keep_alive);
        assert!(!request("GET / HTTP/1.0\r\n\r\n").keep_alive);
        assert!(request("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keep_alive);
        assert_eq!(request("GET http://h/x HTTP/1.1\r\nHost: h\r\n\r\n").path, b"/x");
        assert_eq!(request("GET /a?u=http://h/x HTTP/1.1\r\nHost: h\r\n\r\n").path, b"/a");
        assert_eq!(request("GET http://h?x HTTP/1.1\r\nHost: h\r\n\r\n").path, b"/");
        let closing = request("GET / HTTP/1.1\r\nHost: h\r\nConnection: a\r\nConnection: close\r\n\r\n");
        assert!(!closing.keep_alive);
        assert_eq!(request("GET http://h HTTP/1.1\r\nHost: h\r\n\r\n").path, b"/");
    }

    #[test]
    fn a_pipelined_request_stays() {
        let first = "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n";
        let both = format!("{first}GET /2 HTTP/1.1\r\n");
        let Parsed::Request(request, len) = parse(both.as_bytes()) else { panic!("a whole request") };
        assert_eq!((request.path.as_slice(), len), (&b"/1"[..], first.len()));
    }

    #[test]
    fn every_prefix_is_incomplete() {
        let text = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
        for len in 0..text.len() {
            assert_eq!(parse(&text[..len]), Parsed::Incomplete, "{len}");
        }
    }

    #[test]
    fn what_is_refused() {
        let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(HEAD_BYTES_MAX));
        let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX));
        for (text, status) in [
            ("POST / HTTP/1.1\r\nHost: h\r\n\r\n", 405),
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n", 413),
            ("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nContent-Length: 4\r\n\r\n", 413),
            ("GET / HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", 413),
            ("GET * HTTP/1.1\r\nHost: h\r\n\r\n", 400),
            ("GET / HTTP/2.0\r\n\r\n", 505),
            ("\x16\x03\x01\x02\x00\x01", 400),
            (&long, 431),
            (&many, 431),
        ] {
            assert_eq!(parse(text.as_bytes()), Parsed::Refused(status), "{text:.60?}");
        }
    }
}
