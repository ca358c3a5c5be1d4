use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use super::super::server::Ended;
use super::super::tls::{Tls, TlsAcceptor, serve};
use super::{Clock, Got, PEER, built_in, request, settle};
use crate::cli::TlsArgs;

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

fn self_signed() -> TlsAcceptor {
    let args = TlsArgs { tls: true, ..TlsArgs::default() };
    let tls = Tls::from_args(&args).expect("nothing is given").expect("TLS is wanted");
    tls.acceptor(&[ADDRESS, "fd00::7".parse().expect("an address")]).expect("a certificate")
}

fn client(
    root: CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(root).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).expect("versions");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

/// Fetches a page over TLS and gives the protocol that was agreed on.
async fn fetch(acceptor: TlsAcceptor, client: TlsConnector, name: IpAddr) -> Option<Vec<u8>> {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let server = tokio::spawn(async move {
        serve(Some(&acceptor), ours, PEER, built_in(), Clock::new(), std::future::pending()).await
    });
    let stream = client.connect(ServerName::from(name), theirs).await.expect("a handshake");
    let alpn = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    let response = if alpn.as_deref() == Some(b"h2") {
        let io = TokioIo::new(stream);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("a connection");
        tokio::spawn(connection);
        sender.send_request(request("GET", "https://h/plain", &[])).await
    } else {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a connection");
        tokio::spawn(connection);
        sender.send_request(request("GET", "/plain", &[])).await
    };
    assert_eq!(Got::of(response.expect("a response")).await.text(), "Hello, world\n");
    // A client that goes without a word is no error of HTTP, but one of TLS.
    assert!(matches!(server.await.expect("no panic"), Ended::Closed | Ended::Failed));
    alpn
}

#[tokio::test]
async fn versions_and_protocols() {
    let acceptor = self_signed();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (alpn, expected) in [
            (&[&b"h2"[..], b"http/1.1"][..], Some(&b"h2"[..])),
            (&[b"http/1.1"], Some(b"http/1.1")),
            (&[], None),
        ] {
            let client = client(acceptor.certificate.clone(), &[version], alpn);
            assert_eq!(fetch(acceptor.clone(), client, ADDRESS).await.as_deref(), expected);
        }
    }
    let all = client(acceptor.certificate.clone(), rustls::ALL_VERSIONS, &[]);
    fetch(acceptor, all, "fd00::7".parse().expect("an address")).await;
}

#[tokio::test]
async fn who_speaks_no_tls_or_never_ends_its_handshake_is_given_up() {
    let acceptor = self_signed();
    let (ours, mut theirs) = tokio::io::duplex(1_000);
    theirs.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.expect("sent");
    let served = serve(Some(&acceptor), ours, PEER, built_in(), Clock::new(), std::future::pending());
    assert_eq!(served.await, Ended::Failed);

    let (clock, stop) = (Clock::new(), watch::Sender::new(false));
    let begin = |clock: Clock| {
        let (ours, mut theirs) = tokio::io::duplex(1_000);
        let (acceptor, mut stop) = (acceptor.clone(), stop.subscribe());
        tokio::spawn(async move {
            theirs.write_all(b"\x16\x03\x01").await.expect("sent");
            let stopped = async { drop(stop.wait_for(|stop| *stop).await) };
            let ended = serve(Some(&acceptor), ours, PEER, built_in(), clock, stopped).await;
            drop(theirs);
            ended
        })
    };
    let (late, stopped) = (begin(clock.clone()), begin(Clock::new()));
    settle().await;
    clock.advance(9).await;
    assert!(!late.is_finished());
    clock.advance(1).await;
    assert_eq!(late.await.expect("no panic"), Ended::TimedOut);
    assert!(!stopped.is_finished());
    stop.send_replace(true);
    assert_eq!(stopped.await.expect("no panic"), Ended::Closed);
}

