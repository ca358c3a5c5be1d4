use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use tempfile::TempDir;

use super::super::service::{SiteConfig, SiteService, service};
use super::{ask, built_in};
use crate::http::Site;
use crate::http::response::pattern_byte;

const LEN: usize = 300_000;

fn site_of(dir: &Path) -> SiteService {
    let config = SiteConfig { dir: Some(dir.to_owned()) };
    service(&config, Some(std::sync::Arc::new(|| serde_json::json!({})))).expect("a directory")
}

/// `root` in a directory of its own, with a secret beside it.
fn tree() -> (TempDir, SiteService) {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("sub/deeper")).expect("created");
    fs::create_dir_all(root.join("page")).expect("created");
    let large: Vec<u8> = (0..LEN as u64).map(pattern_byte).collect();
    for (name, text) in [
        ("a b.txt", &b"text"[..]),
        ("large.bin", &large),
        ("empty", b""),
        ("page/index.html", b"index"),
        ("sub/<b>&.txt", b"1234567"),
        ("../secret", b"secret"),
    ] {
        fs::write(root.join(name), text).expect("written");
    }
    for (target, link) in
        [("../secret", "out"), ("a b.txt", "in"), ("..", "up"), ("loop", "loop"), ("sub", "linked")]
    {
        symlink(target, root.join(link)).expect("linked");
    }
    nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    let site = site_of(&root);
    (dir, site)
}

#[tokio::test]
async fn files_below_the_root_are_served_and_nothing_else() {
    let (_dir, site) = tree();
    for (target, kind, body) in [
        ("/a%20b.txt", "text/plain", &b"text"[..]),
        ("/a%20b.txt?x=1", "text/plain", b"text"),
        ("/in", "text/plain", b"text"),
        ("/page/", "text/html", b"index"),
        ("/page/index.html", "text/html", b"index"),
        ("/./sub/./%3Cb%3E&.txt", "text/plain", b"1234567"),
        ("/empty", "application/octet-stream", b""),
    ] {
        let got = ask(&site, "GET", target, &[]).await;
        assert_eq!((got.status.as_u16(), got.body.as_slice()), (200, body), "{target}");
        assert_eq!(got.header("content-length"), body.len().to_string());
        // The link has no ending, but what it leads to has one.
        assert_eq!(got.header("content-type"), kind, "{target}");
    }
    let got = ask(&site, "GET", "/large.bin", &[]).await;
    assert!(got.body.iter().copied().eq((0..LEN as u64).map(pattern_byte)), "{} bytes", got.body.len());
    for target in [
        "/none",
        "/../secret",
        "/%2e%2e/secret",
        "/sub/..%2f../secret",
        "/sub/../../secret",
        "/out",
        "/up/",
        "/up/secret",
        "/loop",
        "/fifo",
        "//etc/passwd",
        "/%2fetc/passwd",
        "/a%00b",
        "/%ff",
        "/empty/",
        "/empty/x",
        "/plain",
    ] {
        assert_eq!(ask(&site, "GET", target, &[]).await.status.as_u16(), 404, "{target}");
    }
    let long = format!("/{}", "x".repeat(5_000));
    assert_eq!(ask(&site, "GET", &long, &[]).await.status.as_u16(), 404);
    assert_eq!(ask(&site, "GET", "/status.json", &[]).await.text(), "{}\n");
}

#[tokio::test]
async fn ranges() {
    let (_dir, site) = tree();
    for (range, first, len) in [
        ("bytes=0-9", 0, 10),
        ("bytes=131000-131200", 131_000, 201),
        ("bytes=-5", LEN - 5, 5),
        ("bytes=131072-", 131_072, LEN - 131_072),
    ] {
        let got = ask(&site, "GET", "/large.bin", &[("range", range)]).await;
        assert_eq!(got.status.as_u16(), 206, "{range}");
        assert_eq!(got.header("content-length"), len.to_string());
        assert_eq!(got.header("content-range"), format!("bytes {first}-{}/{LEN}", first + len - 1));
        assert!(
            got.body.iter().copied().eq((first..first + len).map(|at| pattern_byte(at as u64))),
            "{range}"
        );
    }
    let got = ask(&site, "GET", "/large.bin", &[("range", "bytes=300000-")]).await;
    assert_eq!((got.status.as_u16(), got.header("content-range")), (416, "bytes */300000"));
    // The version that somebody has a part of is not the one that we have.
    let fields = [("range", "bytes=0-9"), ("if-range", "\"other\"")];
    assert_eq!(ask(&site, "GET", "/large.bin", &fields).await.body.len(), LEN);
    let whole = ask(&site, "HEAD", "/large.bin", &[("range", "bytes=0-9")]).await;
    assert_eq!((whole.status.as_u16(), whole.header("content-length")), (200, "300000"));
    assert_eq!((whole.header("accept-ranges"), whole.body.len()), ("bytes", 0));
}

