//! What is served: the files below a directory, or built-in pages.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::serve::Figures;

use super::response::{Body, Response};

/// A site, the same for all connections of a server.
#[derive(Debug)]
pub struct Site {
    content: Content,
    figures: Mutex<Figures>,
}

#[derive(Debug)]
enum Content {
    /// Files below this directory, which is absolute and has no symbolic links.
    Directory(PathBuf),
    /// `/`, `/plain`, `/counters` and `/bytes/N`.
    BuiltIn,
}

impl Site {
    /// The files below a directory.
    ///
    /// # Errors
    /// It does not exist, is no directory, or cannot be read.
    pub fn directory(dir: &Path) -> io::Result<Self> {
        let root = dir.canonicalize()?;
        std::fs::read_dir(&root)?;
        Ok(Self { content: Content::Directory(root), figures: Mutex::default() })
    }

    /// A welcome page, the counters of the stack, and as many bytes as somebody asks for.
    pub fn built_in() -> Self {
        Self { content: Content::BuiltIn, figures: Mutex::default() }
    }

    /// Takes the latest figures, for the page that shows them.
    pub(super) fn observe(&self, figures: &Figures) {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).clone_from(figures);
    }

    /// The response to a request for this path, which is decoded and may be anything.
    pub(super) fn answer(&self, path: &[u8]) -> Response {
        match &self.content {
            Content::Directory(root) => serve_file(root, path),
            Content::BuiltIn => self.serve_built_in(path),
        }
    }

    fn serve_built_in(&self, path: &[u8]) -> Response {
        let figures = || self.figures.lock().unwrap_or_else(PoisonError::into_inner).to_json();
        match path {
            b"/" => Response::text(200, WELCOME),
            b"/plain" => Response::text(200, PLAIN),
            b"/counters" => Response {
                content_type: "application/json".to_owned(),
                ..Response::text(200, format!("{:#}\n", figures()))
            },
            _ => {
                let count = path.strip_prefix(b"/bytes/").and_then(|digits| std::str::from_utf8(digits).ok());
                match count.and_then(|digits| digits.parse::<u64>().ok()) {
                    Some(count) if count <= BYTES_MAX => Response {
                        status: 200,
                        content_type: "application/octet-stream".to_owned(),
                        body: Body::Pattern(count),
                    },
                    _ => Response::bare(404),
                }
            }
        }
    }
}

fn serve_file(root: &Path, path: &[u8]) -> Response {
    match open_below(root, path) {
        Ok((file, len, found)) => {
            let content_type = mime_guess::from_path(found).first_or_octet_stream().to_string();
            Response { status: 200, content_type, body: Body::File(file, len) }
        }
        Err(error) => Response::bare(match error.kind() {
            io::ErrorKind::PermissionDenied => 403,
            _ => 404,
        }),
    }
}

/// Opens the file that a path of a URL names, or `index.html` of a directory that it names.
fn open_below(root: &Path, path: &[u8]) -> io::Result<(File, u64, PathBuf)> {
    let relative = Path::new(OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path)));
    let is_plain = |component| matches!(component, Component::Normal(_) | Component::CurDir);
    if path.contains(&0) || !relative.components().all(is_plain) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut found = root.join(relative).canonicalize()?;
    if found.is_dir() {
        found = found.join("index.html").canonicalize()?;
    }
    // A symbolic link may lead anywhere; what it leads to is served only from below the root.
    if !found.starts_with(root) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let metadata = found.metadata()?;
    if !metadata.is_file() {
        // Opening a FIFO would stop the server until somebody writes to it.
        return Err(io::ErrorKind::NotFound.into());
    }
    let file = File::open(&found)?;
    Ok((file, metadata.len(), found))
}

/// Bytes that `/bytes/N` serves, at most: 1 TiB.
pub(super) const BYTES_MAX: u64 = 1 << 40;

/// The page of a benchmark: 13 bytes.
pub(super) const PLAIN: &str = "Hello, world\n";

/// The first page.
pub(super) const WELCOME: &str = "\
This page was served by wirestack: TCP, IP and ARP ran in a program of their own, over raw
frames from a memory-mapped ring. The kernel of that end knows nothing of this connection.

  /counters   what the stack and its device have counted, as JSON
  /bytes/N    N bytes
  /plain      13 bytes
";

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn body(response: &mut Response) -> String {
        let mut bytes = vec![0; usize::try_from(response.body.len()).expect("small")];
        let read = response.body.read_at(0, &mut bytes).expect("readable");
        String::from_utf8_lossy(&bytes[..read]).into_owned()
    }

    #[test]
    fn files_below_the_root_are_served_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("sub")).expect("created");
        std::fs::write(root.join("a b.txt"), "text").expect("written");
        std::fs::write(root.join("sub/index.html"), "index").expect("written");
        std::fs::write(dir.path().join("secret"), "secret").expect("written");
        symlink("../secret", root.join("out")).expect("linked");
        symlink("a b.txt", root.join("in")).expect("linked");
        nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("made");
        let site = Site::directory(&root).expect("a directory");

        for (path, content, kind) in [
            (&b"/a b.txt"[..], "text", "text/plain"),
            (b"/sub", "index", "text/html"),
            (b"/sub/", "index", "text/html"),
            (b"/./sub/./index.html", "index", "text/html"),
            (b"/in", "text", "text/plain"),
        ] {
            let mut response = site.answer(path);
            assert_eq!((response.status, response.content_type.as_str()), (200, kind));
            assert_eq!(body(&mut response), content);
        }
        for path in [
            &b"/"[..],
            b"/none",
            b"/../secret",
            b"/sub/../../secret",
            b"/out",
            b"/fifo",
            b"//etc/passwd",
            b"/a\0b",
            b"/\xff",
        ] {
            assert_eq!(site.answer(path).status, 404, "{path:?}");
        }
    }

    #[test]
    fn a_directory_must_be_one() {
        assert!(Site::directory(Path::new("/nonexistent/dir")).is_err());
        assert!(Site::directory(Path::new("/proc/self/status")).is_err());
    }

    #[test]
    fn built_in_pages() {
        let site = Site::built_in();
        assert!(body(&mut site.answer(b"/")).contains("wirestack"));
        assert!(body(&mut site.answer(b"/counters")).contains("\"rx_frames\": 0"));
        assert_eq!(site.answer(b"/bytes/300").body.len(), 300);
        assert_eq!(body(&mut site.answer(b"/plain")), "Hello, world\n");
        for path in [&b"/bytes/"[..], b"/bytes/-1", b"/bytes/x", b"/bytes/1099511627777", b"/none"] {
            assert_eq!(site.answer(path).status, 404, "{path:?}");
        }
    }
}
