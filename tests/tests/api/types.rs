//! What the compiler is to know of the handles.

use std::net::{TcpListener, TcpStream, UdpSocket};

use wirestack::api::{Sleep, local};
use wirestack::{blocking, tokio};

fn is_for_threads<T: Send + Sync + Unpin + std::fmt::Debug + 'static>() {}
fn is_unpin<T: Unpin + std::fmt::Debug + 'static>() {}
fn is_send<T: Send>(_: T) {}

#[test]
fn shared_handles_go_to_other_threads() {
    is_for_threads::<tokio::Stack>();
    is_for_threads::<tokio::TcpListener>();
    is_for_threads::<tokio::TcpStream>();
    is_for_threads::<tokio::OwnedReadHalf>();
    is_for_threads::<tokio::OwnedWriteHalf>();
    is_for_threads::<tokio::UdpSocket>();
    is_for_threads::<Sleep<wirestack::api::Shared>>();
    is_for_threads::<blocking::TcpListener>();
    is_for_threads::<blocking::TcpStream>();
    is_for_threads::<blocking::UdpSocket>();
    is_for_threads::<wirestack::driver::Driver>();
    is_unpin::<local::TcpStream>();
    is_unpin::<local::TcpListener>();
    is_unpin::<local::UdpSocket>();
}

/// As std's are.
#[test]
fn std_has_the_same() {
    is_for_threads::<TcpListener>();
    is_for_threads::<TcpStream>();
    is_for_threads::<UdpSocket>();
}

/// Whatever is spawned on a runtime of threads has to be.
#[test]
fn futures_of_shared_handles_are_send() {
    fn futures(stack: &tokio::Stack, listener: &tokio::TcpListener, stream: &tokio::TcpStream) {
        is_send(stack.connect_to("name:80"));
        is_send(stack.connect_any(&[]));
        is_send(stack.lookup("name"));
        is_send(stack.wait_for_addresses(&[], wirestack::smoltcp::time::Duration::ZERO));
        is_send(listener.accept());
        is_send(stream.peek(&mut []));
        is_send(stream.recv_with(|piece| (piece.len(), ())));
        is_send(stream.send_with(|room| room.len()));
        is_send(tokio::TcpStream::connect("name:80"));
        is_send(tokio::TcpListener::bind("name:80"));
    }
    let _ = futures;
}
