//! A shard at our end of a wire, for tests that hold it against the peer's kernel.

use std::fs::File;
use std::io::{self, BufWriter};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use smoltcp::wire::EthernetAddress;
use tempfile::TempDir;
use wirestack::config::parse_cidr;
use wirestack::ip::AddressState;
use wirestack::observe::{DropReason, Drops, Event, ShardCounters};
use wirestack::shard::{Shard, ShardConfig, SocketId, UdpBind, Waiting};
use wirestack_apps::testbed::{IPV4_PREFIX_LEN, IPV6_PREFIX_LEN, OURS_IPV4, OURS_IPV6, VethEnd, Wire};
use wirestack_nic::capture::{Capture, CaptureConfig};
use wirestack_nic::{AfPacket, AfPacketConfig, Counters, Nic, Waker, wait};
use wirestack_tests::programs::{Child, Ended, output};
use wirestack_tests::runner::Failed;

use crate::support::LONG;

/// What is done in the middle of a turn. True: it is done for good.
type Job = Box<dyn FnMut(&mut Shard) -> bool + Send>;

/// A shard that serves our end of a wire on a thread of its own. All frames are kept in a file.
pub(crate) struct End {
    jobs: Sender<Job>,
    waker: Waker,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<Finished>>>,
    events: Events,
    dir: TempDir,
    mac: EthernetAddress,
}

/// What a shard has told of, in words.
type Events = Arc<Mutex<Vec<String>>>;

/// What is left of a shard that has ended.
pub(crate) struct Finished {
    pub(crate) counters: ShardCounters,
    pub(crate) drops: Drops,
    pub(crate) nic: Counters,
}

/// A record of a shard's frames.
pub(crate) struct Record {
    pub(crate) finished: Finished,
    dir: TempDir,
}

/// With both addresses of our end, and nothing else.
pub(crate) fn usual(mac: EthernetAddress) -> ShardConfig {
    let mut config = ShardConfig::new(mac);
    config.seed = 0x5eed;
    for (ip, prefix_len) in
        [(IpAddr::V4(OURS_IPV4), IPV4_PREFIX_LEN), (IpAddr::V6(OURS_IPV6), IPV6_PREFIX_LEN)]
    {
        config = config.address(parse_cidr(&format!("{ip}/{prefix_len}")).expect("an address"));
    }
    config
}

impl End {
    /// A shard with both addresses of our end, which are in use when this returns.
    pub(crate) fn start(wire: &Wire) -> Result<Self, Failed> {
        Self::start_with(wire, |_| {})
    }

    /// The same with changes.
    pub(crate) fn start_with(wire: &Wire, change: impl FnOnce(&mut ShardConfig)) -> Result<Self, Failed> {
        let mut config = usual(wire.ours().mac());
        change(&mut config);
        let end = Self::start_at_once(wire, config)?;
        end.until_addressed()?;
        Ok(end)
    }

    /// Waits until all addresses are in use.
    pub(crate) fn until_addressed(&self) -> Result<(), Failed> {
        self.until("all addresses are in use", |shard| {
            shard.addresses().all(|address| address.state == AddressState::Preferred).then_some(())
        })
    }

    /// A shard whose addresses may still be probed, or not be there.
    pub(crate) fn start_at_once(wire: &Wire, config: ShardConfig) -> Result<Self, Failed> {
        Self::start_on(wire.ours(), config)
    }

    /// The same at any interface.
    pub(crate) fn start_on(at: &VethEnd, config: ShardConfig) -> Result<Self, Failed> {
        let (jobs, received) = mpsc::channel();
        let (stop, events) = (Arc::new(AtomicBool::new(false)), Events::default());
        let dir = tempfile::tempdir()?;
        let (mac, name, file) = (config.mac, at.name().to_owned(), pcap(dir.path()));
        let (ready, is_ready) = mpsc::channel();
        let thread = at.namespace().spawn({
            let (stop, events) = (Arc::clone(&stop), Arc::clone(&events));
            move || {
                let nic = open(&name, &file)?;
                let shard = Shard::new(config, wait::now()).map_err(io::Error::other)?;
                // Whoever waits for it has gone only if it gave up.
                let _ = ready.send(nic.waker());
                run(shard, nic, &received, &stop, &events)
            }
        });
        match is_ready.recv_timeout(LONG) {
            Ok(waker) => Ok(Self { jobs, waker, stop, thread: Some(thread), events, dir, mac }),
            Err(_) => match thread.join() {
                Ok(Err(error)) => Err(format!("no shard: {error}").into()),
                _ => Err("no shard, and no reason".into()),
            },
        }
    }

