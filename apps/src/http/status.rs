//! `/status`: what the stack has counted and which connections there are, live, for people with a browser;
//! and `/status.json`, the same for programs.
//!
//! What a source gives is an object with `counters` (numbers by name) and `connections` (a list of objects);
//! the page shows what is there and leaves out what is not.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::Response;
use hyper::body::Bytes;
use serde_json::Value;

use super::body::SiteBody;
use super::reply;

/// Gives the report of the moment: `{"counters": {name: value}, "connections": [{...}]}`.
///
/// It is called on whatever thread serves the request, ten times a second at most.
pub type StatusSource = Arc<dyn Fn() -> Value + Send + Sync>;

/// The pages about the stack.
pub(super) struct Status {
    source: StatusSource,
    latest: Mutex<Option<Latest>>,
}

#[derive(Clone)]
struct Latest {
    taken: Instant,
    /// The report as JSON.
    report: Bytes,
    /// Its counters, as text.
    counters: Bytes,
}

impl Status {
    pub(super) fn new(source: StatusSource) -> Self {
        Self { source, latest: Mutex::new(None) }
    }

    /// The response to a path, if it is one of ours.
    pub(super) fn answer(&self, path: &[u8]) -> Option<Response<SiteBody>> {
        match path {
            b"/status" => Some(reply::page(page(&self.latest().report))),
            b"/status.json" => Some(json(self.latest().report)),
            _ => None,
        }
    }

    /// The counters alone, as `/counters` has them.
    pub(super) fn counters(&self) -> Response<SiteBody> {
        json(self.latest().counters)
    }

    /// A report not older than [`REPORT_AGE_MAX`]: making one takes time from the connections, so strangers
    /// cannot have as many as they like.
    fn latest(&self) -> Latest {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        match &*latest {
            Some(report) if report.taken.elapsed() < REPORT_AGE_MAX => report.clone(),
            _ => latest.insert(self.take()).clone(),
        }
    }

    fn take(&self) -> Latest {
        let mut report = (self.source)();
        let counters =
            format!("{:#}\n", report.get("counters").unwrap_or(&Value::Object(Default::default())));
        if let Some(Value::Array(connections)) = report.get_mut("connections") {
            let total = connections.len();
            connections.truncate(CONNECTIONS_MAX);
            if let Value::Object(report) = &mut report {
                report.entry("connections_total").or_insert_with(|| total.into());
            }
        }
        let report = format!("{report}\n").into();
        Latest { taken: Instant::now(), report, counters: counters.into() }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Status").finish_non_exhaustive()
    }
}

fn json(text: Bytes) -> Response<SiteBody> {
    let mut response = reply::typed(reply::JSON, SiteBody::bytes(text));
    let no_store = http::HeaderValue::from_static("no-store");
    response.headers_mut().insert(http::header::CACHE_CONTROL, no_store);
    response
}

/// The page with a first report in it, so that it is complete before anything else is fetched.
fn page(report: &[u8]) -> String {
    // Nothing in a report may end the element that it is in.
    let report = String::from_utf8_lossy(report).replace('<', "\\u003c");
    PAGE.replacen("{{report}}", report.trim_end(), 1)
}

const PAGE: &str = include_str!("status.html");
/// How old a report may be.
const REPORT_AGE_MAX: Duration = Duration::from_millis(100);
/// Connections in a report, at most; `connections_total` is how many there are.
const CONNECTIONS_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    use serde_json::json;

    fn status(report: Value) -> Status {
        Status::new(Arc::new(move || report.clone()))
    }

    #[test]
    fn the_page_has_the_report_in_it_and_nothing_in_it_ends_the_script() {
        let report = json!({"connections": [{"local": "</script><script>alert(1)", "state": "ESTABLISHED"}]});
        let page = page(&status(report).latest().report);
        assert!(page.contains("\"local\":\"\\u003c/script>\\u003cscript>alert(1)\""), "{page}");
        assert_eq!(page.matches("<script").count(), 2, "the report and the program: {page}");
        assert!(!page.contains("{{"), "{page}");
        for word in ["http://", "https://", "src="] {
            assert!(!page.contains(word), "nothing is loaded from elsewhere: {word}");
        }
    }

    #[test]
    fn any_report_will_do() {
        for report in [json!({}), json!(null), json!({"connections": 7}), json!([1])] {
            let status = status(report);
            assert_eq!(&status.latest().counters[..], b"{}\n");
            assert!(status.answer(b"/status").is_some() && status.answer(b"/status.json").is_some());
            assert!(status.answer(b"/status/").is_none());
        }
    }

    #[test]
    fn a_report_is_bounded_in_length_and_in_number() {
        let made = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&made);
        let status = Status::new(Arc::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
            json!({"counters": {"a": 1}, "connections": vec![json!({}); CONNECTIONS_MAX + 5]})
        }));
        let latest = status.latest();
        let report: Value = serde_json::from_slice(&latest.report).expect("JSON");
        assert_eq!(report["connections"].as_array().map(Vec::len), Some(CONNECTIONS_MAX));
        assert_eq!(report["connections_total"], CONNECTIONS_MAX + 5);
        assert_eq!(&latest.counters[..], b"{\n  \"a\": 1\n}\n");
        // As often as anybody asks in the lifetime of one.
        let far = Instant::now() + Duration::from_secs(3_600);
        status.latest.lock().expect("unpoisoned").as_mut().expect("a report").taken = far;
        (0..100).for_each(|_| drop(status.latest()));
        assert_eq!(made.load(Ordering::Relaxed), 1);
    }
}
