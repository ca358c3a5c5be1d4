//! From the flags of `capture` to sockets and a file, in an order in which everything that can be wrong is
//! found before a file is made: flags and lists → interface → filter → sockets → file.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::Path;

use smoltcp::phy::Medium;
use smoltcp::time::Duration;
use wirestack::nic::affinity::{self, CpuSet};
use wirestack::nic::capture::file::{CaptureFileConfig, Rotation};
use wirestack::nic::capture::{CaptureFile, PcapngInterface};
use wirestack::nic::config::{Profile, RxMode};
use wirestack::nic::error::Step;
use wirestack::nic::filter::Program;
use wirestack::nic::filter::tcpdump::{self, Target};
use wirestack::nic::geometry::{RingGeometry, V3_BLOCK_SIZE};
use wirestack::nic::steer::{Fanout, FanoutFlags, FanoutMode};
use wirestack::nic::{AfPacket, AfPacketConfig, Interface, wait};

use crate::error::AppError;
use crate::setup::random_seed;

use super::args::{CaptureArgs, Mode};
use super::lists::Lists;

/// Everything that a capture needs.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) interface: String,
    pub(super) mode: Mode,
    /// One for each thread.
    pub(super) nics: Vec<AfPacket<'static>>,
    pub(super) file: Option<CaptureFile>,
    pub(super) lists: Lists,
}

pub(super) fn prepare(args: &CaptureArgs) -> Result<Prepared, AppError> {
    let name = &args.nic;
    let (mode, threads) = mode_and_threads(args)?;
    check_rotation(args)?;
    check_pin(args)?;
    let lists = Lists::read(args)?;
    let interface = Interface::by_name(name).map_err(|error| {
        let problem = format_args!("{error} (`ip link` lists the interfaces of this network namespace)");
        AppError::flag("--nic", format_args!("packet:{name}"), problem)
    })?;
    let filter = filter(args, name)?;
    let nics = open_all(args, mode, &interface, filter.as_ref(), threads)?;
    let file = args.write.as_deref().map(|path| create_file(args, path, name)).transpose()?;
    Ok(Prepared { interface: interface.name, mode, nics, file, lists })
}

/// The mode and the number of threads, each by the other where only one was given.
fn mode_and_threads(args: &CaptureArgs) -> Result<(Mode, u16), AppError> {
    let mode = args.mode.unwrap_or(if args.threads.is_some_and(|threads| threads > 1) {
        Mode::RingFanout
    } else {
        Mode::Ring
    });
    let cpus = || std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX) as u16;
    let threads = args.threads.unwrap_or_else(|| if mode.is_fanout() { cpus() } else { 1 });
    let wants_each_once =
        [("--write", args.write.is_some()), ("--count", args.count.is_some()), ("--analyze", args.analyze)];
    match wants_each_once.into_iter().find(|&(_, is_given)| is_given) {
        Some((flag, _)) if threads > 1 && !mode.is_fanout() => {
            let problem = format_args!(
                "with --mode {mode} every thread gets every frame, and {flag} wants each once; \
                 give --threads 1 or --mode {mode}-fanout",
                mode = mode.name()
            );
            Err(AppError::flag("--threads", threads, problem))
        }
        _ => Ok((mode, threads)),
    }
}

fn check_rotation(args: &CaptureArgs) -> Result<(), AppError> {
    match args.rotate_files {
        Some(files) if args.rotate_size.is_none() && args.rotate_seconds.is_none() => {
            let problem =
                "there is one file only without --rotate-size or --rotate-seconds; give one of them";
            Err(AppError::flag("--rotate-files", files, problem))
        }
        _ => Ok(()),
    }
}

fn check_pin(args: &CaptureArgs) -> Result<(), AppError> {
    let Some(pin) = &args.pin else { return Ok(()) };
    let allowed = affinity::current_thread().map_err(AppError::running)?;
    if pin.difference(&allowed).is_empty() {
        return Ok(());
    }
    Err(AppError::flag("--pin", pin, format_args!("this process may run on CPUs {allowed} only")))
}

/// Keeps the calling thread on a CPU.
pub(super) fn pin(cpu: &CpuSet) {
    if let Err(error) = affinity::pin_current_thread(cpu) {
        // It was allowed when the flags were checked. The capture goes on where the kernel likes.
        log::warn!("--pin {cpu}: {error}");
    }
}