    /// Asks the shard in each of its turns until it has an answer.
    pub(crate) fn until<R: Send + 'static>(
        &self,
        what: &str,
        mut ask: impl FnMut(&mut Shard) -> Option<R> + Send + 'static,
    ) -> Result<R, Failed> {
        let (answer, answered) = mpsc::channel();
        self.push(Box::new(move |shard| ask(shard).map(|found| answer.send(found)).is_some()));
        match answered.recv_timeout(LONG) {
            Ok(found) => Ok(found),
            Err(RecvTimeoutError::Timeout) => {
                let state = self.call(|shard| state(shard)).unwrap_or_else(|_| "it hangs".to_owned());
                Err(format!("{what}: not so after {LONG:?}\n{state}").into())
            }
            Err(RecvTimeoutError::Disconnected) => Err(format!("{what}: the shard has ended").into()),
        }
    }

    /// Does something in the next turn.
    pub(crate) fn call<R: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Shard) -> R + Send + 'static,
    ) -> Result<R, Failed> {
        let (answer, answered) = mpsc::channel();
        let mut ask = Some(ask);
        self.push(Box::new(move |shard| {
            if let Some(ask) = ask.take() {
                let _ = answer.send(ask(shard));
            }
            true
        }));
        answered.recv_timeout(LONG).map_err(|error| format!("a call of the shard: {error}").into())
    }

    /// Does something in every turn from now on.
    pub(crate) fn always(&self, mut serve: impl FnMut(&mut Shard) + Send + 'static) {
        self.push(Box::new(move |shard| {
            serve(shard);
            false
        }));
    }

    fn push(&self, job: Job) {
        // A shard that has ended is told by whoever waits for the answer.
        let _ = self.jobs.send(job);
        self.waker.wake();
    }

    /// Makes a UDP socket.
    pub(crate) fn bind(&self, bind: UdpBind) -> Result<SocketId, Failed> {
        Ok(self.call(move |shard| shard.udp_bind(bind))??)
    }

    /// Sends back whatever comes to this port of both addresses.
    pub(crate) fn echo(&self, port: u16) -> Result<(), Failed> {
        let socket =
            self.bind(UdpBind::new(SocketAddr::new(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), port)))?;
        self.always(move |shard| {
            while let Some((from, bytes)) =
                shard.udp_recv_with(socket, |meta, bytes| (meta.src, bytes.to_vec()))
            {
                // What finds no room is lost, as on a wire.
                let _ = shard.udp_send_to(socket, &bytes, from);
            }
        });
        Ok(())
    }

    /// The next datagram of a socket.
    pub(crate) fn recv(&self, socket: SocketId) -> Result<(SocketAddr, Vec<u8>), Failed> {
        self.until("a datagram comes", move |shard| {
            shard.udp_recv_with(socket, |meta, bytes| (meta.src, bytes.to_vec()))
        })
    }

    /// Whether the loop is over, for a reason of its own.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// How often something was dropped.
    pub(crate) fn drops(&self, reason: DropReason) -> Result<u64, Failed> {
        self.call(move |shard| shard.drops().get(reason))
    }

    /// What the shard has told of until now: a line for each event, frames that were dropped left out.
    pub(crate) fn events(&self) -> Vec<String> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What wakes the shard, so that it looks again at what it does always.
    pub(crate) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Our hardware address as programs write it.
    pub(crate) fn mac(&self) -> String {
        self.mac.to_string().replace('-', ":")
    }

    /// Ends the shard, and looks at what it has sent: no packet is malformed, no checksum wrong.
    pub(crate) fn finish(self) -> Result<Record, Failed> {
        let record = self.finish_dirty()?;
        let bad = "frame.packet_flags_direction == 2 && (_ws.malformed || _ws.expert.severity == error || \
                   ip.checksum.status == Bad || udp.checksum.status == Bad || icmp.checksum.status == Bad || \
                   icmpv6.checksum.status == Bad || igmp.checksum.status == Bad)";
        // What a random port and random bytes look like is no concern of ours.
        let plain = ["-d", "udp.port==1024-65535,data", "-d", "tcp.port==1024-65535,data"];
        let bad = record.frames_as(&plain, bad, &["frame.number", "_ws.col.Info", "_ws.expert.message"])?;
        assert!(bad.is_empty(), "sent by us: {bad:#?}");
        Ok(record)
    }

    /// Ends the shard, whatever it has sent: its errors repeat what others have sent.
    pub(crate) fn finish_dirty(mut self) -> Result<Record, Failed> {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.wake();
        let thread = self.thread.take().expect("it ends once");
        let finished = thread.join().map_err(|_| "the shard panicked")??;
        let empty = tempfile::tempdir()?;
        Ok(Record { finished, dir: std::mem::replace(&mut self.dir, empty) })
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.wake();
    }
}

