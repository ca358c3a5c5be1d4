//! A line of bytes in virtual time, both ways: start and stop bits, a FIFO at each end, and what goes wrong on it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard};

use smoltcp::time::{Duration, Instant};
use wirestack::nic::serial::port::{Opening, Port};
use wirestack::random::Random;

/// What a line does to bytes. Chances are those of each direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SerialSpec {
    /// Bits a second, ten of which are a byte. 0: all at once.
    pub baud: u32,
    /// Bytes that were written and have not left, at most.
    pub fifo_bytes: usize,
    /// From the last bit of a byte here to the byte at the other end.
    pub delay: Duration,
    /// The chance of a byte that a bit of it is another.
    pub bit_errors: f64,
    /// The chance of a byte that it is lost.
    pub dropped_bytes: f64,
    /// The chance of a frame (what is between two END bytes of SLIP) that it is lost with its END.
    pub lost_frames: f64,
    /// If one end at a time can send only: how long it is from the last bit of one to the first of the other.
    pub turn_around: Option<Duration>,
}

impl SerialSpec {
    /// A line on which nothing goes wrong, with a FIFO as that of a driver of Linux.
    pub fn new(baud: u32) -> Self {
        Self {
            baud,
            fifo_bytes: 4_096,
            delay: Duration::from_micros(500),
            bit_errors: 0.0,
            dropped_bytes: 0.0,
            lost_frames: 0.0,
            turn_around: None,
        }
    }

    fn byte_nanos(&self) -> i64 {
        if self.baud == 0 { 0 } else { 10_000_000_000 / i64::from(self.baud) }
    }
}

/// END of RFC 1055.
const END: u8 = 0xc0;

/// Bytes behind each other, of which the first is there at a time.
#[derive(Debug)]
struct Chunk {
    first_at: i64,
    bytes: Vec<u8>,
    taken: usize,
}

/// From one end to the other.
#[derive(Debug)]
struct Way {
    /// Pieces on their way out: when they begin, and how many bytes.
    leaving: VecDeque<(i64, usize)>,
    /// What waits until the other end is silent, and since when.
    waiting: Vec<u8>,
    waits_since: i64,
    busy_until: i64,
    arrivals: VecDeque<Chunk>,
    /// The frame on the line, if there is one, is lost.
    is_lost: Option<bool>,
    random: Random,
    /// Bytes until the next one that is wrong, and until the next one that is lost.
    until: [u64; 2],
    lost_frames: u64,
    lost_bytes: u64,
}

/// A line.
#[derive(Debug)]
struct Line {
    spec: SerialSpec,
    now: i64,
    ways: [Way; 2],
    /// How often each end was plugged in or out; odd: it is in.
    plugs: [u32; 2],
    /// What that was when the port was opened. 0: it is not.
    opened: [u32; 2],
    /// Who has sent last, if one at a time sends.
    last: usize,
}

/// What happened to the bytes of a direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LineLosses {
    /// Frames that were lost as such.
    pub frames: u64,
    /// Bytes that were lost, those of frames too.
    pub bytes: u64,
}

/// A handle of a line, for the simulator.
#[derive(Debug, Clone)]
pub struct SharedLine(Arc<Mutex<Line>>);

fn nanos(at: Instant) -> i64 {
    at.total_micros() * 1_000
}

/// The first microsecond that is not before it.
fn micros_after(nanos: i64) -> Instant {
    Instant::from_micros(nanos.div_euclid(1_000) + i64::from(nanos.rem_euclid(1_000) > 0))
}

/// So many bytes until chance strikes.
fn until(random: &mut Random, chance: f64) -> u64 {
    if chance <= 0.0 {
        return u64::MAX;
    }
    let unit = (random.u64() >> 11) as f64 / (1_u64 << 53) as f64;
    ((1.0 - unit).ln() / (1.0 - chance).ln()) as u64
}

fn happens(random: &mut Random, chance: f64) -> bool {
    chance > 0.0 && ((random.u64() >> 11) as f64 / (1_u64 << 53) as f64) < chance
}

impl SharedLine {
    /// A line between two ports, which are plugged in.
    pub fn new(spec: SerialSpec, random: &mut Random) -> Self {
        let mut way = || Way {
            leaving: VecDeque::new(),
            waiting: Vec::new(),
            waits_since: 0,
            busy_until: 0,
            arrivals: VecDeque::new(),
            is_lost: None,
            until: [spec.bit_errors, spec.dropped_bytes].map(|chance| until(random, chance)),
            random: random.fork(),
            lost_frames: 0,
            lost_bytes: 0,
        };
        let ways = [way(), way()];
        Self(Arc::new(Mutex::new(Line { spec, now: 0, ways, plugs: [1; 2], opened: [0; 2], last: 0 })))
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.0.lock().expect("nobody has panicked")
    }

