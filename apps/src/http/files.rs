//! `--dir`: the files below a directory, and an index of those of its directories that have none.
//!
//! Nothing here waits for anything but the disk: it is called on a pool of threads, if there is one.

use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::body::SiteBody;
use super::conditions::{Version, Wanted};
use super::index;
use super::reply;

/// The files below a directory.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// Absolute, and without symbolic links.
    root: PathBuf,
}

/// What is asked of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// The path, percent-decoded; begins with a slash.
    pub(super) path: &'a [u8],
    /// The same as it was written.
    pub(super) written: &'a str,
    /// Preconditions and ranges.
    pub(super) headers: &'a HeaderMap,
    /// GET, not HEAD.
    pub(super) is_get: bool,
}

enum Found {
    File(File, Metadata, PathBuf),
    /// A directory without an index of its own.
    Directory(PathBuf),
    /// A directory, named without its slash: links on its page would lead elsewhere.
    WithoutSlash,
}

impl Files {
    /// # Errors
    /// It does not exist, is no directory, or cannot be read.
    pub(super) fn below(dir: &Path) -> io::Result<Self> {
        let root = dir.canonicalize()?;
        std::fs::read_dir(&root)?;
        Ok(Self { root })
    }

    /// The response to a request for a path, which may be anything.
    pub(super) fn answer(&self, asked: Asked<'_>) -> Response<SiteBody> {
        let answer = match self.find(asked.path) {
            Ok(Found::File(file, metadata, path)) => serve(file, &metadata, &path, asked),
            Ok(Found::Directory(path)) => index::page(&self.root, &path, asked.path),
            Ok(Found::WithoutSlash) => Ok(redirect(asked.written)),
            Err(error) => Err(error),
        };
        answer.unwrap_or_else(|error| {
            reply::bare(match error.kind() {
                io::ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => StatusCode::NOT_FOUND,
                io::ErrorKind::InvalidFilename => StatusCode::NOT_FOUND,
                _ if error.raw_os_error() == Some(Errno::ELOOP as i32) => StatusCode::NOT_FOUND,
                _ => {
                    log::warn!("{}: {error}", self.root.display());
                    StatusCode::INTERNAL_SERVER_ERROR
                }
            })
        })
    }

    fn find(&self, path: &[u8]) -> io::Result<Found> {
        let not_found = || io::Error::from(io::ErrorKind::NotFound);
        let relative = Path::new(OsStr::from_bytes(path.strip_prefix(b"/").ok_or_else(not_found)?));
        let is_plain = |component| matches!(component, Component::Normal(_) | Component::CurDir);
        if path.contains(&0) || !relative.components().all(is_plain) {
            return Err(not_found());
        }
        let mut found = self.resolve(&self.root.join(relative))?;
        let has_slash = path.ends_with(b"/");
        if found.is_dir() {
            if !has_slash {
                return Ok(Found::WithoutSlash);
            }
            match self.resolve(&found.join("index.html")) {
                Ok(index) => found = index,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Directory(found)),
                Err(error) => return Err(error),
            }
        } else if has_slash {
            return Err(not_found());
        }
        // A FIFO would be waited for until somebody writes to it, and a device may do anything.
        if !found.metadata()?.is_file() {
            return Err(not_found());
        }
        let flags = (OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW).bits();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&found)?;
        // It may be another one by now.
        let metadata = file.metadata()?;
        if metadata.is_file() { Ok(Found::File(file, metadata, found)) } else { Err(not_found()) }
    }

    /// A path without symbolic links. One may lead anywhere; what it leads to is served from below the root only.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let resolved = path.canonicalize()?;
        if resolved.starts_with(&self.root) { Ok(resolved) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

fn serve(
    mut file: File,
    metadata: &Metadata,
    path: &Path,
    asked: Asked<'_>,
) -> io::Result<Response<SiteBody>> {
    let len = metadata.len();
    let version = Version::new(metadata.modified().ok(), len);
    let wanted = version.wanted(asked.headers, asked.is_get, len);
    let (status, first, part_len) = match wanted {
        Wanted::Whole => (StatusCode::OK, 0, len),
        Wanted::Part { first, len } => (StatusCode::PARTIAL_CONTENT, first, len),
        Wanted::NotModified => (StatusCode::NOT_MODIFIED, 0, 0),
        Wanted::PreconditionFailed => return Ok(reply::bare(StatusCode::PRECONDITION_FAILED)),
        Wanted::Unsatisfiable => {
            let mut response = reply::bare(StatusCode::RANGE_NOT_SATISFIABLE);
            insert(response.headers_mut(), header::CONTENT_RANGE, &format!("bytes */{len}"));
            return Ok(response);
        }
    };
    let has_body = asked.is_get && status != StatusCode::NOT_MODIFIED;
    if has_body && first > 0 {
        file.seek(SeekFrom::Start(first))?;
    }
    let body = if has_body { SiteBody::file(file, part_len)? } else { SiteBody::empty() };
    let mut response = reply::response(status, body);
    let headers = response.headers_mut();
    insert(headers, header::ETAG, &version.etag);
    if let Some(modified) = version.modified {
        insert(headers, header::LAST_MODIFIED, &httpdate::fmt_http_date(modified));
    }
    if status == StatusCode::NOT_MODIFIED {
        return Ok(response);
    }
    insert(headers, header::CONTENT_TYPE, mime_guess::from_path(path).first_or_octet_stream().as_ref());
    insert(headers, header::ACCEPT_RANGES, "bytes");
    headers.insert(header::CONTENT_LENGTH, part_len.into());
    if status == StatusCode::PARTIAL_CONTENT {
        let last = first + part_len - 1;
        insert(headers, header::CONTENT_RANGE, &format!("bytes {first}-{last}/{len}"));
    }
    Ok(response)
}

/// To the same with a slash. The path does not begin with two of them, which would name another host.
fn redirect(written: &str) -> Response<SiteBody> {
    let mut response = reply::bare(StatusCode::MOVED_PERMANENTLY);
    insert(response.headers_mut(), header::LOCATION, &format!("{written}/"));
    response
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