#[test]
fn a_fingerprint_is_that_of_the_certificate() {
    let acceptor = self_signed();
    assert!(acceptor.is_self_signed);
    assert_eq!(acceptor.fingerprint.len(), 32 * 3 - 1);
    assert!(acceptor.fingerprint.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F' | b':')));
    assert_ne!(acceptor.fingerprint, self_signed().fingerprint, "each has a key of its own");
}

struct Pair {
    cert: String,
    key: String,
}

fn pair() -> Pair {
    let made = rcgen::generate_simple_self_signed(vec![ADDRESS.to_string()]).expect("a certificate");
    Pair { cert: made.cert.pem(), key: made.signing_key.serialize_pem() }
}

fn from_files(cert: Option<PathBuf>, key: Option<PathBuf>) -> Result<Tls, String> {
    let args = TlsArgs { tls: false, cert, key };
    match Tls::from_args(&args) {
        Ok(tls) => Ok(tls.expect("TLS is wanted")),
        Err(error) => {
            assert_eq!((error.status, error.message.lines().count()), (2, 1), "{error:?}");
            Err(error.message)
        }
    }
}

#[tokio::test]
async fn files_of_a_certificate_and_its_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let pair = pair();
    // Text around the sections, and a second certificate behind the first, are usual.
    fs::write(&cert, format!("subject=x\n{}{}", pair.cert, super::tls::pair().cert)).expect("written");
    fs::write(&key, format!("{}\n{}", pair.cert, pair.key)).expect("written");
    let acceptor = from_files(Some(cert), Some(key)).expect("they go together").acceptor(&[]).expect("right");
    assert!(!acceptor.is_self_signed);
    let client = client(acceptor.certificate.clone(), rustls::ALL_VERSIONS, &[]);
    fetch(acceptor, client, ADDRESS).await;
}

#[test]
fn files_that_are_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("written");
        path
    };
    let (one, other) = (pair(), pair());
    let (cert, key) = (file("cert", &one.cert), file("key", &one.key));
    let missing = dir.path().join("missing");
    let cut: String = one.cert.lines().take(3).collect::<Vec<_>>().join("\n");
    let label = |text: &str| one.key.replace("PRIVATE KEY", text);
    let rubbish = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let no_base64 = "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n";
    let in_cert = "a PEM file with a certificate";
    let in_key = "a PEM file with an unencrypted private key";
    let cases: &[(&Path, &Path, &str, &[&str])] = &[
        (&missing, &key, "--cert", &["missing: No such file", in_cert]),
        (&cert, &missing, "--key", &["missing: No such file", in_key]),
        (dir.path(), &key, "--cert", &["Is a directory", in_cert]),
        (&file("empty", ""), &key, "--cert", &["there is no certificate in it", in_cert]),
        (&key, &key, "--cert", &["there is no certificate in it"]),
        (&cert, &cert, "--key", &["there is no such key in it", in_key]),
        (
            &cert,
            &file("encrypted", &label("ENCRYPTED PRIVATE KEY")),
            "--key",
            &["no such key", "unencrypted"],
        ),
        (&cert, &file("wrong kind", &label("RSA PRIVATE KEY")), "--key", &["of no kind that is known"]),
        (&cert, &file("other", &other.key), "--key", &["not the key of the certificate in", "/cert"]),
        (&file("cut", &cut), &key, "--cert", &["an END line is missing"]),
        (&file("rubbish", rubbish), &key, "--cert", &["the certificate is broken"]),
        (&file("no base64", no_base64), &key, "--cert", &["no base64"]),
        (&file("binary", "\u{0}\u{1}\u{2}"), &key, "--cert", &["there is no certificate in it"]),
    ];
    for (cert, key, flag, words) in cases {
        let message = from_files(Some(cert.to_path_buf()), Some(key.to_path_buf())).expect_err("wrong");
        let named = if *flag == "--cert" { cert } else { key };
        assert!(message.starts_with(&format!("{flag} {}: ", named.display())), "{message}");
        for word in *words {
            assert!(message.contains(word), "{word:?} is missing in {message:?}");
        }
    }
    assert!(from_files(Some(cert), None).expect_err("half").contains("--key FILE is to be given"));
    assert!(from_files(None, Some(key)).expect_err("half").contains("--cert FILE is to be given"));
    assert!(Tls::from_args(&TlsArgs::default()).expect("nothing is wanted").is_none());
}
