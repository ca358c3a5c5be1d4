//! Raw IP sockets.
