//! `--tls`: TLS 1.2 and 1.3 through rustls, with the files of `--cert` and `--key`, or a certificate of our own.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::{Either, select};
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{InconsistentKeys, ServerConfig, sign::CertifiedKey};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::server::TlsStream;

use super::server::{BoxError, Ended, Timer, serve_connection};
use crate::cli::TlsArgs;
use crate::error::AppError;

/// Who the server says it is.
#[derive(Debug)]
pub struct Tls {
    given: Option<CertifiedKey>,
}

/// What [`Tls::acceptor`] makes.
#[derive(Clone)]
pub struct TlsAcceptor {
    acceptor: tokio_rustls::TlsAcceptor,
    /// SHA-256 of the certificate, as `AB:CD:…`: what `openssl x509 -fingerprint -sha256` prints, and browsers show.
    pub fingerprint: String,
    /// The server's own certificate.
    pub certificate: CertificateDer<'static>,
    /// Whether we have made the certificate: nobody but who compares the fingerprint knows it.
    pub is_self_signed: bool,
}

impl Tls {
    /// Reads and checks what the flags name; none without any of them.
    ///
    /// # Errors
    /// A file cannot be read, holds no certificate or key, or the two do not go together. One line.
    pub fn from_args(args: &TlsArgs) -> Result<Option<Self>, AppError> {
        let given = match (&args.cert, &args.key) {
            (None, None) if args.tls => None,
            (None, None) => return Ok(None),
            (Some(cert), Some(key)) => Some(read(cert, key)?),
            (Some(cert), None) => {
                let problem = "its private key is missing; --key FILE is to be given as well";
                return Err(AppError::flag("--cert", cert.display(), problem));
            }
            (None, Some(key)) => {
                let problem = "its certificate is missing; --cert FILE is to be given as well";
                return Err(AppError::flag("--key", key.display(), problem));
            }
        };
        Ok(Some(Self { given }))
    }

    /// What connections are accepted with. A certificate of our own is made for these addresses of the stack.
    ///
    /// # Errors
    /// No certificate can be made. One line.
    pub fn acceptor(self, addresses: &[IpAddr]) -> Result<TlsAcceptor, AppError> {
        let is_self_signed = self.given.is_none();
        let key = match self.given {
            Some(key) => key,
            None => {
                self_signed(addresses).map_err(|error| AppError::running(format_args!("--tls: {error}")))?
            }
        };
        let certificate = key.cert.first().cloned().unwrap_or_else(|| Vec::new().into());
        let fingerprint = fingerprint(&certificate);
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config(key)?));
        Ok(TlsAcceptor { acceptor, fingerprint, certificate, is_self_signed })
    }
}

impl TlsAcceptor {
    /// Makes a stream of a connection. Whoever does not finish the handshake in 10 seconds is given up.
    ///
    /// # Errors
    /// The peer speaks no TLS, or none that we accept, or goes away, or takes too long.
    pub async fn accept<IO>(&self, io: IO, timer: &impl Timer) -> io::Result<TlsStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        match select(self.acceptor.accept(io), pin!(timer.sleep(HANDSHAKE_TIMEOUT))).await {
            Either::Left((stream, _)) => stream,
            Either::Right(((), _)) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// [`serve_connection`], with TLS below it or without.
pub async fn serve<IO, S, B, T>(
    tls: Option<&TlsAcceptor>,
    io: IO,
    peer: SocketAddr,
    service: S,
    timer: T,
    stop: impl Future<Output = ()>,
) -> Ended
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    T: Timer,
{
    let Some(tls) = tls else { return serve_connection(io, peer, service, timer, stop).await };
    let mut stop = pin!(stop);
    let stream = match select(pin!(tls.accept(io, &timer)), stop.as_mut()).await {
        Either::Left((stream, _)) => stream,
        Either::Right(((), _)) => return Ended::Closed,
    };
    match stream {
        Ok(stream) => serve_connection(stream, peer, service, timer, stop).await,
        Err(error) => {
            log::debug!("{peer}: handshake: {error}");
            if error.kind() == io::ErrorKind::TimedOut { Ended::TimedOut } else { Ended::Failed }
        }
    }
}

impl fmt::Debug for TlsAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsAcceptor").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

fn config(key: CertifiedKey) -> Result<ServerConfig, AppError> {
    let failed = |error: rustls::Error| AppError::running(format_args!("--tls: {error}"));
    let builder = ServerConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions().map_err(failed)?;
    let resolver = rustls::sign::SingleCertAndKey::from(key);
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = ring::Ticketer::new().map_err(failed)?;
    Ok(config)
}

/// A provider of our own choice: that of the process may be another one, or none.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn read(cert: &Path, key: &Path) -> Result<CertifiedKey, AppError> {
    let wrong_cert = |problem: &dyn fmt::Display| {
        let problem = format_args!("{problem}; a PEM file with a certificate and its chain is accepted");
        AppError::flag("--cert", cert.display(), problem)
    };
    let wrong_key = |problem: &dyn fmt::Display| {
        let accepted = "a PEM file with an unencrypted private key (PKCS#8, PKCS#1 or SEC1) is accepted";
        AppError::flag("--key", key.display(), format_args!("{problem}; {accepted}"))
    };
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong_cert(&Problem(&error)))?;
    if chain.is_empty() {
        return Err(wrong_cert(&"there is no certificate in it"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
        pem::Error::NoItemsFound => wrong_key(&"there is no such key in it"),
        error => wrong_key(&Problem(&error)),
    })?;
    let unusable = |error: &rustls::Error| {
        wrong_key(&format_args!("the key is of no kind that is known ({})", first_line(error)))
    };
    let signing = provider().key_provider.load_private_key(private).map_err(|error| unusable(&error))?;
    let certified = CertifiedKey::new(chain, signing);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => Err(wrong_key(&format_args!(
            "it is not the key of the certificate in {} (the first of a chain is the server's own)",
            cert.display()
        ))),
        Err(error) => Err(wrong_cert(&format_args!("the certificate is broken ({})", first_line(&error)))),
    }
}

fn first_line(error: &dyn fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// What is wrong with a PEM file.
struct Problem<'a>(&'a pem::Error);

impl fmt::Display for Problem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            pem::Error::Io(error) => write!(f, "{error}"),
            pem::Error::Base64Decode(_) => {
                f.write_str("what is between its BEGIN and END lines is no base64")
            }
            pem::Error::MissingSectionEnd { .. } => f.write_str("an END line is missing in it"),
            _ => f.write_str("it is no PEM file"),
        }
    }
}

/// A certificate for a year, for who has none: it encrypts, and says nothing about who we are.
fn self_signed(addresses: &[IpAddr]) -> Result<CertifiedKey, Box<dyn std::error::Error>> {
    let names: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "wirestack");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = SystemTime::now();
    // The clock of a peer may be slow.
    params.not_before = (now - DAY).into();
    params.not_after = (now + 365 * DAY).into();
    let key = KeyPair::generate()?;
    let cert = params.self_signed(&key)?;
    let private = PrivateKeyDer::try_from(key.serialize_der())?;
    let signing = provider().key_provider.load_private_key(private)?;
    Ok(CertifiedKey::new(vec![cert.der().clone()], signing))
}

fn fingerprint(cert: &CertificateDer<'static>) -> String {
    let bytes: Vec<_> = Sha256::digest(cert).iter().map(|byte| format!("{byte:02X}")).collect();
    bytes.join(":")
}

const DAY: Duration = Duration::from_secs(86_400);
/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