impl Record {
    /// Fields of every frame that a display filter of tshark lets through.
    pub(crate) fn frames(&self, filter: &str, fields: &[&str]) -> io::Result<Vec<String>> {
        self.frames_as(&[], filter, fields)
    }

    /// The same, with more said to tshark.
    fn frames_as(&self, args: &[&str], filter: &str, fields: &[&str]) -> io::Result<Vec<String>> {
        // It looks for settings in the home directory, which whoever runs the tests may not be able to read.
        let mut command = Command::new("tshark");
        command.env("HOME", self.dir.path()).env_remove("XDG_CONFIG_HOME");
        command.arg("-n").arg("-r").arg(pcap(self.dir.path()));
        command.args(["-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"]);
        command.args(args).args(["-Y", filter, "-T", "fields"]);
        for field in fields {
            command.args(["-e", field]);
        }
        Ok(output(&mut command, LONG)?.stdout.lines().map(str::to_owned).collect())
    }

    /// The file of all frames.
    pub(crate) fn path(&self) -> PathBuf {
        pcap(self.dir.path())
    }

    /// How many frames a display filter lets through, of those that we have sent.
    pub(crate) fn sent(&self, filter: &str) -> io::Result<usize> {
        let filter = format!("frame.packet_flags_direction == 2 && ({filter})");
        Ok(self.frames(&filter, &["frame.number"])?.len())
    }

    /// The same of those that we have received.
    pub(crate) fn received(&self, filter: &str) -> io::Result<usize> {
        let filter = format!("frame.packet_flags_direction == 1 && ({filter})");
        Ok(self.frames(&filter, &["frame.number"])?.len())
    }
}

fn pcap(dir: &Path) -> PathBuf {
    dir.join("frames.pcapng")
}

type Device = Capture<AfPacket<'static>, BufWriter<File>>;

fn open(name: &str, file: &Path) -> io::Result<Device> {
    let nic = AfPacket::open(name, AfPacketConfig::default()).map_err(io::Error::other)?;
    let config = CaptureConfig { name, epoch_offset: wait::epoch_offset(), snap_len: 0 };
    Capture::new(nic, BufWriter::with_capacity(1 << 20, File::create(file)?), config)
}

/// The loop of a program that links the stack.
fn run(
    mut shard: Shard,
    mut nic: Device,
    received: &Receiver<Job>,
    stop: &AtomicBool,
    events: &Events,
) -> io::Result<Finished> {
    let told = Arc::clone(events);
    shard.set_hook(Some(Box::new(move |_, event| {
        if !matches!(event, Event::Dropped { .. }) {
            told.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{event:?}"));
        }
    })));
    let mut jobs = Vec::new();
    let ended = shard.run(&mut nic, Waiting::Sleep, |shard| {
        jobs.extend(received.try_iter());
        jobs.retain_mut(|job: &mut Job| !job(shard));
        stop.load(Ordering::Relaxed)
    });
    ended.map_err(io::Error::other)?;
    shard.send(&mut nic);
    Ok(Finished { counters: shard.counters(), drops: shard.drops().clone(), nic: nic.counters() })
}

/// What there is to be said of a shard that does not do what it should.
fn state(shard: &Shard) -> String {
    let drops: Vec<_> = shard.drops().named().filter(|(_, count)| *count > 0).collect();
    let addresses: Vec<_> = shard.addresses().collect();
    format!("{:?}\n{drops:?}\n{addresses:?}\n{:?}", shard.counters(), shard.dhcp_lease())
}

/// Runs a line of shell at the peer; its standard output. It must succeed.
pub(crate) fn at_peer(wire: &Wire, line: &str) -> io::Result<String> {
    let mut command = Command::new("sh");
    Ok(wire.at_peer(|| output(command.args(["-ec", line]), LONG))?.stdout)
}

/// Runs a program at the peer to its end, whatever that is.
pub(crate) fn try_at_peer(wire: &Wire, program: &str, args: &[&str]) -> io::Result<Ended> {
    let mut command = Command::new(program);
    wire.at_peer(|| Child::start(command.args(args)))?.wait(LONG)
}

/// Changes settings of the peer's interface below `/proc/sys/net`; a `%` stands for its name.
pub(crate) fn set_peer(wire: &Wire, settings: &[(&str, &str)]) -> io::Result<()> {
    for (name, value) in settings {
        let path = format!("/proc/sys/net/{}", name.replace('%', wire.peer().name()));
        wire.at_peer(|| std::fs::write(&path, value))
            .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
    }
    Ok(())
}