/// The program of the expression, if there is one.
fn filter(args: &CaptureArgs, interface: &str) -> Result<Option<Program>, AppError> {
    let expression = args.expression.join(" ");
    let is_given = !expression.trim().is_empty();
    let compile = || tcpdump::compile(&expression, Target::Interface(interface)).map_err(AppError::usage);
    is_given.then(compile).transpose()
}

/// Opens a socket for each thread; with fanout, all in one new group.
fn open_all(
    args: &CaptureArgs,
    mode: Mode,
    interface: &Interface,
    filter: Option<&Program>,
    threads: u16,
) -> Result<Vec<AfPacket<'static>>, AppError> {
    // Our flow hash: both directions of a flow, its fragments, and the ICMP errors about it stay together.
    let flow = FanoutMode::Flow { seed: random_seed() as u32, ebpf: false };
    let mut fanout = mode.is_fanout().then(|| Fanout {
        flags: FanoutFlags { outgoing: true, ..FanoutFlags::default() },
        ..Fanout::new(flow)
    });
    let mut nics = Vec::new();
    for _ in 0..threads {
        let nic = open(args, mode, interface, filter.cloned(), fanout.clone())?;
        fanout = fanout.map(|fanout| Fanout { id: nic.fanout_id(), ..fanout });
        nics.push(nic);
    }
    Ok(nics)
}

fn open(
    args: &CaptureArgs,
    mode: Mode,
    interface: &Interface,
    filter: Option<Program>,
    fanout: Option<Fanout>,
) -> Result<AfPacket<'static>, AppError> {
    let mut config = AfPacketConfig::profile(Profile::Capture);
    config.filter = filter;
    config.fanout = fanout;
    config.promiscuous = !args.no_promiscuous;
    // How long the segments of a super-frame are is told in this header only.
    config.vnet_hdr = args.analyze;
    let bytes = usize::try_from(args.ring_size.get()).unwrap_or(usize::MAX);
    if mode.is_ring() {
        config.rx_rings = rings(args.ring_size, bytes)?.into();
    } else {
        config.rx = RxMode::Recv;
        config.rx_queue_bytes = bytes;
    }
    let name = &interface.name;
    AfPacket::open(name, config).map_err(|error| match error.step {
        Step::Geometry | Step::Rings | Step::Map => AppError::flag("--ring-size", args.ring_size, error),
        _ => AppError::flag("--nic", format_args!("packet:{name}"), error),
    })
}

/// The ring that was asked for, and smaller ones if the kernel is short of memory.
fn rings(size: NonZeroU64, bytes: usize) -> Result<Vec<RingGeometry>, AppError> {
    let blocks = bytes / V3_BLOCK_SIZE;
    if blocks < BLOCKS_MIN {
        let problem = format_args!("a ring has {BLOCKS_MIN} MiB at least");
        return Err(AppError::flag("--ring-size", size, problem));
    }
    let sizes = [blocks, blocks / 2, blocks / 4].map(|blocks| blocks.max(BLOCKS_MIN));
    Ok(sizes.map(RingGeometry::for_blocks).to_vec())
}

fn create_file(args: &CaptureArgs, path: &Path, name: &str) -> Result<CaptureFile, AppError> {
    let micros = |seconds: f64| Duration::from_micros((seconds * 1e6) as u64);
    let rotation = Rotation {
        bytes_max: args.rotate_size,
        age_max: args.rotate_seconds.map(micros),
        files_max: args.rotate_files.and_then(NonZeroU32::new),
    };
    let snap_len = args.snap_len.unwrap_or(0);
    let interface = PcapngInterface { name, medium: Medium::Ethernet, snap_len };
    CaptureFile::create(CaptureFileConfig { path, interface, rotation }, wait::now())
        .map_err(|error| AppError::flag("--write", path.display(), error))
}

/// Members of a fanout group (PACKET_FANOUT_MAX without PACKET_FANOUT_DATA's extension).
const THREADS_MAX: usize = 256;
/// Blocks of a ring: one is read, one waits to be full, two take frames.
const BLOCKS_MIN: usize = 4;
