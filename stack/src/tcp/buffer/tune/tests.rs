use super::*;

#[test]
fn it_is_small() {
    assert!(size_of::<ReceiveTuning>() <= 40);
}
