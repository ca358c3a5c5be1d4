//! A loop that drives a shard with one device, for programs with one thread.

use smoltcp::time::Instant;
use wirestack_nic::{LinkError, Nic, wait};

use super::Shard;
use super::carrier::Carrier;

/// What a loop does while there is nothing to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Waiting {
    /// It sleeps until a frame comes or something is due.
    #[default]
    Sleep,
    /// It looks again at once: the shortest way for a frame, at the price of a core.
    Spin,
}

impl Shard {
    /// Turns until `app`, which is called once in each turn, returns `true`; what it has sent in that turn still
    /// leaves. An interface that is down is waited for, and the parts of the stack hear of it.
    ///
    /// This is the only place of the engine that reads a clock.
    ///
    /// # Errors
    /// [`LinkError::Gone`]: the interface was removed.
    pub fn run<N: Nic>(
        &mut self,
        nic: &mut N,
        waiting: Waiting,
        mut app: impl FnMut(&mut Self) -> bool,
    ) -> Result<(), LinkError> {
        let (mut carrier, mut turns) = (Carrier::new(wait::now()), 0_u32);
        loop {
            let mut is_over = false;
            let deadline = self.turn(wait::now(), nic, |shard| is_over = app(shard));
            if is_over {
                return Ok(());
            }
            turns = turns.wrapping_add(1);
            let look_at = carrier.look_at();
            let waited = match waiting {
                Waiting::Sleep => nic.wait(Some(deadline.map_or(look_at, |deadline| deadline.min(look_at)))),
                // Now and then it asks whether the link is still there.
                Waiting::Spin if turns.is_multiple_of(SPINS_PER_LOOK) => nic.wait(Some(Instant::ZERO)),
                Waiting::Spin => continue,
            };
            if let Some(is_up) = carrier.look(waited.map(drop), self.now(), nic)? {
                carrier.tell(is_up, self);
            }
        }
    }
}

/// Turns of a spinning loop between two looks at the link: at a microsecond each, some milliseconds.
const SPINS_PER_LOOK: u32 = 4_096;
