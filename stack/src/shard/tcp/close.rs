//! Closing and aborting.

use crate::policy::{AttemptKind, Protocol};
use crate::shard::sockets::AnySocket;
use crate::shard::{Shard, SocketId};
use crate::tcp::config::Linger;
use crate::tcp::error::Failure;
use crate::tcp::state::State;

impl Shard {
    /// Finishes sending: FIN, behind what was written. Receiving goes on.
    pub fn tcp_finish(&mut self, id: SocketId) {
        let Some(&AnySocket::Tcp(index)) = self.sockets.get(id) else { return };
        if let Some(connection) = self.tcp.connections.get_mut(index as usize) {
            connection.tcb.finish();
            self.touch_connection(index);
        }
    }

    /// Ends a connection with a reset. The handle stays until [`close`](Self::close).
    pub fn tcp_abort(&mut self, id: SocketId) {
        let Some(&AnySocket::Tcp(index)) = self.sockets.get(id) else { return };
        self.abort_connection(index);
    }

    //= rfc9293#3.10.5
    //# All queued SENDs and RECEIVEs should be given "connection reset" notification; all segments queued for
    //# transmission (except for the RST formed above) or retransmission should be flushed.
    pub(super) fn abort_connection(&mut self, index: u32) {
        let Some(connection) = self.tcp.connections.get(index as usize) else { return };
        let tcb = &connection.tcb;
        if tcb.state == State::Closed {
            return;
        }
        let header = tcb.reset_now();
        if tcb.is_reset_by_abort() {
            self.send_reset(index, &header);
        }
        self.fail_connection(index, Failure::Aborted);
    }

    /// The application has closed its handle.
    pub(crate) fn close_connection(&mut self, index: u32) {
        let Some(connection) = self.tcp.connections.get_mut(index as usize) else { return };
        connection.socket = None;
        let tcb = &mut connection.tcb;
        tcb.is_orphan = true;
        match tcb.state {
            State::Closed => return self.tcp.free(index),
            //= rfc9293#3.10.4
            //# Delete the TCB and return "error: closing" responses to any queued SENDs, or RECEIVEs.
            State::SynSent => return self.fail_connection(index, Failure::Aborted),
            _ => {}
        }
        let loses_data = tcb.recv.readable() > 0;
        let is_abrupt = matches!(tcb.options.linger, Linger::For(time) if time.total_micros() == 0);
        // RFC 2525 section 2.17: data that nobody has read is told to be lost.
        if loses_data || is_abrupt {
            return self.abort_connection(index);
        }
        tcb.finish();
        let now = self.now;
        if let Some((connection, cx)) = self.tcp.with_cx(index, now) {
            connection.tcb.arm_orphan(&cx);
        }
        self.touch_connection(index);
    }

    /// A listener is closed: who waits to be accepted is reset.
    pub(crate) fn close_listener(&mut self, number: u32) {
        let Some(mut listening) = self.tcp.listeners.remove(&number) else { return };
        self.tcp.listen.unbind(listening.binding);
        if listening.is_policed {
            self.tell_ended(AttemptKind::Listen, Protocol::Tcp, listening.listener.local, None);
        }
        while let Some(index) = listening.listener.pop() {
            if let Some(connection) = self.tcp.connections.get_mut(index as usize) {
                connection.listener = None;
                match connection.tcb.state {
                    State::Closed => self.tcp.free(index),
                    _ => self.abort_connection(index),
                }
            }
        }
    }
}
