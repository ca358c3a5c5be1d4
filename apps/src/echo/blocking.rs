//! Echo in the manner of `std::net`: a thread for each connection, so many at most.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Serves connections until `accept` fails, which is when the stack has ended. While there are `threads_max` of them, others wait
/// at the listener.
///
/// # Errors
/// What `accept` says, or that there is no thread.
pub fn streams<S>(accept: impl Fn() -> io::Result<S>, threads_max: usize) -> io::Result<()>
where
    S: Send + 'static,
    for<'a> &'a S: Read + Write,
{
    let places = Arc::new(Places { free: Mutex::new(threads_max.max(1)), is_free: Condvar::new() });
    loop {
        let place = Places::take(&places);
        let stream = accept()?;
        thread::Builder::new().name("echo".into()).spawn(move || {
            let _place = place;
            // Who resets the connection has heard enough. Dropping the stream finishes it.
            let _ = io::copy(&mut &stream, &mut &stream);
        })?;
    }
}

/// Sends every datagram back, but for those of our own port: two echo services would never end. Until `recv` fails for
/// good.
///
/// # Errors
/// [`NetworkDown`](io::ErrorKind::NetworkDown): the stack has ended.
pub fn datagrams(
    recv: impl Fn(&mut [u8]) -> io::Result<(usize, SocketAddr)>,
    send: impl Fn(&[u8], SocketAddr) -> io::Result<usize>,
    port: u16,
) -> io::Result<()> {
    let mut room = vec![0; 65_535];
    loop {
        match recv(&mut room) {
            // Who cannot be answered does not stop the others.
            Ok((len, from)) if from.port() != port => drop(send(&room[..len], from)),
            Err(error) if error.kind() == io::ErrorKind::NetworkDown => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
}

struct Places {
    free: Mutex<usize>,
    is_free: Condvar,
}

/// One of them, given back when it is dropped, be it by a panic.
struct Place(Arc<Places>);

impl Places {
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(places: &Arc<Self>) -> Place {
        let free = places.is_free.wait_while(places.lock(), |free| *free == 0);
        *free.unwrap_or_else(PoisonError::into_inner) -= 1;
        Place(Arc::clone(places))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.lock() += 1;
        self.0.is_free.notify_one();
    }
}
