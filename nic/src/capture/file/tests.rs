//! Rows of files against a naive reader, and places that cannot be written to.

use proptest::prelude::*;
use smoltcp::phy::Medium;

use super::*;

fn config<'a>(path: &'a Path, rotation: Rotation) -> CaptureFileConfig<'a> {
    let interface = PcapngInterface { name: "test0", medium: Medium::Ethernet, snap_len: 0 };
    CaptureFileConfig { path, interface, rotation }
}

fn word(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
}

/// Times and bytes of the frames in a file, which must be whole.
fn read(path: &Path) -> Vec<(u64, Vec<u8>)> {
    let file = fs::read(path).expect("a file");
    let mut rest = &file[..];
    let mut frames = Vec::new();
    if FileFormat::of_path(path) == FileFormat::Pcap {
        rest = &rest[24..];
        while !rest.is_empty() {
            let len = word(rest, 8);
            let nanos = word(rest, 0) as u64 * 1_000_000_000 + word(rest, 4) as u64;
            frames.push((nanos, rest[16..16 + len].to_vec()));
            rest = &rest[16 + len..];
        }
        return frames;
    }
    while !rest.is_empty() {
        let len = word(rest, 4);
        assert_eq!(word(rest, len - 4), len);
        if word(rest, 0) == 6 {
            let nanos = (word(rest, 12) as u64) << 32 | word(rest, 16) as u64;
            frames.push((nanos, rest[28..28 + word(rest, 20)].to_vec()));
        }
        rest = &rest[len..];
    }
    frames
}

fn at(seconds: i64) -> Instant {
    Instant::from_secs(seconds)
}

fn write(file: &mut CaptureFile, now: Instant, frames: &[(u64, Vec<u8>)]) -> io::Result<()> {
    let mut buffer = file.buffer();
    for (nanos, frame) in frames {
        buffer.push(*nanos, Direction::Inbound, frame);
    }
    assert_eq!(buffer.frames(), frames.len() as u64);
    file.write(&mut buffer, now)
}

#[test]
fn the_ending_chooses_the_format() {
    let cases = [("x.pcap", FileFormat::Pcap), ("x.CAP", FileFormat::Pcap), ("x.pcapng", FileFormat::Pcapng)];
    for (name, format) in cases.into_iter().chain([("pcap", FileFormat::Pcapng), ("x.y", FileFormat::Pcapng)])
    {
        assert_eq!(FileFormat::of_path(Path::new(name)), format, "{name}");
    }
    assert_eq!(numbered(Path::new("a.b/x.y.pcap"), 7), Path::new("a.b/x.y_00007.pcap"));
    assert_eq!(numbered(Path::new("/x"), 123_456), Path::new("/x_123456"));
}

#[test]
fn without_rotation_there_is_one_file_of_that_name() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["x.pcap", "x.pcapng"] {
        let path = folder.path().join(name);
        let mut file = CaptureFile::create(config(&path, Rotation::default()), at(0)).expect("a file");
        write(&mut file, at(9), &[(1_700_000_000_123_456_789, b"first".to_vec()), (1, vec![])])
            .expect("room");
        // What was written is there while the capture goes on.
        assert_eq!(read(&path), [(1_700_000_000_123_456_789, b"first".to_vec()), (1, vec![])]);
        write(&mut file, at(1_000_000), &[(2, b"second".to_vec())]).expect("room");
        file.rotate_if_due(at(i64::from(u32::MAX))).expect("nothing to do");
        let totals = file.finish(&InterfaceStatistics::default()).expect("room");
        let bytes = fs::metadata(&path).expect("a file").len();
        assert_eq!(totals, FileTotals { frames: 3, bytes, frames_lost: 0, files: 1 });
        assert_eq!(read(&path).len(), 3);
    }
}

#[test]
fn files_change_with_age_only_when_they_have_a_frame() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.pcap");
    let rotation = Rotation { age_max: Some(Duration::from_secs(10)), ..Rotation::default() };
    let mut file = CaptureFile::create(config(&path, rotation), at(0)).expect("a file");
    file.rotate_if_due(at(20)).expect("room");
    assert_eq!(file.totals().files, 1, "an empty file stays");
    write(&mut file, at(21), &[(1, b"a".to_vec())]).expect("room");
    file.rotate_if_due(at(22)).expect("room");
    write(&mut file, at(23), &[(2, b"b".to_vec())]).expect("room");
    file.rotate_if_due(at(31)).expect("room");
    write(&mut file, at(32), &[(3, b"c".to_vec())]).expect("room");
    let names: Vec<_> = file.paths().map(read).collect();
    assert_eq!(names, [vec![(1, b"a".to_vec())], vec![(2, b"b".to_vec())], vec![(3, b"c".to_vec())]]);
    assert!(!path.exists());
}

