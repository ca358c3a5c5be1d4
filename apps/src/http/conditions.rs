//! Which part of a file a request asks for, if any: preconditions and ranges, RFC 9110 sections 13 and 14.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{self, HeaderMap, HeaderName};

/// What tells one version of a file from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    /// With its quotation marks.
    pub(super) etag: String,
    /// When it was last modified, in whole seconds; none if HTTP cannot write the time.
    pub(super) modified: Option<SystemTime>,
}

/// What is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it.
    Whole,
    /// So many bytes from the first on.
    Part {
        /// Offset of the first byte.
        first: u64,
        /// Bytes, at least one.
        len: u64,
    },
    /// The peer has it already: 304.
    NotModified,
    /// It is not what the peer thinks it is: 412.
    PreconditionFailed,
    /// There is no such part: 416.
    Unsatisfiable,
}

impl Version {
    /// Of a file that was modified then, and is so long.
    pub(super) fn new(modified: Option<SystemTime>, len: u64) -> Self {
        let since_epoch = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let nanoseconds = since_epoch.map_or(0, |time| time.as_nanos());
        let seconds = since_epoch.map(|time| time.as_secs()).filter(|seconds| *seconds < SECONDS_MAX);
        Self {
            etag: format!("\"{nanoseconds:x}-{len:x}\""),
            modified: seconds.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds)),
        }
    }

    /// What the header fields of a request ask for, in the order of RFC 9110 section 13.2.2.
    pub(super) fn wanted(&self, headers: &HeaderMap, is_get: bool, len: u64) -> Wanted {
        if headers.contains_key(header::IF_MATCH) {
            if !self.is_in_list(headers, header::IF_MATCH, Compare::Strong) {
                return Wanted::PreconditionFailed;
            }
        } else if self.is_newer_than(headers, header::IF_UNMODIFIED_SINCE) == Some(true) {
            return Wanted::PreconditionFailed;
        }
        //= rfc9110#13.1.3
        //# A recipient MUST ignore If-Modified-Since if the request contains an
        //# If-None-Match header field
        if headers.contains_key(header::IF_NONE_MATCH) {
            if self.is_in_list(headers, header::IF_NONE_MATCH, Compare::Weak) {
                return Wanted::NotModified;
            }
        } else if self.is_newer_than(headers, header::IF_MODIFIED_SINCE) == Some(false) {
            return Wanted::NotModified;
        }
        // A range is defined for GET alone (section 14.2).
        match headers.get(header::RANGE).and_then(|range| range.to_str().ok()) {
            Some(range) if is_get && self.is_the_one_to_continue(headers) => part(range, len),
            _ => Wanted::Whole,
        }
    }

    fn is_in_list(&self, headers: &HeaderMap, name: HeaderName, compare: Compare) -> bool {
        let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).map(str::trim).any(|tag| {
            let tag = if compare == Compare::Weak { tag.strip_prefix("W/").unwrap_or(tag) } else { tag };
            tag == "*" || tag == self.etag
        })
    }

    /// Whether it was modified after the time of this field; none if there is no such field, or no such time.
    fn is_newer_than(&self, headers: &HeaderMap, name: HeaderName) -> Option<bool> {
        let since = httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()?;
        Some(self.modified? > since)
    }

    /// If-Range (section 13.1.5): a part is of use only to who has the rest of this version.
    fn is_the_one_to_continue(&self, headers: &HeaderMap) -> bool {
        let Some(condition) = headers.get(header::IF_RANGE) else { return true };
        let Ok(text) = condition.to_str() else { return false };
        let date = || httpdate::parse_http_date(text).ok();
        text == self.etag || date().is_some_and(|date| Some(date) == self.modified)
    }
}

/// The part that a Range field names.
///
/// Several parts at once would need a body of its own kind, and a field that makes no sense may be ignored
/// (section 14.2): all of it is a right answer to both.
fn part(range: &str, len: u64) -> Wanted {
    let named = range.split_once('=').filter(|(unit, _)| unit.trim().eq_ignore_ascii_case("bytes"));
    let Some((first, last)) = named.and_then(|(_, ranges)| ranges.trim().split_once('-')) else {
        return Wanted::Whole;
    };
    match (number(first), number(last)) {
        (Some(first), _) if !last.is_empty() && number(last).is_none_or(|last| last < first) => Wanted::Whole,
        (Some(first), _) if first >= len => Wanted::Unsatisfiable,
        (Some(first), last) => Wanted::Part { first, len: last.unwrap_or(u64::MAX).min(len - 1) - first + 1 },
        (None, Some(_)) if !first.is_empty() => Wanted::Whole,
        (None, Some(0)) => Wanted::Unsatisfiable,
        (None, Some(_)) if len == 0 => Wanted::Whole,
        (None, Some(suffix)) => Wanted::Part { first: len - suffix.min(len), len: suffix.min(len) },
        (None, None) => Wanted::Whole,
    }
}

/// A number of digits only. One that is too large is beyond the end of any file.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    Strong,
    Weak,
}

