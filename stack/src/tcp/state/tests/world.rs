//! A connection without a shard: events in, words out.

use std::fmt::Write as _;
use std::sync::Arc;

use smoltcp::time::{Duration, Instant};

use crate::demux::FlowKey;
use crate::tcp::buffer::Pool;
use crate::tcp::config::{Keepalive, Linger, TcpConfig, TcpOptions};
use crate::tcp::counters::TcpCounters;
use crate::tcp::error::Failure;
use crate::tcp::handshake::{Clock, Negotiated};
use crate::tcp::options::{Options, Timestamps};
use crate::tcp::output::{Kind, Limits, Plan};
use crate::tcp::segment::{Ecn, Flags, Header, Segment};
use crate::tcp::seq::Seq;
use crate::tcp::state::{Disposition, Ending, State};
use crate::tcp::tcb::{Cx, News, Tcb};
use crate::tcp::timers::Timer;

/// Numbers wrap soon behind them.
const ISS: Seq = Seq(u32::MAX - 50);
const IRS: Seq = Seq(u32::MAX - 17_050);
/// What the peer's clock says.
const PEER_CLOCK: u32 = u32::MAX;
/// Bytes that are received before the tables begin, so that the phase of quick ACKs is over.
const RECEIVED: u32 = 17_000;

pub(super) struct World {
    tcb: Tcb,
    pool: Pool,
    config: TcpConfig,
    counters: TcpCounters,
    now: Instant,
    base: Base,
    /// What was sent in the last step.
    sent: Vec<String>,
    verdict: String,
    is_in_time_wait: bool,
    /// The right edge of the window as the peer knows it.
    told_edge: Option<Seq>,
}

/// From where numbers are counted.
#[derive(Debug, Clone, Copy)]
struct Base {
    una: Seq,
    nxt: Seq,
    rcv_nxt: Seq,
    edge: Seq,
}

fn options() -> TcpOptions {
    TcpOptions {
        recv_buffer: 10_000,
        recv_buffer_max: 10_000,
        window_scaling: false,
        keepalive: Some(Keepalive {
            idle: Duration::from_secs(10),
            interval: Duration::from_secs(1),
            probes: 2,
        }),
        mtu_probing: false,
        pacing: false,
        ..TcpOptions::default()
    }
}

impl World {
    fn new(tcb: Tcb) -> Self {
        let config = TcpConfig { data_retries: 3, syn_retries: 4, ..TcpConfig::default() };
        let rcv_nxt = tcb.rcv_nxt;
        let base = Base { una: ISS, nxt: ISS + 1, rcv_nxt, edge: rcv_nxt + 10_000 };
        Self {
            tcb,
            pool: Pool::new(1 << 20),
            config,
            counters: TcpCounters::default(),
            now: START,
            base,
            sent: Vec::new(),
            verdict: String::new(),
            is_in_time_wait: false,
            told_edge: None,
        }
    }

    fn flow() -> FlowKey {
        FlowKey::new("10.0.0.1:1000".parse().expect("an address"), "10.0.0.2:80".parse().expect("an address"))
            .expect("one family")
    }

    fn connecting(feature: &str) -> Self {
        let options = TcpOptions { ecn: feature == "+ECN", ..options() };
        let mut world = Self::new(Tcb::connecting(Self::flow(), ISS, 0, Arc::new(options), 1_500, START));
        world.turn();
        world
    }

    /// 17 000 bytes have been received and read, and 100 were sent that are not acknowledged.
    fn established(feature: &str) -> Self {
        let agreed = Negotiated {
            iss: ISS,
            irs: IRS,
            peer_mss: 1_012,
            window_scale: None,
            sack: feature != "-SACK",
            timestamps: (feature != "-TS").then_some(Clock { offset: 0, recent: PEER_CLOCK }),
            ecn: feature == "+ECN",
            snd_wnd: 20_000,
            snd_wl: (IRS, ISS + 1),
            rcv_wnd: 10_000,
            rtt: Some(Duration::from_millis(100)),
            is_lossy: false,
        };
        let mut world = Self::new(Tcb::established(Self::flow(), &agreed, Arc::new(options()), 1_500, START));
        world.rebase();
        for at in 0..RECEIVED / 1_000 {
            world.step(&format!("< A {}(1000) nxt", at * 1_000));
            world.step("read 1000");
        }
        world.step("send 100");
        world
    }

