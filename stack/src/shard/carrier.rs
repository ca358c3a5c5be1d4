//! Whether the device of a loop has a link: what a wait tells, and asking now and then.

use smoltcp::time::{Duration, Instant};
use wirestack_nic::{LinkError, LinkState, Nic};

use super::{Command, Shard};

/// What a loop knows of the link of its device, and has told its shard.
#[derive(Debug)]
pub(crate) struct Carrier {
    is_up: bool,
    look_at: Instant,
}

impl Carrier {
    /// It is up, until something else is found.
    pub(crate) fn new(now: Instant) -> Self {
        Self { is_up: true, look_at: now + LOOK_INTERVAL }
    }

    /// When the device is to be asked next: no wait should be longer.
    pub(crate) fn look_at(&self) -> Instant {
        self.look_at
    }

    /// Looks at what a wait has said, and asks the device if it is time. `Some`: it came up or went down; it comes again
    /// until it was [told](Self::tell).
    ///
    /// # Errors
    /// [`LinkError::Gone`]: the interface was removed.
    pub(crate) fn look<N: Nic>(
        &mut self,
        waited: Result<(), LinkError>,
        now: Instant,
        nic: &mut N,
    ) -> Result<Option<bool>, LinkError> {
        let is_up = match waited {
            Err(LinkError::Gone) => return Err(LinkError::Gone),
            Err(LinkError::Down) => false,
            Ok(()) if self.is_up && now < self.look_at => return Ok(None),
            // That a cable was pulled out is no error of a device: it is to be asked.
            Ok(()) => {
                self.look_at = now + LOOK_INTERVAL;
                match nic.link_state() {
                    LinkState::Gone => return Err(LinkError::Gone),
                    state => state == LinkState::Up,
                }
            }
        };
        Ok((is_up != self.is_up).then_some(is_up))
    }

    /// Tells the shard of a change. If it has no room for that now, the next look finds the same.
    pub(crate) fn tell(&mut self, is_up: bool, shard: &mut Shard) {
        if shard.push_command(Command::LinkChanged(is_up)).is_ok() {
            self.is_up = is_up;
        }
    }
}

/// How often a device is asked whether it has a carrier: whoever plugs a cable takes longer.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
