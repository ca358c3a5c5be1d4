//! What shards tell each other. Bounded: a shard that does not keep up loses messages, as a wire would, and they are
//! counted where they are lost.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::shard::Mail;

/// Messages for one shard.
#[derive(Debug)]
pub(crate) struct Inbox {
    messages: Mutex<VecDeque<Mail>>,
    len_max: usize,
}

impl Inbox {
    pub(crate) fn new(len_max: usize) -> Self {
        Self { messages: Mutex::new(VecDeque::new()), len_max }
    }

    /// Leaves a message. False: there is no room.
    pub(crate) fn push(&self, mail: Mail) -> bool {
        let mut messages = self.messages.lock();
        let has_room = messages.len() < self.len_max;
        if has_room {
            messages.push_back(mail);
        }
        has_room
    }

    /// Takes the oldest message.
    pub(crate) fn pop(&self) -> Option<Mail> {
        self.messages.lock().pop_front()
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.lock().is_empty()
    }
}