    /// By the shortest way. Behind the name: `+ECN`, `-SACK` or `-TS` for other terms than those of the tables.
    pub(super) fn in_state(name: &str) -> Self {
        let (state, feature) = name.split_once(' ').unwrap_or((name, ""));
        let steps: &[&str] = match state {
            "SYN-RECEIVED" => &["< S irs -"],
            "FIN-WAIT-1" => &["finish"],
            "FIN-WAIT-2" => &["finish", "< A 0 nxt"],
            "CLOSE-WAIT" => &["< FA 0 una"],
            "CLOSING" => &["finish", "< FA 0 una"],
            "LAST-ACK" => &["< FA 0 una", "finish"],
            "CLOSED" => &["abort"],
            _ => &[],
        };
        let is_opening = state.starts_with("SYN");
        let mut world = if is_opening { Self::connecting(feature) } else { Self::established(feature) };
        if is_opening {
            world.base.rcv_nxt = IRS + 1;
            world.base.edge = world.base.rcv_nxt + 10_000;
        }
        for step in steps {
            if !is_opening {
                world.rebase();
            }
            world.step(step);
        }
        if !is_opening {
            world.rebase();
        }
        assert_eq!(world.state(), state, "{name}");
        world
    }

    fn rebase(&mut self) {
        let sender = &self.tcb.sender;
        self.base = Base {
            una: sender.snd_una(),
            nxt: sender.snd_nxt(),
            rcv_nxt: self.tcb.rcv_nxt,
            edge: self.tcb.rcv_adv,
        };
    }

    /// What the last of the steps does: verdict, state, segments, news.
    pub(super) fn run(&mut self, steps: &str) -> String {
        for step in steps.split(';') {
            self.tcb.news = News::default();
            self.sent.clear();
            self.verdict = "-".to_owned();
            self.step(step.trim());
        }
        if self.tcb.ack.deadline().is_some() {
            self.sent.push("(delayed ACK)".to_owned());
        }
        let sent = if self.sent.is_empty() { "-".to_owned() } else { self.sent.join(", ") };
        let News { readable, writable, changed } = self.tcb.news;
        let letters = [("r", readable), ("w", writable), ("c", changed)];
        let news: String =
            letters.iter().filter(|(_, is_news)| *is_news).map(|(letter, _)| *letter).collect();
        let news = if news.is_empty() { "-".to_owned() } else { news };
        format!("{} | {} | {sent} | {news}", self.verdict, self.state())
    }

    /// Another event, after which everything has to be in order.
    pub(super) fn happens(&mut self, steps: &str) {
        if self.tcb.state.is_synchronized() {
            self.rebase();
        }
        self.run(steps);
        let tcb = &self.tcb;
        let (una, nxt) = (tcb.sender.snd_una(), tcb.sender.snd_nxt());
        assert!(una.is_at_most(nxt), "{una} {nxt}");
        assert!(tcb.recv.readable() + tcb.recv.early() <= 30_000, "more than was offered");
        assert!(self.pool.in_use_bytes() <= self.pool.bytes_max());
        if tcb.state == State::Closed {
            assert_eq!(tcb.deadline(), None);
            assert!(!tcb.may_send() && tcb.send.is_empty());
            return;
        }
        // Keepalive does not count: most connections have none.
        let waits = una != nxt || tcb.unsent() > 0 || tcb.owes_fin();
        let has_timer = tcb.sender.deadline().is_some() || tcb.timers.is_set(Timer::Persist);
        assert!(!waits || tcb.opening.is_some() || has_timer, "nothing will ever happen: {tcb:?}");
        assert!(tcb.opening.is_none() || tcb.timers.is_set(Timer::Handshake), "no SYN goes again: {tcb:?}");
        assert!(tcb.deadline().is_none_or(|at| at > self.now), "a timer that is due stays so: {tcb:?}");
        let numbers = tcb.send.len() as u32 + u32::from(tcb.fin_sent.is_some() && !tcb.is_fin_acked());
        assert!(una + numbers == nxt + tcb.unsent(), "{una} {numbers} {nxt}");
    }

