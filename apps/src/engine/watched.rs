//! An engine that is asked about itself while it runs.

use smoltcp::time::Instant;
use wirestack::nic::{LinkError, Waker};
use wirestack::shard::Shard;

use super::Engine;
use crate::control::{Asker, Desk, Step};
use crate::report::About;
use crate::serve::Figures;

/// See the [module](self).
pub(crate) struct Watched<'a> {
    engine: &'a mut dyn Engine,
    desk: Desk,
}

impl<'a> Watched<'a> {
    /// An engine that sleeps on the device of this waker, and whoever asks it.
    pub(crate) fn new(engine: &'a mut dyn Engine, about: About, waker: Waker) -> (Self, Asker) {
        let (desk, asker) = Desk::new(about, 0, waker);
        (Self { engine, desk }, asker)
    }
}

impl Engine for Watched<'_> {
    fn turn(&mut self, now: Instant) -> Option<Instant> {
        let due = self.engine.turn(now);
        let has_more = match self.desk.step(self.engine.shard()) {
            Step::Idle => false,
            Step::More => true,
            Step::Complete => {
                let figures = self.engine.figures();
                self.desk.answer(self.engine.shard(), &figures)
            }
        };
        if has_more { Some(now) } else { due }
    }

    fn wait(&mut self, deadline: Option<Instant>) -> Result<(), LinkError> {
        self.engine.wait(deadline)
    }

    fn shard(&mut self) -> &mut Shard {
        self.engine.shard()
    }

    fn follow_addresses(&mut self) -> bool {
        self.engine.follow_addresses()
    }

    fn close(&mut self) {
        self.engine.close();
    }

    fn is_quiet(&mut self) -> bool {
        self.engine.is_quiet()
    }

    fn abort(&mut self) {
        self.engine.abort();
    }

    fn figures(&mut self) -> Figures {
        self.engine.figures()
    }
}
