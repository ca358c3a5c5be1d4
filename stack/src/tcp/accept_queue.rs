//! What a listener holds: connections that wait to be accepted.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use super::config::TcpOptions;

/// A listener.
#[derive(Debug)]
pub struct Listener {
    /// Where.
    pub local: SocketAddr,
    /// Manners of what it accepts.
    pub options: TcpOptions,
    /// Connections that wait, at most (as on Linux, one more fits).
    pub backlog: usize,
    /// What finds no room is reset, not left to be tried again (tcp_abort_on_overflow of Linux).
    pub resets_on_overflow: bool,
    /// Half-open connections of this listener.
    pub half_open: usize,
    /// In the order of their coming; `None`: forgotten.
    waiting: VecDeque<Option<u32>>,
    /// Where in `waiting` a connection is, counted from the first one that ever waited: who makes connections and
    /// resets them makes nobody search.
    places: BTreeMap<u32, u64>,
    /// How many have left `waiting` at its head.
    left: u64,
}

impl Listener {
    /// Nobody waits.
    pub fn new(local: SocketAddr, options: TcpOptions, backlog: usize, resets_on_overflow: bool) -> Self {
        Self {
            local,
            options,
            backlog,
            resets_on_overflow,
            half_open: 0,
            waiting: VecDeque::new(),
            places: BTreeMap::new(),
            left: 0,
        }
    }

    /// Whether as many wait as may: one more than the backlog, as on Linux.
    pub fn is_full(&self) -> bool {
        self.waiting() > self.backlog
    }

    /// Whether it has as many half-open connections as it may: as many as its backlog, at least 8, as a listener
    /// whose accept queue is that long could take at once.
    pub fn is_half_open_full(&self) -> bool {
        self.half_open > self.backlog.max(8)
    }

    /// A connection waits. One that waits already keeps its place.
    pub fn push(&mut self, connection: u32) {
        let place = self.left + self.waiting.len() as u64;
        if *self.places.entry(connection).or_insert(place) == place {
            self.waiting.push_back(Some(connection));
        }
    }

    /// The one that has waited longest.
    pub fn pop(&mut self) -> Option<u32> {
        while let Some(first) = self.waiting.pop_front() {
            self.left += 1;
            if let Some(connection) = first {
                self.places.remove(&connection);
                return Some(connection);
            }
        }
        None
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.places.len()
    }

    /// One that waited is no more. One that does not wait does not matter.
    pub fn forget(&mut self, connection: u32) {
        let Some(place) = self.places.remove(&connection) else { return };
        if let Some(slot) = self.waiting.get_mut((place - self.left) as usize) {
            *slot = None;
        }
        // As many steps as were forgotten since the last time.
        if self.waiting.len() > 2 * self.places.len() + FORGOTTEN_MAX {
            self.waiting.retain(Option::is_some);
            self.left = 0;
            self.places =
                (0..).zip(&self.waiting).filter_map(|(place, &slot)| Some((slot?, place))).collect();
        }
    }
}

/// So many places of the forgotten are kept in any case.
const FORGOTTEN_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listener(backlog: usize) -> Listener {
        Listener::new("10.0.0.1:80".parse().expect("an address"), TcpOptions::default(), backlog, false)
    }

    #[test]
    fn one_more_than_the_backlog_waits() {
        for backlog in [0, 1, 5] {
            let mut listener = listener(backlog);
            for connection in 0..=backlog as u32 {
                assert!(!listener.is_full(), "{backlog}");
                listener.push(connection);
            }
            assert!(listener.is_full(), "{backlog}");
            assert_eq!(listener.pop(), Some(0));
            assert!(!listener.is_full(), "{backlog}");
        }
    }

    #[test]
    fn half_open_connections_are_bounded_by_the_backlog_but_for_short_ones() {
        for (backlog, half_open, expected) in
            [(0, 8, false), (0, 9, true), (8, 8, false), (100, 100, false), (100, 101, true)]
        {
            let mut listener = listener(backlog);
            listener.half_open = half_open;
            assert_eq!(listener.is_half_open_full(), expected, "{backlog} {half_open}");
        }
    }

    #[test]
    fn what_is_forgotten_takes_no_room() {
        let mut listener = listener(1);
        listener.push(1_000_000);
        for connection in 0..100_000 {
            listener.push(connection);
            listener.forget(connection);
            assert!(listener.waiting.len() <= 2 + FORGOTTEN_MAX + 1 && listener.waiting() == 1);
        }
        assert_eq!((listener.pop(), listener.pop()), (Some(1_000_000), None));
    }

    proptest! {
        #[test]
        fn is_a_queue_from_which_one_may_go(steps in prop::collection::vec((0..4_u8, 0..40_u32), 0..400)) {
            let (mut listener, mut oracle) = (listener(10), Vec::new());
            for (kind, connection) in steps {
                match kind {
                    0 | 1 => {
                        listener.push(connection);
                        if !oracle.contains(&connection) {
                            oracle.push(connection);
                        }
                    }
                    2 => {
                        let expected = (!oracle.is_empty()).then(|| oracle.remove(0));
                        prop_assert_eq!(listener.pop(), expected);
                    }
                    _ => {
                        listener.forget(connection);
                        oracle.retain(|&waiting| waiting != connection);
                    }
                }
                prop_assert_eq!((listener.waiting(), listener.is_full()), (oracle.len(), oracle.len() > 10));
            }
            let rest: Vec<u32> = std::iter::from_fn(|| listener.pop()).collect();
            prop_assert_eq!(rest, oracle);
        }
    }
}