    /// The port of an end.
    pub fn port(&self, end: usize) -> SimPort {
        SimPort { line: self.clone(), end }
    }

    /// It is so late.
    pub fn set_now(&self, now: Instant) {
        let mut line = self.lock();
        line.now = nanos(now);
        line.take_turns();
    }

    /// When an end may begin to send that waits for the other one.
    pub fn next_turn(&self) -> Option<Instant> {
        self.lock().next_burst().map(|(at, _)| micros_after(at))
    }

    /// When an end has a frame to read: whoever looks before finds a part of one.
    pub fn next_arrival(&self, end: usize) -> Option<Instant> {
        let line = self.lock();
        let byte = line.spec.byte_nanos();
        line.ways[1 - end].arrivals.iter().find_map(|chunk| {
            let at = chunk.bytes[chunk.taken..].iter().position(|byte| *byte == END)?;
            let at = chunk.first_at + (chunk.taken + at) as i64 * byte;
            Some(micros_after(at))
        })
    }

    /// Pulls the plug of an end out, or puts it in. What is under way is lost.
    pub fn set_plugged(&self, end: usize, is_plugged: bool) {
        let mut line = self.lock();
        if (line.plugs[end] % 2 == 1) == is_plugged {
            return;
        }
        line.plugs[end] += 1;
        line.clear(end);
        let (now, byte) = (line.now, line.spec.byte_nanos());
        // What has come to the other end can be read there.
        let way = &mut line.ways[end];
        for chunk in &mut way.arrivals {
            let there = if chunk.first_at > now {
                0
            } else if byte == 0 {
                chunk.bytes.len()
            } else {
                ((now - chunk.first_at) / byte + 1) as usize
            };
            chunk.bytes.truncate(there.max(chunk.taken));
        }
        way.arrivals.retain(|chunk| chunk.taken < chunk.bytes.len());
    }

    /// What was lost from an end to the other.
    pub fn losses(&self, from: usize) -> LineLosses {
        let line = self.lock();
        LineLosses { frames: line.ways[from].lost_frames, bytes: line.ways[from].lost_bytes }
    }
}

impl Line {
    /// What an end has to send, and what it has to read, is gone.
    fn clear(&mut self, end: usize) {
        let now = self.now;
        self.ways[1 - end].arrivals.clear();
        let way = &mut self.ways[end];
        way.leaving.clear();
        way.waiting.clear();
        way.busy_until = now;
        way.is_lost = None;
    }

    fn unsent(&mut self, end: usize) -> usize {
        let (now, byte) = (self.now, self.spec.byte_nanos());
        let way = &mut self.ways[end];
        way.leaving.retain(|(start, len)| start + *len as i64 * byte > now);
        let left = |(start, len): &(i64, usize)| {
            let gone = if *start >= now || byte == 0 { 0 } else { ((now - start) / byte) as usize };
            len - gone.min(*len)
        };
        way.waiting.len() + way.leaving.iter().map(left).sum::<usize>()
    }

    fn write(&mut self, end: usize, bytes: &[u8]) -> usize {
        let room = self.spec.fifo_bytes.saturating_sub(self.unsent(end));
        let bytes = &bytes[..room.min(bytes.len())];
        if bytes.is_empty() {
            return 0;
        }
        let now = self.now;
        if self.spec.turn_around.is_none() {
            let start = self.ways[end].busy_until.max(now);
            self.send(end, start, bytes);
        } else {
            let way = &mut self.ways[end];
            way.waits_since = if way.waiting.is_empty() { now } else { way.waits_since };
            way.waiting.extend_from_slice(bytes);
            self.take_turns();
        }
        bytes.len()
    }

    fn send(&mut self, end: usize, start: i64, bytes: &[u8]) {
        let (spec, hears) = (self.spec, 1 - end);
        let is_heard = self.plugs[hears] % 2 == 1 && self.opened[hears] == self.plugs[hears];
        let way = &mut self.ways[end];
        way.busy_until = start + bytes.len() as i64 * spec.byte_nanos();
        way.leaving.push_back((start, bytes.len()));
        if is_heard {
            way.carry(&spec, start, bytes);
        } else {
            way.is_lost = None;
        }
    }

    /// One end at a time sends: who is next, and when. Who has sent goes on without a gap, unless the other one waits.
    fn next_burst(&self) -> Option<(i64, usize)> {
        let gap = nanos(Instant::ZERO + self.spec.turn_around?);
        let start = |end: usize| {
            let way = &self.ways[end];
            let free_at = self.ways[self.last].busy_until + if end == self.last { 0 } else { gap };
            (!way.waiting.is_empty()).then(|| way.waits_since.max(free_at))
        };
        match (start(self.last), start(1 - self.last)) {
            (Some(own), Some(other)) if other > own + gap => Some((own, self.last)),
            (own, other) => other.map(|at| (at, 1 - self.last)).or(own.map(|at| (at, self.last))),
        }
    }