    /// What a peer relies on.
    fn check_plan(&mut self, plan: &Plan) {
        let (header, tcb) = (&plan.header, &self.tcb);
        if header.flags.has(Flags::SYN) {
            return;
        }
        assert_eq!(header.ack, tcb.rcv_nxt);
        let edge = header.ack + u32::from(header.window);
        assert!(self.told_edge.is_none_or(|told| edge.is_at_least(told)), "the window shrinks");
        self.told_edge = Some(edge);
        let end = header.seq + plan.len as u32;
        let fin = u32::from(header.flags.has(Flags::FIN));
        assert!((end + fin).is_at_most(tcb.data_end() + 1), "more than was written");
        if plan.kind == Kind::New && plan.len > 0 {
            assert_eq!(header.seq, tcb.sender.snd_nxt());
            assert!(end.is_at_most(tcb.sender.snd_una() + tcb.snd_wnd), "beyond the window of the peer");
        }
    }

    fn state(&self) -> &'static str {
        if self.is_in_time_wait { "TIME-WAIT" } else { self.tcb.state.name() }
    }

    fn with_cx<R>(&mut self, f: impl FnOnce(&mut Tcb, &mut Cx<'_>) -> R) -> R {
        let Self { tcb, pool, config, counters, now, .. } = self;
        f(tcb, &mut Cx { now: *now, config, pool, counters })
    }

    fn step(&mut self, step: &str) {
        let (verb, rest) = step.split_once(' ').unwrap_or((step, ""));
        match verb {
            "<" => self.receive(rest),
            "send" => {
                let data = vec![7; rest.parse().expect("bytes")];
                let has_room = self.tcb.state.sends() && !self.tcb.wants_finish;
                let limit = if has_room { 64 << 10 } else { 0 };
                let written = self.with_cx(|tcb, cx| tcb.send.write(cx.pool, &data, limit));
                self.verdict = if has_room { format!("{written}") } else { "refused".to_owned() };
            }
            "read" => {
                let mut room = vec![0; rest.parse().expect("bytes")];
                let read = self.with_cx(|tcb, cx| {
                    let len = tcb.recv.read(cx.pool, &mut room);
                    if len > 0 {
                        tcb.on_read(cx, len);
                    }
                    len
                });
                self.verdict = format!("{read}");
            }
            "finish" => self.tcb.finish(),
            "abort" => self.abort(),
            "close" => self.close(),
            "linger" => self.change(|options| options.linger = Linger::For(duration(rest))),
            "silent" => {
                self.change(|options| options.keepalive = None);
                self.tcb.restart_keepalive(self.now);
            }
            "user" => self.change(|options| options.user_timeout = Some(duration(rest))),
            "wait" => self.wait(duration(rest)),
            _ => panic!("no such step: {step}"),
        }
        self.turn();
    }

    fn change(&mut self, f: impl FnOnce(&mut TcpOptions)) {
        let mut options = *self.tcb.options;
        f(&mut options);
        self.tcb.set_options(self.now, options);
    }

    /// As the shard does.
    fn abort(&mut self) {
        if self.tcb.state == State::Closed {
            return;
        }
        if self.tcb.is_reset_by_abort() {
            let header = self.tcb.reset_now();
            self.note_header(&header);
        }
        self.end(Ending::Failed(Failure::Aborted));
    }

    /// As the shard does.
    fn close(&mut self) {
        self.tcb.is_orphan = true;
        let is_abrupt = self.tcb.options.linger == Linger::For(Duration::ZERO);
        match self.tcb.state {
            State::Closed => {}
            State::SynSent => self.end(Ending::Failed(Failure::Aborted)),
            _ if self.tcb.recv.readable() > 0 || is_abrupt => self.abort(),
            _ => {
                self.tcb.finish();
                self.with_cx(|tcb, cx| tcb.arm_orphan(cx));
            }
        }
    }

    /// Time passes; whatever is due is done when it is.
    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..1_000 {
            let Some(at) = self.tcb.deadline().filter(|at| *at <= until) else {
                self.now = until;
                return;
            };
            self.now = self.now.max(at);
            if let Some(ending) = self.with_cx(|tcb, cx| tcb.handle_timeout(cx)) {
                if self.tcb.state.is_synchronized() {
                    let header = self.tcb.reset_now();
                    self.note_header(&header);
                }
                self.verdict = told(ending);
                self.end(ending);
            }
            self.turn();
        }
        panic!("timers without an end");
    }

    fn end(&mut self, ending: Ending) {
        if !matches!(ending, Ending::Failed(_)) && self.tcb.ack.is_due {
            self.send_one();
        }
        let failure = match ending {
            Ending::Failed(failure) => Some(failure),
            Ending::Closed | Ending::TimeWait => None,
        };
        self.is_in_time_wait = ending == Ending::TimeWait;
        self.with_cx(|tcb, cx| tcb.end(cx, failure));
    }

    /// Everything that can be sent is.
    fn turn(&mut self) {
        for _ in 0..100 {
            if !self.tcb.may_send() || !self.send_one() {
                let now = self.now;
                self.tcb.on_nothing_to_send(now);
                return;
            }
        }
        panic!("segments without an end");
    }

    fn send_one(&mut self) -> bool {
        let limits = Limits { now: self.now, gso_bytes_max: 0, link_mtu: 1_500 };
        let Some(plan) = self.tcb.plan(&limits, &self.pool) else { return false };
        self.note_plan(&plan);
        self.check_plan(&plan);
        self.with_cx(|tcb, cx| tcb.on_sent(cx, &plan));
        true
    }

    fn note_plan(&mut self, plan: &Plan) {
        let mut payload = vec![0; plan.len];
        self.tcb.send.copy_out(plan.offset, &mut payload);
        let mut words = self.words(&plan.header, plan.len);
        words.push_str(if plan.is_ect { " ect" } else { "" });
        self.sent.push(words);
    }

    fn note_header(&mut self, header: &Header) {
        let words = self.words(header, 0);
        self.sent.push(words);
    }

    fn words(&self, header: &Header, len: usize) -> String {
        let flags = header.flags;
        let mut words = format!("{flags:?} {}", offset(header.seq, self.base.nxt));
        if len > 0 {
            let _ = write!(words, "({len})");
        }
        if flags.has(Flags::ACK) {
            let _ = write!(words, " {}", offset(header.ack, self.base.rcv_nxt));
        }
        if flags.has(Flags::RST) {
            return words;
        }
        let edge = header.ack + u32::from(header.window);
        if flags.has(Flags::ACK) && edge != self.base.edge {
            let _ = write!(words, " edge={}", offset(edge, self.base.rcv_nxt));
        }
        let blocks = header.options.sack.as_slice().iter();
        let blocks: Vec<_> = blocks
            .map(|(start, end)| {
                format!("{}:{}", offset(*start, self.base.rcv_nxt), offset(*end, self.base.rcv_nxt))
            })
            .collect();
        if !blocks.is_empty() {
            let _ = write!(words, " sack={}", blocks.join(","));
        }
        match header.options.timestamps {
            None => words.push_str(" nots"),
            Some(timestamps) if flags.has(Flags::ACK) && timestamps.ecr != PEER_CLOCK => {
                let _ = write!(words, " ecr={}", timestamps.ecr.wrapping_sub(PEER_CLOCK) as i32);
            }
            Some(_) => {}
        }
        if flags.has(Flags::SYN) {
            let _ = write!(words, " mss={}", header.options.mss.unwrap_or_default());
            words.push_str(if header.options.sack_permitted { " sackok" } else { "" });
        }
        words
    }

    fn receive(&mut self, words: &str) {
        let mut words = words.split(' ');
        let flags = flags(words.next().expect("flags"));
        let (seq, len) = self.numbers(words.next().expect("a number"));
        let ack = words.next().expect("an acknowledgment");
        let payload = vec![9; len];
        let is_syn = flags.has(Flags::SYN);
        let timestamps = Some(Timestamps { val: PEER_CLOCK, ecr: 0 });
        let mut segment = Segment {
            src_port: 80,
            dst_port: 1000,
            seq,
            ack: self.ack(ack),
            flags,
            window: 20_000,
            options: Options {
                mss: is_syn.then_some(1_012),
                sack_permitted: is_syn,
                timestamps,
                ..Options::default()
            },
            payload: &payload,
            segment_bytes: None,
            ecn: Ecn::NotCapable,
        };
        for word in words {
            match word.split_once('=').unwrap_or((word, "")) {
                ("win", bytes) => segment.window = bytes.parse().expect("bytes"),
                ("nots", _) => segment.options.timestamps = None,
                ("ts", offset) => {
                    let offset: i32 = offset.parse().expect("an offset");
                    let val = PEER_CLOCK.wrapping_add_signed(offset);
                    segment.options.timestamps = Some(Timestamps { val, ecr: 0 });
                }
                ("ce", _) => segment.ecn = Ecn::CongestionExperienced,
                _ => panic!("no such word: {word}"),
            }
        }
        let disposition = self.with_cx(|tcb, cx| tcb.on_segment(cx, &segment));
        self.follow(disposition);
    }

    /// As the shard does; no throttle holds back.
    fn follow(&mut self, disposition: Disposition) {
        self.verdict = match disposition {
            Disposition::Taken => "taken".to_owned(),
            Disposition::Dropped(reason) => format!("dropped: {reason:?}"),
            Disposition::Answered(reason) => {
                self.tcb.ack.force();
                format!("answered: {reason:?}")
            }
            Disposition::Challenged(reason) => {
                self.tcb.ack.force();
                format!("challenged: {reason:?}")
            }
            Disposition::Refused(reason, header) => {
                self.note_header(&header);
                format!("refused: {reason:?}")
            }
            Disposition::Ended(ending) => {
                self.end(ending);
                told(ending)
            }
            Disposition::Reset(failure, header) => {
                self.note_header(&header);
                self.end(Ending::Failed(failure));
                format!("reset: {failure:?}")
            }
        };
    }

    /// `0(100)`: a number and bytes.
    fn numbers(&self, word: &str) -> (Seq, usize) {
        let (seq, len) = word.split_once('(').unwrap_or((word, "0)"));
        let len = len.trim_end_matches(')').parse().expect("bytes");
        let seq = match seq {
            "irs" => IRS,
            _ => Seq(self.base.rcv_nxt.0.wrapping_add_signed(seq.parse().expect("an offset"))),
        };
        (seq, len)
    }

    /// `una`, `nxt+1`, `-`.
    fn ack(&self, word: &str) -> Seq {
        if word == "-" {
            return Seq(0);
        }
        let (anchor, offset) = word.split_at(3);
        let anchor = if anchor == "una" { self.base.una } else { self.base.nxt };
        let offset = if offset.is_empty() { 0 } else { offset.parse().expect("an offset") };
        Seq(anchor.0.wrapping_add_signed(offset))
    }
}

const START: Instant = Instant::from_millis_const(1_000_000);

fn told(ending: Ending) -> String {
    match ending {
        Ending::Closed => "closed".to_owned(),
        Ending::TimeWait => "finished".to_owned(),
        Ending::Failed(failure) => format!("failed: {failure:?}"),
    }
}

fn offset(seq: Seq, base: Seq) -> i32 {
    seq.since(base) as i32
}

fn flags(word: &str) -> Flags {
    let letters = ["F", "S", "R", "P", "A", "U", "E", "C"];
    let bit = |(bit, letter): (usize, &&str)| if word.contains(*letter) { 1 << bit } else { 0 };
    Flags(letters.iter().enumerate().map(bit).sum())
}

fn duration(word: &str) -> Duration {
    match word.strip_suffix("ms") {
        Some(millis) => Duration::from_millis(millis.parse().expect("milliseconds")),
        None => Duration::from_secs(word.trim_end_matches('s').parse().expect("seconds")),
    }
}
