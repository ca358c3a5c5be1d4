//! What shards tell each other. Bounded: a shard that does not keep up loses messages, as a wire would, and they are
//! counted where they are lost.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::shard::Mail;

/// A lock; another one in the model of [`parker`](super::parker).
pub(crate) trait Lock<T> {
    fn new(value: T) -> Self;
    fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R;
}

impl<T> Lock<T> for Mutex<T> {
    fn new(value: T) -> Self {
        Self::new(value)
    }

    fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.lock())
    }
}

/// Messages for one shard. Whoever leaves one calls the [`Parker`](super::parker::Parker) of the shard afterwards.
#[derive(Debug)]
pub(crate) struct Inbox<L = Mutex<VecDeque<Mail>>> {
    messages: L,
    len_max: usize,
}

impl<L: Lock<VecDeque<Mail>>> Inbox<L> {
    pub(crate) fn new(len_max: usize) -> Self {
        Self { messages: L::new(VecDeque::new()), len_max }
    }

    /// Leaves a message. False: there is no room.
    pub(crate) fn push(&self, mail: Mail) -> bool {
        let len_max = mail.len_max(self.len_max);
        self.messages.with(|messages| {
            let has_room = messages.len() < len_max;
            if has_room {
                messages.push_back(mail);
            }
            has_room
        })
    }

    /// Hands over the oldest messages until `take` gives one back, for which it has no room; that one stays. True: some are
    /// left.
    pub(crate) fn drain(&self, mut take: impl FnMut(Mail) -> Result<(), Mail>) -> bool {
        self.messages.with(|messages| {
            while let Some(mail) = messages.pop_front() {
                if let Err(mail) = take(mail) {
                    messages.push_front(mail);
                    return true;
                }
            }
            false
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::Learned;

    fn packet(number: u8) -> Mail {
        Mail::Packet(vec![number])
    }

    #[test]
    fn a_full_inbox_keeps_the_order_and_takes_what_must_not_be_lost() {
        let inbox: Inbox = Inbox::new(2);
        assert!(inbox.push(packet(1)) && inbox.push(packet(2)) && !inbox.push(packet(3)));
        let learned = Learned::Dhcp6 { servers: Vec::new(), search: Vec::new() };
        let learned = Mail::Learned(Box::new(learned));
        assert!(inbox.push(learned.clone()));
        let mut taken = Vec::new();
        let mut room = 1;
        let mut take = |mail| {
            if room == 0 {
                return Err(mail);
            }
            room -= 1;
            taken.push(mail);
            Ok(())
        };
        assert!(inbox.drain(&mut take), "two are left");
        assert!(!inbox.drain(|mail| {
            taken.push(mail);
            Ok(())
        }));
        assert_eq!(taken, [packet(1), packet(2), learned]);
    }
}