#[tokio::test]
async fn who_has_it_already_is_told_so() {
    let (_dir, site) = tree();
    let got = ask(&site, "GET", "/a%20b.txt", &[]).await;
    let (etag, modified) = (got.header("etag"), got.header("last-modified"));
    for (fields, status, len) in [
        (&[("if-none-match", etag)][..], 304, 0),
        (&[("if-modified-since", modified)], 304, 0),
        (&[("if-none-match", "\"x\"")], 200, 4),
        (&[("if-match", "\"x\"")], 412, 24),
        (&[("if-unmodified-since", "Sun, 06 Nov 1994 08:49:37 GMT")], 412, 24),
        (&[("range", "bytes=1-2"), ("if-range", etag)], 206, 2),
    ] {
        let got = ask(&site, "GET", "/a%20b.txt", fields).await;
        assert_eq!((got.status.as_u16(), got.body.len()), (status, len), "{fields:?}: {got:?}");
    }
    assert_eq!(ask(&site, "HEAD", "/a%20b.txt", &[("if-none-match", etag)]).await.status.as_u16(), 304);
}

#[tokio::test]
async fn a_file_may_be_older_than_its_time() {
    let (dir, site) = tree();
    let file = fs::File::options().write(true).open(dir.path().join("root/a b.txt")).expect("opened");
    file.set_modified(UNIX_EPOCH - Duration::from_secs(86_400)).expect("set");
    let got = ask(&site, "GET", "/a%20b.txt", &[]).await;
    assert_eq!((got.status.as_u16(), got.text(), got.header("last-modified")), (200, "text", ""));
    assert_eq!(ask(&site, "GET", "/", &[]).await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_directory_has_a_page() {
    let (_dir, site) = tree();
    let got = ask(&site, "GET", "/", &[]).await;
    assert_eq!((got.status.as_u16(), got.header("content-type")), (200, "text/html; charset=utf-8"));
    for part in ["./a%20b.txt", "./sub/", "./page/", "./linked/", "./in", ">300000<"] {
        assert!(got.text().contains(part), "{part} is missing: {}", got.text());
    }
    for part in ["fifo", "out", "./up", "loop", "secret"] {
        assert!(!got.text().contains(part), "{part}: {}", got.text());
    }
    let got = ask(&site, "GET", "/sub/", &[]).await;
    assert!(got.text().contains("<a href=\"./%3Cb%3E%26.txt\">&lt;b&gt;&amp;.txt</a></td><td>7</td>"));
    let head = ask(&site, "HEAD", "/sub/", &[]).await;
    assert_eq!((head.header("content-length"), head.body.len()), (got.body.len().to_string().as_str(), 0));
    let got = ask(&site, "GET", "/sub?x", &[]).await;
    assert_eq!((got.status.as_u16(), got.header("location")), (301, "/sub/"));
}

#[tokio::test]
async fn what_may_not_be_read_is_forbidden() {
    let (dir, site) = tree();
    let file = dir.path().join("root/a b.txt");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).expect("set");
    // Root may read everything.
    let expected = if fs::File::open(&file).is_ok() { 200 } else { 403 };
    assert_eq!(ask(&site, "GET", "/a%20b.txt", &[]).await.status.as_u16(), expected);
}

#[test]
fn a_directory_must_be_one() {
    for (dir, problem) in [("/no/such/dir", "No such file"), ("/proc/self/status", "Not a directory")] {
        let config = SiteConfig { dir: Some(dir.into()) };
        let error = service(&config, None).expect_err("none");
        assert_eq!((error.status, error.message.lines().count()), (2, 1));
        assert!(error.message.starts_with(&format!("--dir {dir}: {problem}")), "{}", error.message);
    }
}

#[tokio::test]
async fn built_in_pages_are_those_of_the_server_on_events() {
    let site = service(&SiteConfig::default(), None).expect("nothing can be wrong");
    let events = Site::built_in();
    for path in
        ["/", "/plain", "/bytes/300", "/bytes/0", "/none", "/bytes/-1", "/bytes/1099511627777", "/status"]
    {
        let mut expected = events.answer(path.as_bytes());
        let mut body = vec![0; usize::try_from(expected.body.len()).expect("small")];
        let read = expected.body.read_at(0, &mut body).expect("read");
        let got = ask(&site, "GET", path, &[]).await;
        assert_eq!((got.status.as_u16(), &got.body), (expected.status, &body[..read].to_vec()), "{path}");
        assert_eq!(got.header("content-type"), expected.content_type, "{path}");
    }
    assert_eq!(ask(&site, "GET", "/plain", &[]).await.body.len(), 13);
    assert_eq!(ask(&built_in(), "GET", "/counters", &[]).await.text(), "{\n  \"rx_frames\": 7\n}\n");
    let page = ask(&built_in(), "GET", "/status", &[]).await;
    assert!(page.text().contains("\"remote\":\"192.0.2.1:5000\""), "{}", page.text());
    assert!(page.header("content-security-policy").contains("default-src 'none'"));
    for method in ["POST", "PUT", "OPTIONS", "DELETE", "x"] {
        let got = ask(&site, method, "/", &[]).await;
        assert_eq!((got.status.as_u16(), got.header("allow")), (405, "GET, HEAD"), "{method}");
    }
    assert_eq!(ask(&site, "GET", "/", &[("host", "i")]).await.status.as_u16(), 400);
}
