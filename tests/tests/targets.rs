//! The bodies of the fuzz targets with their seeds, and with seeds that were changed at random.

use proptest::test_runner::{RngAlgorithm, TestRng};
use rand_core::Rng;
use wirestack_tests::targets::{self, TARGETS};

/// The same inputs in every run; a fuzzer is for finding new ones.
const ROUNDS: usize = 3000;

#[test]
fn every_target_survives_its_seeds() {
    for (name, body) in TARGETS {
        let seeds = targets::seeds(name);
        assert!(!seeds.is_empty());
        seeds.iter().for_each(|seed| body(seed));
        body(&[]);
    }
}

#[test]
fn every_target_survives_changed_seeds() {
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    for (name, body) in TARGETS {
        let seeds = targets::seeds(name);
        for round in 0..ROUNDS {
            let mut input = seeds[round % seeds.len()].clone();
            for _ in 0..=rng.next_u32() % 8 {
                change(&mut input, &mut rng);
            }
            let shown = input.clone();
            let result = std::panic::catch_unwind(|| body(&input));
            assert!(result.is_ok(), "{name} does not survive {shown:?}");
        }
    }
}

#[test]
fn every_target_has_a_file() {
    let dir = wirestack_tests::tidy::repository().join("fuzz/fuzz_targets");
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .expect("the folder is there")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    files.sort();
    assert_eq!(files, TARGETS.iter().map(|(name, _)| format!("{name}.rs")).collect::<Vec<_>>());
}

/// Flips a bit, sets, removes, repeats or adds a byte.
fn change(input: &mut Vec<u8>, rng: &mut impl Rng) {
    let at = rng.next_u32() as usize % (input.len() + 1);
    let byte = rng.next_u32() as u8;
    match (rng.next_u32() % 5, input.get_mut(at)) {
        (0, Some(target)) => *target ^= 1 << (byte % 8),
        (1, Some(target)) => *target = byte,
        (2, Some(_)) => {
            input.remove(at);
        }
        (3, Some(&mut target)) => input.insert(at, target),
        _ => input.insert(at, byte),
    }
}
