//! What smoltcp is given of frames that are not as on a wire.

use super::super::test_frames::{tcp, udp};
use super::*;
use crate::meta::Gso;
use crate::offload::Layout;
use crate::offload::checksum::Verdict;

fn verdict(frame: &[u8]) -> Verdict {
    checksum::verify(frame, &Layout::of_frame(frame).expect("known"))
}

#[test]
fn merged_datagrams_come_one_by_one() {
    let whole = udp(5000);
    let size = NonZeroU16::new(1200).expect("not 0");
    let gso = Some(Gso { kind: GsoKind::Udp, size, ecn: false });
    let mut pieces = Pieces::default();
    assert!(pieces.is_empty());
    for _ in 0..2 {
        pieces.hold(&whole, &FrameMeta { gso, ..FrameMeta::default() });
        let mut payload = Vec::new();
        let mut lens = Vec::new();
        while !pieces.is_empty() {
            pieces.lend(|piece| {
                assert_eq!(verdict(piece), Verdict::Right);
                lens.push(piece.len());
                payload.extend_from_slice(&piece[42..]);
            });
        }
        assert_eq!(lens, [1242, 1242, 1242, 1242, 242]);
        assert_eq!(payload, &whole[42..]);
    }
    // A shorter one afterwards is not given what is left in the memory.
    pieces.hold(&udp(10), &FrameMeta::default());
    assert_eq!(pieces.lend(<[u8]>::to_vec), udp(10));
    assert!(pieces.is_empty());
}

#[test]
fn absent_checksums_of_udp_are_filled_in_for_it() {
    let mut pieces = Pieces::default();
    for whole in [udp(100), udp(1000), udp(7)] {
        let mut partial = whole.clone();
        let layout = Layout::of_frame(&whole).expect("known");
        let checksum = checksum::leave_out(&mut partial, &layout).expect("known");
        let meta = FrameMeta { checksum, ..FrameMeta::default() };
        assert_eq!(pieces.lend_complete(&partial, &meta, true, <[u8]>::to_vec), whole);
        // Anything else is lent where it lies.
        let verified = FrameMeta { checksum: ChecksumState::Verified, ..FrameMeta::default() };
        assert_eq!(pieces.lend_complete(&partial, &verified, true, <[u8]>::to_vec), partial);
    }
    // smoltcp does not look at the checksums of TCP, and a segment may have 64 KB.
    let mut partial = tcp(100);
    let layout = Layout::of_frame(&partial).expect("known");
    let checksum = checksum::leave_out(&mut partial, &layout).expect("known");
    let meta = FrameMeta { checksum, ..FrameMeta::default() };
    assert_eq!(pieces.lend_complete(&partial, &meta, true, |frame| frame.as_ptr()), partial.as_ptr());
    // But if nobody has verified what came, it looks at all of them.
    assert_eq!(pieces.lend_complete(&partial, &meta, false, <[u8]>::to_vec), tcp(100));
}
