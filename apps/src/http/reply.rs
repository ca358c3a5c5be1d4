//! Responses of a site on hyper, as they all begin.

use http::header::{self, HeaderValue};
use http::{Response, StatusCode};

use super::body::SiteBody;

/// A body with its status. hyper adds the date, and the length where the body knows it.
pub(super) fn response(status: StatusCode, body: SiteBody) -> Response<SiteBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::SERVER, HeaderValue::from_static("wirestack"));
    response
}

/// A body of a type of its own.
pub(super) fn typed(content_type: &'static str, body: SiteBody) -> Response<SiteBody> {
    let mut response = response(StatusCode::OK, body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A page of our own, with a style and perhaps a script in itself; a browser is to load nothing else for it,
/// whatever a name on it may look like.
pub(super) fn page(html: String) -> Response<SiteBody> {
    let mut response = typed(HTML, SiteBody::bytes(html));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// A page that says no more than its status.
pub(super) fn bare(status: StatusCode) -> Response<SiteBody> {
    let mut response = typed(TEXT, SiteBody::bytes(format!("{status}\n")));
    *response.status_mut() = status;
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

/// Text for characters that HTML would read otherwise.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

pub(super) const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'";