/// The year 10000, which a date of HTTP cannot write.
const SECONDS_MAX: u64 = 253_402_300_800;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wanted(fields: &[(&'static str, &str)]) -> Wanted {
        let modified = UNIX_EPOCH + Duration::new(784_111_777, 5);
        let version = Version::new(Some(modified), 100);
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("a value"));
        }
        version.wanted(&headers, true, 100)
    }

    #[test]
    fn ranges() {
        let part = |first, len| Wanted::Part { first, len };
        for (range, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-99", part(0, 100)),
            ("Bytes=5-", part(5, 95)),
            ("bytes=5-1000", part(5, 95)),
            ("bytes=5-99999999999999999999999", part(5, 95)),
            ("bytes=-7", part(93, 7)),
            ("bytes=-1000", part(0, 100)),
            ("bytes=100-", Wanted::Unsatisfiable),
            ("bytes=100-200", Wanted::Unsatisfiable),
            ("bytes=99999999999999999999999-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=7-5", Wanted::Whole),
            ("bytes=200-100", Wanted::Whole),
            ("bytes=0-1,5-6", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=1-b", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=x-5", Wanted::Whole),
            ("lines=0-1", Wanted::Whole),
            ("bytes", Wanted::Whole),
        ] {
            assert_eq!(wanted(&[("range", range)]), expected, "{range}");
        }
        assert_eq!(super::part("bytes=-1", 0), Wanted::Whole);
        assert_eq!(super::part("bytes=0-", 0), Wanted::Unsatisfiable);
    }

    #[test]
    fn preconditions() {
        let tag = &Version::new(Some(UNIX_EPOCH + Duration::new(784_111_777, 5)), 100).etag;
        let weak = &format!("W/{tag}");
        let both = &format!("\"x\", {tag}");
        let (before, at, after) = (
            "Sun, 06 Nov 1994 08:49:36 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:38 GMT",
        );
        let part = Wanted::Part { first: 0, len: 1 };
        let range = ("range", "bytes=0-0");
        for (fields, expected) in [
            (&[("if-none-match", tag.as_str())][..], Wanted::NotModified),
            (&[("if-none-match", weak)], Wanted::NotModified),
            (&[("if-none-match", both)], Wanted::NotModified),
            (&[("if-none-match", "\"x\""), ("if-none-match", tag)], Wanted::NotModified),
            (&[("if-none-match", "*")], Wanted::NotModified),
            (&[("if-none-match", "\"x\""), ("if-modified-since", after)], Wanted::Whole),
            (&[("if-modified-since", at)], Wanted::NotModified),
            (&[("if-modified-since", after)], Wanted::NotModified),
            (&[("if-modified-since", before)], Wanted::Whole),
            (&[("if-modified-since", "yesterday")], Wanted::Whole),
            (&[("if-match", tag)], Wanted::Whole),
            (&[("if-match", "*")], Wanted::Whole),
            (&[("if-match", weak)], Wanted::PreconditionFailed),
            (&[("if-match", "\"x\"")], Wanted::PreconditionFailed),
            (&[("if-match", tag), ("if-unmodified-since", before)], Wanted::Whole),
            (&[("if-unmodified-since", at)], Wanted::Whole),
            (&[("if-unmodified-since", before)], Wanted::PreconditionFailed),
            (&[range, ("if-range", tag)], part),
            (&[range, ("if-range", at)], part),
            (&[range, ("if-range", weak)], Wanted::Whole),
            (&[range, ("if-range", "\"x\"")], Wanted::Whole),
            (&[range, ("if-range", before)], Wanted::Whole),
            (&[range, ("if-range", after)], Wanted::Whole),
            (&[range, ("if-none-match", tag)], Wanted::NotModified),
        ] {
            assert_eq!(wanted(fields), expected, "{fields:?}");
        }
        let version = Version::new(None, 100);
        let headers = [(header::RANGE, "bytes=0-0".parse().expect("a value"))].into_iter().collect();
        assert_eq!(version.wanted(&headers, false, 100), Wanted::Whole, "HEAD");
    }

    #[test]
    fn times_that_http_cannot_write_are_left_out() {
        let before = UNIX_EPOCH - Duration::from_secs(1);
        let far = UNIX_EPOCH + Duration::from_secs(SECONDS_MAX);
        for time in [before, far] {
            assert_eq!(Version::new(Some(time), 1).modified, None);
        }
        let last = far - Duration::from_nanos(1);
        let shown = Version::new(Some(last), 1).modified.map(httpdate::fmt_http_date);
        assert_eq!(shown.as_deref(), Some("Fri, 31 Dec 9999 23:59:59 GMT"));
    }

    proptest! {
        #[test]
        fn a_part_is_within_the_file(range in "bytes=[0-9]{0,20}-[0-9]{0,20}", len in 0..1_000_u64) {
            if let Wanted::Part { first, len: part } = part(&range, len) {
                prop_assert!(part > 0 && first.checked_add(part).is_some_and(|end| end <= len));
            }
        }
    }
}
