//! Whatever happens, in whatever order: numbers stay in order, windows do not shrink, and no timer is lost.

use proptest::prelude::*;

use super::world::World;
use super::{EVENTS, lines};

const STATES: [&str; 12] = [
    "SYN-SENT",
    "SYN-SENT +ECN",
    "SYN-RECEIVED",
    "ESTABLISHED",
    "ESTABLISHED +ECN",
    "ESTABLISHED -SACK",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "CLOSE-WAIT",
    "CLOSE-WAIT -SACK",
    "CLOSING",
    "LAST-ACK",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_happens(state in 0..STATES.len(), picks in prop::collection::vec(any::<prop::sample::Index>(), 1..24)) {
        let events: Vec<_> = lines(EVENTS).map(|columns| columns[1]).collect();
        let mut world = World::in_state(STATES[state]);
        for pick in picks {
            world.happens(events[pick.index(events.len())]);
        }
    }
}