    /// Whose turn it is sends all that waits.
    fn take_turns(&mut self) {
        while let Some((start, end)) = self.next_burst().filter(|(at, _)| *at <= self.now) {
            let bytes = std::mem::take(&mut self.ways[end].waiting);
            self.last = end;
            self.send(end, start, &bytes);
        }
    }
}

impl Way {
    /// Bytes leave from `start` on, and something may happen to each.
    fn carry(&mut self, spec: &SerialSpec, start: i64, bytes: &[u8]) {
        let byte_nanos = spec.byte_nanos();
        let first_at = start + byte_nanos + nanos(Instant::ZERO + spec.delay);
        let mut chunk = Chunk { first_at, bytes: Vec::with_capacity(bytes.len()), taken: 0 };
        for (index, &byte) in bytes.iter().enumerate() {
            let Some(byte) = self.pass(spec, byte) else {
                self.lost_bytes += 1;
                let first_at = first_at + (index + 1) as i64 * byte_nanos;
                let done = std::mem::replace(&mut chunk, Chunk { first_at, bytes: Vec::new(), taken: 0 });
                self.arrivals.extend(Some(done).filter(|chunk| !chunk.bytes.is_empty()));
                continue;
            };
            chunk.bytes.push(byte);
        }
        self.arrivals.extend(Some(chunk).filter(|chunk| !chunk.bytes.is_empty()));
    }

    /// What becomes of a byte. `None`: it is lost.
    fn pass(&mut self, spec: &SerialSpec, byte: u8) -> Option<u8> {
        if spec.lost_frames > 0.0 {
            // Between two frames there may be an END or two.
            let is_lost = if byte == END {
                self.is_lost.take().unwrap_or(false)
            } else {
                match self.is_lost {
                    Some(is_lost) => is_lost,
                    None => {
                        let is_lost = happens(&mut self.random, spec.lost_frames);
                        self.lost_frames += u64::from(is_lost);
                        *self.is_lost.insert(is_lost)
                    }
                }
            };
            if is_lost {
                return None;
            }
        }
        if self.strikes(1, spec.dropped_bytes) {
            return None;
        }
        let flip = if self.strikes(0, spec.bit_errors) { 1 << self.random.below(8) } else { 0 };
        Some(byte ^ flip)
    }

    fn strikes(&mut self, which: usize, chance: f64) -> bool {
        if self.until[which] > 0 {
            self.until[which] -= 1;
            return false;
        }
        self.until[which] = until(&mut self.random, chance);
        true
    }
}

/// The port of an end of a line.
#[derive(Debug)]
pub struct SimPort {
    line: SharedLine,
    end: usize,
}

impl SimPort {
    fn lock(&self) -> io::Result<MutexGuard<'_, Line>> {
        let line = self.line.lock();
        if line.plugs[self.end] == line.opened[self.end] {
            Ok(line)
        } else {
            Err(io::Error::other("unplugged"))
        }
    }
}

impl Port for SimPort {
    fn open(&mut self) -> io::Result<Opening> {
        let mut line = self.line.lock();
        if line.plugs[self.end].is_multiple_of(2) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "not plugged in"));
        }
        line.clear(self.end);
        line.opened[self.end] = line.plugs[self.end];
        Ok(Opening::Done)
    }

    fn close(&mut self) {
        self.line.lock().opened[self.end] = 0;
    }

    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let mut line = self.lock()?;
        let (now, byte) = (line.now, line.spec.byte_nanos());
        let arrivals = &mut line.ways[1 - self.end].arrivals;
        let mut len = 0;
        while let Some(chunk) = arrivals.front_mut() {
            let there = match now - chunk.first_at {
                early if early < 0 => 0,
                _ if byte == 0 => chunk.bytes.len(),
                since => (since / byte + 1) as usize,
            };
            let there = there.min(chunk.bytes.len());
            let taken = (there - chunk.taken.min(there)).min(room.len() - len);
            room[len..len + taken].copy_from_slice(&chunk.bytes[chunk.taken..chunk.taken + taken]);
            chunk.taken += taken;
            len += taken;
            if chunk.taken < chunk.bytes.len() {
                break;
            }
            arrivals.pop_front();
        }
        if len == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(len) }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.lock()?.write(self.end, bytes);
        if len == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(len) }
    }

    fn unsent(&self) -> Option<usize> {
        self.lock().ok().map(|mut line| line.unsent(self.end))
    }

    fn descriptors(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [None, None]
    }
}
