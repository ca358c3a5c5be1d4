//! Echo in tasks: of tokio on sockets that are shared, or of the shard's own thread.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wirestack::api::{Access, TcpListener, TcpStream, UdpSocket};

/// Accepts connections until the stack has ended, and lets `spawn` run [`stream`] for each. While there are `tasks_max` of them,
/// others wait at the listener.
///
/// # Errors
/// [`NetworkDown`](io::ErrorKind::NetworkDown): the stack has ended.
pub async fn streams<A: Access>(
    listener: TcpListener<A>,
    tasks_max: usize,
    spawn: impl Fn(TcpStream<A>, OwnedSemaphorePermit),
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(tasks_max.clamp(1, Semaphore::MAX_PERMITS)));
    loop {
        // It is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        let (stream, _) = listener.accept().await?;
        spawn(stream, place);
    }
}

/// Sends back what comes; when the peer has finished and everything is sent back, finishes as well.
pub async fn stream<A: Access>(mut stream: TcpStream<A>, _place: OwnedSemaphorePermit) {
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
