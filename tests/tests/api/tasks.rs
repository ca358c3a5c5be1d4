//! The sockets of tasks, on a runtime of tokio with several threads.

use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, SocketAddr};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::thread;

use futures_util::future::poll_fn;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use wirestack::api::Shared;
use wirestack::blocking;
use wirestack::tokio::{Stack, TcpListener, TcpStream};

use crate::pair::{CLIENT, NOBODY, Pair, SERVER_V6, at_server, noise, sockets_len};

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

async fn connection(pair: &Pair) -> (TcpStream, TcpStream) {
    let listener = pair.server().listen(at_server(0)).expect("a listener");
    let address = listener.local_addr().expect("its address");
    let client = pair.client().connect(address).await.expect("a connection");
    let (server, _) = listener.accept().await.expect("a connection");
    (client, server)
}

/// Sends back what comes, on every connection.
fn serve_echo(listener: TcpListener) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.into_split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    })
}

/// What is closed is gone once the peer has agreed.
async fn until_sockets_are(stack: &Stack, count: usize) {
    while sockets_len(stack) != count {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_proxy_copies_both_ways() {
    let pair = Pair::new();
    runtime().block_on(async {
        let echo = pair.server().listen(at_server(7)).unwrap();
        serve_echo(echo);
        // On the other stack, and back.
        let proxy = pair.client().listen(SocketAddr::new(CLIENT, 8)).unwrap();
        let stack = pair.client().clone();
        let proxy = tokio::spawn(async move {
            let (mut near, _) = proxy.accept().await.unwrap();
            let mut far = stack.connect(at_server(7)).await.unwrap();
            tokio::io::copy_bidirectional(&mut near, &mut far).await
        });
        let stream = pair.server().connect(SocketAddr::new(CLIENT, 8)).await.unwrap();
        let data = noise(2 << 20);
        let (mut reader, mut writer) = stream.into_split();
        let sent = data.clone();
        let writing = tokio::spawn(async move { writer.write_all(&sent).await });
        let mut back = Vec::new();
        reader.read_to_end(&mut back).await.unwrap();
        writing.await.unwrap().unwrap();
        assert!(back == data);
        assert_eq!(proxy.await.unwrap().unwrap(), (data.len() as u64, data.len() as u64));
    });
}

#[test]
fn dropping_the_writing_half_finishes() {
    let pair = Pair::new();
    runtime().block_on(async {
        let (client, mut server) = connection(&pair).await;
        let (mut reader, mut writer) = client.into_split();
        writer.write_all(b"question").await.unwrap();
        drop(writer);
        let mut question = String::new();
        server.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question");
        server.write_all(b"answer").await.unwrap();
        server.shutdown().await.unwrap();
        let mut answer = String::new();
        reader.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
        // A connection that is no more can be shut down, as tokio's can.
        let kind = loop {
            server.shutdown().await.unwrap();
            // Until the last acknowledgment has come, it is one still.
            match server.shutdown_now(Shutdown::Write) {
                Ok(()) => tokio::task::yield_now().await,
                Err(error) => break error.kind(),
            }
        };
        assert_eq!(kind, ErrorKind::NotConnected);
        server.shutdown().await.unwrap();
    });
}

#[test]
fn a_read_that_is_dropped_takes_nothing() {
    let pair = Pair::new();
    runtime().block_on(async {
        let (mut client, mut server) = connection(&pair).await;
        let data = noise(300_000);
        // There is one that waited for nothing, at least.
        assert!(futures_util::poll!(pin!(server.read(&mut [0]))).is_pending());
        let sent = data.clone();
        let writing = tokio::spawn(async move {
            for piece in sent.chunks(997) {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let (mut got, mut room) = (Vec::new(), [0; 640]);
        while got.len() < data.len() {
            let once = futures_util::poll!(pin!(server.read(&mut room)));
            match once {
                Poll::Ready(len) => got.extend_from_slice(&room[..len.unwrap()]),
                Poll::Pending => tokio::task::yield_now().await,
            }
        }
        writing.await.unwrap();
        assert!(got == data);
    });
}

#[test]
fn what_is_given_up_leaves_nothing() {
    let pair = Pair::with(|config| config.dns.servers = vec![SocketAddr::new(NOBODY, 53)]);
    runtime().block_on(async {
        let stack = pair.client();
        let before = sockets_len(stack);
        let listener = stack.listen(SocketAddr::new(CLIENT, 9)).unwrap();
        for _ in 0..100 {
            assert!(futures_util::poll!(pin!(stack.connect(SocketAddr::new(NOBODY, 80)))).is_pending());
            assert!(futures_util::poll!(pin!(stack.lookup("example.org"))).is_pending());
            assert!(futures_util::poll!(pin!(stack.connect_to("example.org:80"))).is_pending());
            assert!(futures_util::poll!(pin!(listener.accept())).is_pending());
        }
        assert_eq!(sockets_len(stack), before + 1);
        // An accept that was given up has taken nobody.
        let peer = pair.server().connect(SocketAddr::new(CLIENT, 9)).await.unwrap();
        assert_eq!(listener.accept().await.unwrap().1, peer.local_addr().unwrap());
    });
}

#[test]
fn a_thousand_connections() {
    let pair = Pair::new();
    runtime().block_on(async {
        serve_echo(pair.server().listen(at_server(7)).unwrap());
        let tasks: Vec<_> = (0..1_000_u32)
            .map(|number| {
                let stack = pair.client().clone();
                tokio::spawn(async move {
                    let mut stream = stack.connect(at_server(7)).await?;
                    for round in 0..3_u32 {
                        let question = (number * 10 + round).to_be_bytes();
                        stream.write_all(&question).await?;
                        let mut answer = [0; 4];
                        stream.read_exact(&mut answer).await?;
                        assert_eq!(answer, question);
                    }
                    io::Result::Ok(())
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        until_sockets_are(pair.client(), 0).await;
        until_sockets_are(pair.server(), 1).await;
    });
}

/// No event comes when there is room for another socket: it is one that is closed here.
#[test]
fn a_full_stack_accepts_when_one_has_gone() {
    let pair = Pair::with(|config| config.sockets_max = 4);
    runtime().block_on(async {
        let listener = pair.server().listen(at_server(7)).unwrap();
        let (mut clients, mut servers) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            clients.push(pair.client().connect(at_server(7)).await.unwrap());
            if servers.len() < 3 {
                servers.push(listener.accept().await.unwrap().0);
            }
        }
        assert_eq!(sockets_len(pair.server()), 4);
        let full = pair.client().connect(at_server(7)).await;
        assert_eq!(full.unwrap_err().kind(), ErrorKind::QuotaExceeded);
        // It waits before there is room: a task of its own, which nobody polls but for its waker.
        let accepting = tokio::spawn(async move { listener.accept().await });
        for _ in 0..2_000 {
            assert!(!accepting.is_finished());
            tokio::task::yield_now().await;
        }
        drop(servers.pop());
        let (_, peer) = accepting.await.unwrap().unwrap();
        assert_eq!(peer, clients[3].local_addr().unwrap());
    });
}

#[test]
fn who_does_not_read_stops_the_writer() {
    let pair = Pair::new();
    runtime().block_on(async {
        let (client, mut server) = connection(&pair).await;
        let options = client.options().unwrap();
        let bound = (options.send_buffer_max + options.recv_buffer_max) as usize;
        let data = vec![7; 100_000];
        let (mut sent, mut idle) = (0, 0);
        // Nothing for a while, again and again: it has stopped.
        while idle < 2_000 {
            match futures_util::poll!(poll_fn(|context| client.poll_send(context, &data))) {
                Poll::Ready(len) => (sent, idle) = (sent + len.unwrap(), 0),
                Poll::Pending => {
                    idle += 1;
                    tokio::task::yield_now().await;
                }
            }
        }
        assert!((64_000..=bound).contains(&sent), "{sent} of at most {bound}");
        drop(client);
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.unwrap();
        assert_eq!(got.len(), sent);
    });
}

#[test]
fn a_runtime_that_goes_takes_its_connections_with_it() {
    let pair = Pair::new();
    let listener = pair.server().listen(at_server(7)).unwrap();
    let runtime = runtime();
    let _guard = runtime.enter();
    serve_echo(listener);
    drop(_guard);
    let clients: Vec<_> =
        (0..20).map(|_| blocking::TcpStream::connect_on(pair.client(), at_server(7)).unwrap()).collect();
    for mut client in &clients {
        use std::io::Write;
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
    drop(runtime);
    for mut client in &clients {
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
    while sockets_len(pair.server()) > 0 {
        thread::yield_now();
    }
}

#[test]
fn buffers_are_lent() {
    let pair = Pair::new();
    runtime().block_on(async {
        let (client, server) = connection(&pair).await;
        let written = client.send_with(|room| {
            room[..5].copy_from_slice(b"hello");
            5
        });
        assert_eq!(written.await.unwrap(), 5);
        assert_eq!(client.send_with(|_| 0).await.unwrap(), 0, "who writes nothing does not wait");
        assert_eq!(server.recv_with(|piece| (2, piece.to_vec())).await.unwrap(), b"hello");
        assert_eq!(server.recv_with(|piece| (piece.len(), piece.to_vec())).await.unwrap(), b"llo");
        // Given up, and the closure with it.
        assert!(futures_util::poll!(pin!(server.recv_with(|piece| (piece.len(), ())))).is_pending());
        client.shutdown_now(Shutdown::Write).unwrap();
        assert_eq!(server.recv_with(|piece| (0, piece.len())).await.unwrap(), 0);
        server.abort();
        let failed = client.recv_with(|piece| (0, piece.len())).await;
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(client.recv_with(|piece| (0, piece.len())).await.unwrap(), 0, "it was told");
        assert_eq!(client.send_with(|room| room.len()).await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_closure_that_panics_harms_nobody_else() {
    let pair = Pair::new();
    runtime().block_on(async {
        let (mut client, mut server) = connection(&pair).await;
        client.write_all(b"hello").await.unwrap();
        server.peek(&mut [0]).await.unwrap();
        let panicked = tokio::spawn(async move {
            let result = server.recv_with(|_| -> (usize, ()) { panic!("on purpose") }).await;
            drop(server.shutdown().await);
            result
        });
        assert!(panicked.await.unwrap_err().is_panic());
        // What it owned is closed, unread as it was; and the stack goes on.
        let error = client.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let (mut client, mut server) = connection(&pair).await;
        client.write_all(b"hello").await.unwrap();
        server.read_exact(&mut [0; 5]).await.unwrap();
    });
}

#[test]
fn datagrams_of_tasks() {
    let pair = Pair::new();
    runtime().block_on(async {
        let server = pair.server().udp_bind(SocketAddr::new(SERVER_V6, 53)).unwrap();
        let client = pair.client().udp_bind("[::]:0".parse().unwrap()).unwrap();
        assert!(futures_util::poll!(pin!(server.recv_from(&mut [0; 9]))).is_pending());
        client.connect_now(SocketAddr::new(SERVER_V6, 53)).unwrap();
        client.send(b"question").await.unwrap();
        let mut room = [0; 9];
        assert_eq!(server.peek_from(&mut room).await.unwrap().0, 8);
        let (len, from) = server.recv_from(&mut room).await.unwrap();
        assert_eq!((len, from), (8, client.local_addr().unwrap()));
        server.send_to(b"answer", from).await.unwrap();
        assert_eq!(client.recv(&mut room).await.unwrap(), 6);
    });
}

/// Many more than the device has room for: the sender waits, and does not spin or fail.
#[test]
fn a_flood_of_datagrams_waits_for_room() {
    let pair = Pair::new();
    runtime().block_on(async {
        let server = pair.server().udp_bind(at_server(9)).unwrap();
        let client = pair.client().udp_bind(SocketAddr::new(CLIENT, 0)).unwrap();
        let payload = vec![1; 60_000];
        for _ in 0..300 {
            assert_eq!(client.send_to(&payload, at_server(9)).await.unwrap(), payload.len());
        }
        let (len, _) = server.recv_from(&mut vec![0; 65_536]).await.unwrap();
        assert_eq!(len, payload.len());
    });
}

/// For whoever knows nothing of tokio.
#[test]
fn the_traits_of_futures_io() {
    use futures_util::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn talk(
        mut one: impl futures_util::io::AsyncWrite + Unpin,
        mut other: impl futures_util::io::AsyncRead + Unpin,
    ) -> io::Result<Vec<u8>> {
        one.write_all(b"hello ").await?;
        let pieces = [io::IoSlice::new(b"wo"), io::IoSlice::new(b"rld")];
        assert_eq!(one.write_vectored(&pieces).await?, 5);
        one.flush().await?;
        one.close().await?;
        let mut got = Vec::new();
        other.read_to_end(&mut got).await?;
        Ok(got)
    }

    let pair = Pair::new();
    runtime().block_on(async {
        let (client, server) = connection(&pair).await;
        assert_eq!(talk(client, server).await.unwrap(), b"hello world");
    });
}

/// A socket needs no runtime: whoever polls is woken.
#[test]
fn without_a_runtime() {
    fn is_tokio_io<T: AsyncRead + AsyncWrite + Send + Unpin>(_: &T) {}
    let pair = Pair::new();
    let listener = pair.server().listen(at_server(80)).unwrap();
    let client = blocking::TcpStream::connect_on(pair.client(), at_server(80)).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    let stream: wirestack::api::TcpStream<Shared> = loop {
        match listener.poll_accept(&mut context) {
            Poll::Ready(accepted) => break accepted.unwrap().0,
            Poll::Pending => thread::yield_now(),
        }
    };
    is_tokio_io(&stream);
    // What was made for tasks goes to a thread, and back.
    let stream = blocking::TcpStream::from(stream);
    assert_eq!(stream.as_async().local_addr().unwrap(), client.peer_addr().unwrap());
}
