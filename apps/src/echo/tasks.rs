//! Echo in tasks: of tokio on sockets that are shared, or of the shard's own thread.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wirestack::api::{Access, TcpStream, UdpSocket};

use crate::accept::Place;

/// Sends back what comes; when the peer has finished and everything is sent back, finishes as well.
pub async fn stream<A: Access>(mut stream: TcpStream<A>, _place: Place) {
    let mut room = vec![0; ROOM_BYTES];
    while let Ok(len @ 1..) = stream.read(&mut room).await {
        if stream.write_all(&room[..len]).await.is_err() {
            return;
        }
    }
}

/// Sends every datagram back, but for those of our own port: two echo services would never end.
///
/// # Errors
/// [`NetworkDown`](io::ErrorKind::NetworkDown): the stack has ended.
pub async fn datagrams<A: Access>(socket: UdpSocket<A>, port: u16) -> io::Result<()> {
    let mut room = vec![0; 65_535];
    loop {
        match socket.recv_from(&mut room).await {
            // Who cannot be answered does not stop the others.
            Ok((len, from)) if from.port() != port => drop(socket.send_to(&room[..len], from).await),
            Err(error) if error.kind() == io::ErrorKind::NetworkDown => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
}

/// Bytes that are moved at once.
const ROOM_BYTES: usize = 16 << 10;
