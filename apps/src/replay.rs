//! `wirestack replay`: the frames of a capture, sent in their own time or another.

use std::fs::File;
use std::io::BufReader;

use smoltcp::phy::Medium;
use smoltcp::time::{Duration, Instant};
use wirestack::nic::replay::{CaptureFile, Player};
use wirestack::nic::{AfPacket, AfPacketConfig, FrameMeta, LinkError, Nic, Tap, TapConfig, wait};

use crate::cli::{NicName, ReplayArgs};
use crate::error::AppError;
use crate::serve::{Stop, print, print_error, say};

/// Sends the file, and ends.
///
/// # Errors
/// What is wrong with the flags, the file or the machine, in one line.
pub fn run(args: &ReplayArgs) -> Result<(), AppError> {
    let path = args.file.display();
    let file = File::open(&args.file).map_err(|error| AppError::flag("FILE", &path, error))?;
    let file = CaptureFile::new(BufReader::with_capacity(1 << 20, file))
        .map_err(|error| AppError::flag("FILE", &path, error))?;
    let player = Player::new(file, args.speed, args.loops);
    let failed = |error: &dyn std::fmt::Display| AppError::flag("--nic", &args.nic, error);
    match &args.nic {
        NicName::Packet(name) => {
            fits(args, &player, Medium::Ethernet)?;
            let nic = AfPacket::open(name, AfPacketConfig::default()).map_err(|error| failed(&error))?;
            send(args, player, nic)
        }
        &NicName::Tap { kind, ref name, vnet_hdr } => {
            fits(args, &player, kind.medium())?;
            let config = TapConfig { vnet_hdr, ..TapConfig::new(kind) };
            let nic = Tap::open(name, config).map_err(|error| failed(&error))?;
            send(args, player, nic)
        }
        NicName::Serial(spec) => {
            fits(args, &player, Medium::Ip)?;
            send(args, player, spec.open(wait::now()).map_err(|error| failed(&error))?)
        }
        NicName::NfQueue { .. } => Err(failed(
            &"a queue has no frames to be sent; packet:IFNAME, tap:IFNAME or tun:IFNAME is accepted",
        )),
    }
}

type FilePlayer = Player<BufReader<File>>;

fn fits(args: &ReplayArgs, player: &FilePlayer, medium: Medium) -> Result<(), AppError> {
    if player.medium() == medium {
        return Ok(());
    }
    let problem = match medium {
        Medium::Ethernet => "it carries Ethernet frames, and the file has IP packets: use tun:IFNAME",
        _ => "it carries IP packets, and the file has Ethernet frames: use packet:IFNAME or tap:IFNAME",
    };
    Err(AppError::flag("--nic", &args.nic, problem))
}

/// What was sent.
#[derive(Debug, Default)]
struct Sent {
    frames: u64,
    bytes: u64,
}

fn send<N: Nic>(args: &ReplayArgs, mut player: FilePlayer, mut nic: N) -> Result<(), AppError> {
    let stop = Stop::on_signals(nic.waker())?;
    say(&format!("ready replay {} {}", args.file.display(), args.nic), args.json);
    let begin = wait::now();
    let mut sent = Sent::default();
    let result = pump(&mut player, &mut nic, &stop, &mut sent);
    report(args, &player, &mut nic, &sent, wait::now() - begin);
    result.map_err(AppError::running)?;
    match player.error() {
        Some(error) => Err(AppError::running(format_args!("FILE {}: {error}", args.file.display()))),
        None => Ok(()),
    }
}

/// Sends each frame when it is due, until there is none left or somebody wants an end.
fn pump<N: Nic>(player: &mut FilePlayer, nic: &mut N, stop: &Stop, sent: &mut Sent) -> Result<(), LinkError> {
    while !stop.is_set() {
        let now = wait::now();
        let has_room = send_due(player, nic, sent, now);
        let Some(due) = player.due(now) else { break };
        let until = if has_room { due } else { now + RETRY_INTERVAL };
        // What comes in is of no interest, and would end every wait.
        for _ in 0..RECEIVED_MAX {
            if nic.receive_with(now, |_, _| ()).is_none() {
                break;
            }
        }
        match nic.wait(Some(until)) {
            Ok(_) | Err(LinkError::Down) => {}
            Err(LinkError::Gone) => return Err(LinkError::Gone),
        }
    }
    nic.flush()
}

/// Sends what is due, a burst at most. False: the device had no room.
fn send_due<N: Nic>(player: &mut FilePlayer, nic: &mut N, sent: &mut Sent, now: Instant) -> bool {
    for _ in 0..BURST_MAX {
        let Some(frame) = player.peek(now) else { break };
        let len = frame.len();
        let meta = FrameMeta::default();
        if nic.transmit_with(now, len, &meta, |room| room.copy_from_slice(frame)).is_none() {
            return false;
        }
        sent.frames += 1;
        sent.bytes += len as u64;
        player.advance();
    }
    true
}

fn report<N: Nic>(args: &ReplayArgs, player: &FilePlayer, nic: &mut N, sent: &Sent, took: Duration) {
    let stats = player.stats();
    let counters = nic.counters();
    if args.json {
        let mut map: serde_json::Map<_, _> =
            counters.named().map(|(name, value)| (name.to_owned(), value.into())).collect();
        for (name, value) in [
            ("frames", sent.frames),
            ("bytes", sent.bytes),
            ("cut", stats.cut),
            ("skipped", stats.skipped),
            ("truncated", stats.truncated),
        ] {
            map.insert(name.to_owned(), value.into());
        }
        let seconds = took.total_micros() as f64 / 1e6;
        map.insert("seconds".to_owned(), seconds.into());
        // All of it may have been sent within one reading of the clock.
        let per_second = |count: u64| count as f64 / seconds.max(1e-6);
        map.insert("packets_per_second".to_owned(), per_second(sent.frames).into());
        map.insert("bits_per_second".to_owned(), per_second(sent.bytes * 8).into());
        print(serde_json::Value::Object(map));
        return;
    }
    let millis = took.total_millis();
    print_error(format_args!("frames={} bytes={} millis={millis} {counters}", sent.frames, sent.bytes));
    if stats.cut > 0 {
        print_error(format_args!("wirestack: {} frames were cut when they were captured", stats.cut));
    }
    if stats.skipped > 0 {
        print_error(format_args!("wirestack: {} frames of another link type were left out", stats.skipped));
    }
    if stats.truncated > 0 {
        print_error(format_args!("wirestack: {} ends within a record", args.file.display()));
    }
}

/// Frames sent before the device is waited for: a part of a ring.
const BURST_MAX: usize = 256;
/// Frames that are thrown away before each wait.
const RECEIVED_MAX: usize = 4096;
/// How soon a device without room is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);