#[test]
fn the_oldest_files_are_removed_and_others_are_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.pcapng");
    let other = folder.path().join("x_99999.pcapng");
    fs::write(&other, "of somebody else").expect("room");
    let rotation =
        Rotation { bytes_max: NonZeroU64::new(1), files_max: NonZeroU32::new(3), ..Rotation::default() };
    let mut file = CaptureFile::create(config(&path, rotation), at(0)).expect("a file");
    let frames: Vec<_> = (0..10).map(|nanos| (nanos, vec![nanos as u8; 60])).collect();
    write(&mut file, at(0), &frames).expect("room");
    let found: Vec<_> = file.paths().flat_map(read).collect();
    assert_eq!((found, file.totals().frames, file.totals().files), (frames[7..].to_vec(), 10, 10));
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 4);
    assert!(other.exists() && folder.path().join("x_00010.pcapng").exists());
}

/// A capture whose file is a place without room, after a head that went somewhere else.
fn on_full_device(name: &str) -> CaptureFile {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    let mut file = CaptureFile::create(config(&path, Rotation::default()), at(0)).expect("a file");
    file.current.file = File::options().write(true).open("/dev/full").expect("a device");
    file.current.is_regular = false;
    file
}

#[test]
fn a_place_without_room_is_told_once() {
    let full = Path::new("/dev/full");
    let error = CaptureFile::create(config(full, Rotation::default()), at(0)).expect_err("no room");
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    assert!(full.exists(), "a device is not removed");
    for name in ["x.pcap", "x.pcapng"] {
        let mut file = on_full_device(name);
        let frames = [(1, b"a".to_vec()), (2, b"b".to_vec())];
        let error = write(&mut file, at(0), &frames).expect_err("no room");
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        write(&mut file, at(1), &frames).expect("it was told");
        assert_eq!((file.totals().frames, file.totals().frames_lost), (0, 4));
        file.finish(&InterfaceStatistics::default()).expect("it was told");
    }
}

#[test]
fn the_next_file_that_cannot_be_made_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).expect("room");
    let rotation = Rotation { bytes_max: NonZeroU64::new(1), ..Rotation::default() };
    let path = inner.join("x.pcap");
    let mut file = CaptureFile::create(config(&path, rotation), at(0)).expect("a file");
    write(&mut file, at(0), &[(1, b"a".to_vec())]).expect("room");
    fs::remove_dir_all(&inner).expect("our folder");
    let error = write(&mut file, at(0), &[(2, b"b".to_vec())]).expect_err("no folder");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert_eq!((file.totals().frames, file.totals().frames_lost), (1, 1));
}

#[test]
fn full_buffers_say_so_before_they_grow() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.pcapng");
    let file = CaptureFile::create(config(&path, Rotation::default()), at(0)).expect("a file");
    let mut buffer = file.buffer();
    let (capacity, frame) = (buffer.bytes.capacity(), vec![0; 300_000]);
    while !buffer.is_full() {
        buffer.push(0, Direction::Inbound, &frame);
    }
    assert_eq!(buffer.bytes.capacity(), capacity);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// All frames are in the files, in order, and no file is larger than allowed unless it has one frame.
    #[test]
    fn rows_of_files_hold_what_was_written(
        batches in proptest::collection::vec(
            proptest::collection::vec((0u64..1 << 60, proptest::collection::vec(any::<u8>(), 0..300)), 0..12), 0..6),
        bytes_max in 1u64..3000,
        is_pcap in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(if is_pcap { "x.pcap" } else { "x.pcapng" });
        let rotation = Rotation { bytes_max: NonZeroU64::new(bytes_max), ..Rotation::default() };
        let mut file = CaptureFile::create(config(&path, rotation), at(0)).expect("a file");
        for batch in &batches {
            write(&mut file, at(0), batch).expect("room");
        }
        let mut found = Vec::new();
        let mut bytes = 0;
        for path in file.paths() {
            let frames = read(path);
            let len = fs::metadata(path).expect("a file").len();
            prop_assert!(len <= bytes_max || frames.len() <= 1, "{} bytes, {} frames", len, frames.len());
            bytes += len;
            found.extend(frames);
        }
        let written = batches.concat();
        let totals = file.totals();
        prop_assert_eq!((totals.frames, totals.bytes), (written.len() as u64, bytes));
        prop_assert_eq!(totals.files as usize, file.paths().count());
        prop_assert_eq!(found, written);
    }

    /// Cutting a file of blocks anywhere leaves the whole ones.
    #[test]
    fn whole_blocks_are_found(
        lens in proptest::collection::vec(0usize..100, 0..10),
        limit in 0usize..1500,
        is_pcap in any::<bool>(),
    ) {
        let format = if is_pcap { FileFormat::Pcap } else { FileFormat::Pcapng };
        let mut buffer = FrameBuffer { format, snap_len: 1000, bytes: Vec::new(), frames: 0 };
        let mut ends = vec![0];
        for len in lens {
            buffer.push(0, Direction::Inbound, &vec![0xff; len]);
            ends.push(buffer.bytes.len());
        }
        let limit = limit.min(buffer.bytes.len());
        let whole = ends.iter().rposition(|&end| end <= limit).expect("the start");
        prop_assert_eq!(format.whole_blocks(&buffer.bytes, limit), (ends[whole], whole as u64));
    }
}
