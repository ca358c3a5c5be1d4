//! The fuzz body of a whole shard, fed by chance.

use wirestack::random::Random;
use wirestack_tests::sim::seeds;
use wirestack_tests::targets;

use crate::support::payload;

#[test]
fn a_shard_survives_scripts_by_chance() {
    for seed in seeds(300) {
        let mut random = Random::new(seed);
        let len = 20 + random.below(1_500) as usize;
        let script = payload(&mut random, len);
        let survived = std::panic::catch_unwind(|| targets::shard(&script));
        assert!(
            survived.is_ok(),
            "again: SIM_SEED={seed} cargo test -p wirestack-tests --test sim by_chance"
        );
    }
}
