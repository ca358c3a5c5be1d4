//! Waiting for a time, by the clock of a shard.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use smoltcp::time::Instant;

use super::Access;
use crate::timer::TimerId;

/// Is ready when its time has come, to within the granularity of the [wheel](crate::timer::Wheel).
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Sleep<A: Access> {
    access: A,
    until: Instant,
    place: Option<(u32, TimerId)>,
}

impl<A: Access> Sleep<A> {
    pub(crate) fn new(access: A, until: Instant) -> Self {
        Self { access, until, place: None }
    }
}

impl<A: Access> Future for Sleep<A> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let (until, place) = (self.until, self.place);
        let (is_over, place) = self.access.with(|hub| {
            if until <= hub.shard_ref().now() {
                return (true, place);
            }
            let place = place.unwrap_or_else(|| hub.sleep(until));
            (hub.poll_sleep(place, context.waker()), Some(place))
        });
        self.place = place;
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl<A: Access> Drop for Sleep<A> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.access.with(|hub| hub.cancel_sleep(place));
        }
    }
}
