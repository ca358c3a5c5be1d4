//! What others have written for tokio's traits, unchanged.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use wirestack::tokio::TcpStream;

use crate::pair::{Pair, at_server, config, devices, launch, noise};

const BODY_LEN: usize = 300_000;

/// What was asked, and a long body.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let question = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body = [&question[..], &noise(BODY_LEN)].concat();
    Ok(Response::new(Full::new(body.into())))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

async fn connection(pair: &Pair) -> (TcpStream, TcpStream) {
    let listener = pair.server().listen(at_server(80)).expect("a listener");
    let client = pair.client().connect(at_server(80)).await.expect("a connection");
    let (server, _) = listener.accept().await.expect("a connection");
    (client, server)
}

fn request(number: u8) -> Request<Full<Bytes>> {
    let body = Full::new(vec![number; 1_000].into());
    Request::post("http://server/").header("host", "server").body(body).expect("a request")
}

async fn check(number: u8, response: Response<Incoming>) {
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    assert!(body[..1_000] == [number; 1_000] && body[1_000..] == noise(BODY_LEN));
}

#[test]
fn http1() {
    let pair = Pair::new();
    runtime().block_on(async {
        let (client, server) = connection(&pair).await;
        let server = tokio::spawn(
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(server), service_fn(answer)),
        );
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(client)).await.expect("a handshake");
        tokio::spawn(connection);
        for number in 0..5 {
            sender.ready().await.expect("the answer before was read");
            let response = sender.send_request(request(number)).await.expect("an answer");
            check(number, response).await;
        }
        drop(sender);
        server.await.unwrap().expect("it ends in good order");
    });
}

#[test]
fn http2_with_many_at_once() {
    let pair = Pair::new();
    runtime().block_on(async {
        let (client, server) = connection(&pair).await;
        let server = tokio::spawn(
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(server), service_fn(answer)),
        );
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client))
                .await
                .expect("a handshake");
        tokio::spawn(connection);
        let requests = (0..20).map(|number| {
            let mut sender = sender.clone();
            tokio::spawn(async move {
                let response = sender.send_request(request(number)).await.expect("an answer");
                check(number, response).await;
            })
        });
        for request in requests.collect::<Vec<_>>() {
            request.await.unwrap();
        }
        drop(sender);
        server.await.unwrap().expect("it ends in good order");
    });
}

/// The shared-nothing form: hyper asks for no `Send`.
#[test]
fn http1_on_the_thread_of_the_shard() {
    let (one, other) = devices();
    let client = launch(config(2), other);
    let server = std::thread::spawn(move || {
        let mut runtime = wirestack::local::Runtime::new(one, config(1)).expect("a runtime");
        let listener = runtime.stack().listen(at_server(80)).expect("a listener");
        runtime.block_on(async {
            let (stream, _) = listener.accept().await.expect("a connection");
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer))
                .await
        })
    });
    runtime().block_on(async {
        let stream = client.stack().connect(at_server(80)).await.expect("a connection");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a handshake");
        tokio::spawn(connection);
        let response = sender.send_request(request(1)).await.expect("an answer");
        check(1, response).await;
    });
    server.join().unwrap().expect("the interface stays").expect("it ends in good order");
}

#[test]
fn tls() {
    let issued = rcgen::generate_simple_self_signed(["server".to_owned()]).expect("a certificate");
    let certificate = issued.cert.der().clone();
    let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).expect("a key");
    let server_config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .expect("a server");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).expect("a root");
    let client_config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();

    let pair = Pair::new();
    runtime().block_on(async {
        let (client, server) = connection(&pair).await;
        let server = tokio::spawn(async move {
            let mut stream = TlsAcceptor::from(Arc::new(server_config)).accept(server).await?;
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await?;
            stream.write_all(&got).await?;
            stream.shutdown().await
        });
        let name = ServerName::try_from("server").expect("a name");
        let mut stream =
            TlsConnector::from(Arc::new(client_config)).connect(name, client).await.expect("a handshake");
        let data = noise(200_000);
        stream.write_all(&data).await.expect("it is sent");
        stream.shutdown().await.expect("the end");
        let mut back = Vec::new();
        stream.read_to_end(&mut back).await.expect("it comes back");
        assert!(back == data);
        server.await.unwrap().expect("it ends in good order");
    });
}
