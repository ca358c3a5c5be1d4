//! The page of a directory that has no `index.html`: its names, sizes and times, with links.

use std::ffi::OsString;
use std::fmt::Write;
use std::fs::DirEntry;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use http::Response;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::body::SiteBody;
use super::conditions::Version;
use super::reply::{self, escape};

struct Entry {
    name: OsString,
    is_dir: bool,
    len: u64,
    modified: Option<SystemTime>,
}

/// The page of `dir`, below the root, as somebody knows it by this path.
pub(super) fn page(root: &Path, dir: &Path, path: &[u8]) -> io::Result<Response<SiteBody>> {
    let mut entries = Vec::new();
    let mut more = 0_u64;
    for entry in std::fs::read_dir(dir)? {
        // What goes away meanwhile is not there.
        let Some(entry) = entry.ok().and_then(|entry| describe(root, &entry)) else { continue };
        if entries.len() < ENTRIES_MAX {
            entries.push(entry);
        } else {
            more += 1;
        }
    }
    entries.sort_by(|a, b| b.is_dir.cmp(&a.is_dir).then_with(|| a.name.cmp(&b.name)));
    Ok(reply::page(html(&String::from_utf8_lossy(path), &entries, more)))
}

/// What is served under this name; none for what is not.
fn describe(root: &Path, entry: &DirEntry) -> Option<Entry> {
    let path = entry.path();
    if entry.file_type().ok()?.is_symlink() && !path.canonicalize().ok()?.starts_with(root) {
        return None;
    }
    let metadata = path.metadata().ok()?;
    let is_dir = metadata.is_dir();
    let modified = Version::new(metadata.modified().ok(), 0).modified;
    (is_dir || metadata.is_file()).then(|| Entry {
        name: entry.file_name(),
        is_dir,
        len: metadata.len(),
        modified,
    })
}

fn html(path: &str, entries: &[Entry], more: u64) -> String {
    let path = escape(path);
    let mut rows = String::new();
    if path != "/" {
        rows.push_str("<tr><td><a href=\"../\">../</a></td><td></td><td></td></tr>\n");
    }
    for entry in entries {
        let slash = if entry.is_dir { "/" } else { "" };
        let link = percent_encode(entry.name.as_bytes(), IN_A_LINK);
        let name = escape(&entry.name.to_string_lossy());
        let size = if entry.is_dir { String::new() } else { entry.len.to_string() };
        let time = entry.modified.map(time).unwrap_or_default();
        // `./` lest a name with a colon in it be taken for a scheme.
        let _ = writeln!(
            rows,
            "<tr><td><a href=\"./{link}{slash}\">{name}{slash}</a></td><td>{size}</td><td>{time}</td></tr>"
        );
    }
    if more > 0 {
        let _ = writeln!(rows, "<tr><td>and {more} more</td><td></td><td></td></tr>");
    }
    format!("{HEAD}<title>{path}</title>\n{STYLE}<h1>{path}</h1>\n{TABLE}{rows}</table>\n")
}

/// `06 Nov 1994 08:49`, of `Sun, 06 Nov 1994 08:49:37 GMT`.
fn time(time: SystemTime) -> String {
    let full = httpdate::fmt_http_date(time);
    full.get(5..22).unwrap_or(&full).to_owned()
}

/// Everything but what is unreserved in a URL (RFC 3986 section 2.3).
const IN_A_LINK: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Entries on a page, at most.
const ENTRIES_MAX: usize = 10_000;

const HEAD: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
    <meta name=\"viewport\" content=\"width=device-width\">\n<link rel=\"icon\" href=\"data:,\">\n";
const STYLE: &str = "<style>\n:root { color-scheme: light dark; }\n\
    body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em; }\n\
    h1 { font-size: 1.2em; overflow-wrap: anywhere; }\ntable { border-collapse: collapse; width: 100%; }\n\
    th { text-align: left; }\n\
    td, th { border-bottom: 1px solid #8884; overflow-wrap: anywhere; padding: .15em .5em; }\n\
    td + td, th + th { font-variant-numeric: tabular-nums; text-align: right; white-space: nowrap; }\n\
    a { text-decoration: none; }\na:hover { text-decoration: underline; }\n</style>\n";
const TABLE: &str = "<table>\n<tr><th>name</th><th>bytes</th><th>modified (UTC)</th></tr>\n";

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn names_are_shown_and_linked_and_mean_nothing_else() {
        let entry = |name: &[u8], is_dir| Entry {
            name: OsStr::from_bytes(name).to_owned(),
            is_dir,
            len: 7,
            modified: Some(UNIX_EPOCH + Duration::from_secs(784_111_777)),
        };
        let entries = [
            entry(b"sub", true),
            entry(b"<script>alert(1)</script>", false),
            entry(b"a\" onclick='x", false),
            entry(b"javascript:alert(1)", false),
            entry(b"a b&c?d#e%41", false),
            entry(b"\xff\n", false),
        ];
        let page = html("/x<y>/", &entries, 3);
        for part in [
            "<title>/x&lt;y&gt;/</title>",
            "<a href=\"../\">../</a>",
            "<a href=\"./sub/\">sub/</a></td><td></td><td>06 Nov 1994 08:49</td>",
            "<a href=\"./%3Cscript%3Ealert%281%29%3C%2Fscript%3E\">&lt;script&gt;alert(1)&lt;/script&gt;</a>",
            "<a href=\"./a%22%20onclick%3D%27x\">a&quot; onclick=&#39;x</a></td><td>7</td>",
            "<a href=\"./javascript%3Aalert%281%29\">",
            "<a href=\"./a%20b%26c%3Fd%23e%2541\">a b&amp;c?d#e%41</a>",
            "<a href=\"./%FF%0A\">\u{fffd}\u{fffd}</a>",
            "and 3 more",
        ] {
            assert!(page.contains(part), "{part} is missing in {page}");
        }
        assert!(!page.contains("<script"), "{page}");
        assert!(!html("/", &[], 0).contains("../"));
    }
}
