//! How a handle reaches its shard: the one difference between sockets for many threads and those for one.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::Hub;
use crate::driver::Cell;

/// A way to a [`Hub`]. It is [`Shared`] or [`Local`]; nobody else implements it.
pub trait Access: Clone + Unpin + 'static + sealed::Sealed {
    /// Lets `f` do something with the hub, and sees to it that what that makes due is done. Whoever is woken by it is woken
    /// when the hub was let go.
    ///
    /// `f` must not use a handle of the same stack: that would wait for itself ([`Shared`]) or panic ([`Local`]).
    fn with<R>(&self, f: impl FnOnce(&mut Hub) -> R) -> R;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Shared {}
    impl Sealed for super::Local {}
}

/// From any thread: the shard is behind a lock, and a thread of the [`driver`](crate::driver) turns it.
#[derive(Clone)]
pub struct Shared(pub(crate) Arc<Cell>);

impl Access for Shared {
    fn with<R>(&self, f: impl FnOnce(&mut Hub) -> R) -> R {
        let mut hub = self.0.hub.lock();
        // The time of the last turn may be long ago.
        hub.shard().set_now(wirestack_nic::wait::now());
        let result = f(&mut hub);
        let is_due = hub.is_due_earlier();
        let woken = if hub.has_woken() { hub.take_woken() } else { Vec::new() };
        drop(hub);
        if is_due {
            self.0.parker.notify();
        }
        woken.into_iter().for_each(std::task::Waker::wake);
        result
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// From the thread that turns the shard, in a task or between turns.
#[derive(Clone)]
pub struct Local(pub(crate) Rc<RefCell<Hub>>);

impl Access for Local {
    fn with<R>(&self, f: impl FnOnce(&mut Hub) -> R) -> R {
        let mut hub = self.0.borrow_mut();
        let result = f(&mut hub);
        if !hub.has_woken() {
            return result;
        }
        let woken = hub.take_woken();
        drop(hub);
        woken.into_iter().for_each(std::task::Waker::wake);
        result
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}
