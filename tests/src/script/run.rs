//! A script against a subject.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::path::Path;

use smoltcp::time::Instant;

use super::build;
use super::call::{Call, CallResult};
use super::compare::differences;
use super::decode;
use super::packet::{Kind, Layer, Mutation, Packet, Value};
use super::parse::{Action, Event, Script, Wanted, When};
use super::print;
use super::sequence::Sequences;
use super::subject::Subject;
use super::trace::Trace;

/// Runs a script to its end, or to the first thing that is not as it says.
///
/// # Errors
/// What was expected, what came, how they differ, and all that happened, as a text of several lines.
pub fn run(script: &Script, subject: &mut dyn Subject) -> Result<(), String> {
    let kinds = mentioned(script);
    let mut run = Run {
        script,
        subject,
        queue: VecDeque::new(),
        frames: 0,
        trace: Trace::default(),
        sequences: Sequences::default(),
        last: Instant::ZERO,
        answers_arp: !kinds.contains(&Noise::Arp),
        answers_neighbors: !kinds.contains(&Noise::Neighbor),
        kinds,
    };
    let kind = run.subject.kind();
    let outcome = run.events();
    let stem = Path::new(&script.name).file_stem().map_or("script".into(), |stem| stem.to_string_lossy());
    let pcap = run.trace.write_pcap(&format!("{stem}-{kind}"));
    outcome.map_err(|failure| {
        let mut text = format!("{failure}\n  all that happened ({kind}):\n{}", run.trace.text());
        match pcap {
            Ok(Some(path)) => text.push_str(&format!("  frames: {}", path.display())),
            Ok(None) => text.push_str("  PCAP=FOLDER keeps the frames"),
            Err(error) => text.push_str(&format!("  frames could not be kept: {error}")),
        }
        text
    })
}

/// Kinds of frames that a host sends on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Noise {
    Arp,
    Neighbor,
    Router,
    Mld,
    Igmp,
}

fn noise(layers: &[Layer]) -> Option<Noise> {
    layers.iter().find_map(|layer| match (layer.kind, layer.number("type")) {
        (Kind::Arp, _) => Some(Noise::Arp),
        (Kind::Icmpv6, Some(135 | 136)) => Some(Noise::Neighbor),
        (Kind::Icmpv6, Some(133)) => Some(Noise::Router),
        (Kind::Icmpv6, Some(131 | 132 | 143)) => Some(Noise::Mld),
        (Kind::Igmp, _) => Some(Noise::Igmp),
        _ => None,
    })
}

/// What a script speaks of.
fn mentioned(script: &Script) -> Vec<Noise> {
    let packets = script.events.iter().flat_map(|event| match &event.action {
        Action::Inject(packets) => packets.iter().collect(),
        Action::Expect(wanted) | Action::ExpectMaybe(wanted) | Action::ExpectLast(wanted) => {
            wanted.packets.iter().collect::<Vec<_>>()
        }
        Action::ExpectAll(wanted) => wanted.iter().flat_map(|wanted| &wanted.packets).collect(),
        _ => Vec::new(),
    });
    let layers = packets.filter_map(|packet| match packet {
        Packet::Layers(layers, _) => Some(noise(layers)?),
        Packet::Raw(frame) => Some(noise(&decode::frame(frame))?),
    });
    layers.collect()
}

/// A frame that nobody has looked at.
struct Came {
    at: Instant,
    layers: Vec<Layer>,
}

struct Run<'a> {
    script: &'a Script,
    subject: &'a mut dyn Subject,
    queue: VecDeque<Came>,
    /// How many frames have come.
    frames: usize,
    trace: Trace,
    sequences: Sequences,
    /// The time of the event before.
    last: Instant,
    kinds: Vec<Noise>,
    answers_arp: bool,
    answers_neighbors: bool,
}

impl Run<'_> {
    fn events(&mut self) -> Result<(), String> {
        let script = self.script;
        let kind = self.subject.kind();
        for event in script.events.iter().filter(|event| event.only.is_none_or(|only| only == kind)) {
            self.event(event)
                .map_err(|failure| format!("{}:{}: {failure}\n  {}", script.name, event.line, event.text))?;
        }
        let came = self.next_frame(self.subject.now() + self.subject.quiet());
        match came.map_err(|failure| format!("{}: at the end: {failure}", script.name))? {
            Some(came) => Err(format!(
                "{}: at the end: nothing more is expected, and this came:\n  > {}",
                script.name,
                print::packet(&came.layers)
            )),
            None => Ok(()),
        }
    }

    fn event(&mut self, event: &Event) -> Result<(), String> {
        match &event.action {
            Action::Inject(packets) => {
                self.pass_until(event.when)?;
                packets.iter().try_for_each(|packet| self.inject(packet))
            }
            Action::Wait => self.pass_until(event.when),
            Action::Call(call, wanted) => {
                self.pass_until(event.when)?;
                self.call(call, wanted)
            }
            Action::ExpectNone(time) => {
                self.pass_until(event.when)?;
                let until = self.last.max(self.subject.now()) + (*time).max(self.subject.quiet());
                match self.next_frame(until)? {
                    Some(came) => Err(format!(
                        "nothing is expected, and this came:\n  > {}",
                        print::packet(&came.layers)
                    )),
                    None => {
                        self.last = self.subject.now();
                        Ok(())
                    }
                }
            }
            Action::ExpectAny(time) => {
                let until = self.last.max(self.subject.now()) + *time;
                while self.next_frame(until)?.is_some() {}
                self.last = until;
                Ok(())
            }
            Action::Expect(wanted) => self.expect(vec![wanted.clone()], event.when),
            Action::ExpectMaybe(wanted) => self.expect_maybe(wanted, event.when),
            Action::ExpectLast(wanted) => self.expect_last(wanted, event.when),
            Action::ExpectAll(wanted) => self.expect(wanted.clone(), event.when),
        }
    }

    /// The first and the last time of an event.
    fn times(&self, when: When) -> Option<(Instant, Instant)> {
        match when {
            When::Unsaid => None,
            When::After(first, last) => Some((self.last + first, self.last + last)),
            When::At(first, last) => Some((Instant::ZERO + first, Instant::ZERO + last)),
        }
    }

    /// Lets time pass until an event is due; what comes meanwhile is for later lines.
    fn pass_until(&mut self, when: When) -> Result<(), String> {
        if let Some((due, _)) = self.times(when) {
            while let Some((at, frame)) = self.subject.poll_frame(due)? {
                self.take(at, &frame)?;
            }
            self.last = due;
        }
        Ok(())
    }

    fn inject(&mut self, packet: &Packet) -> Result<(), String> {
        let mut packet = packet.clone();
        if let Packet::Layers(layers, _) = &mut packet {
            self.sequences.make_absolute(layers, self.subject.now());
        }
        let setup = &self.script.setup;
        let frame = build::frame(&packet, &setup.peer, &setup.host)?;
        let len_max = usize::from(setup.mtu) + ETHERNET_HEADER_LEN;
        if frame.len() > len_max {
            return Err(format!("the frame has {} bytes; at most {len_max} fit the MTU", frame.len()));
        }
        self.last = self.last.max(self.subject.now());
        self.hand_over(&frame, "")
    }

    fn hand_over(&mut self, frame: &[u8], remark: &str) -> Result<(), String> {
        let mut layers = decode::frame(frame);
        self.sequences.relate_peer(&mut layers);
        self.trace.injected(self.subject.now(), frame, &layers, remark);
        self.subject.inject(frame)
    }

    fn call(&mut self, call: &Call, wanted: &CallResult) -> Result<(), String> {
        let came = self.subject.call(call, wanted)?;
        let now = self.subject.now();
        self.last = self.last.max(now);
        self.trace
            .called(now, if came == CallResult::Ok { call.to_string() } else { format!("{call} = {came}") });
        if came.is(wanted) { Ok(()) } else { Err(format!("expected {wanted}, came {came}")) }
    }

    /// Expects these packets next, in any order.
    fn expect(&mut self, mut wanted: Vec<Wanted>, when: When) -> Result<(), String> {
        let times = self.times(when);
        let tolerance = self.subject.tolerance();
        let deadline = match times {
            Some((_, last)) => last + tolerance,
            None => self.last.max(self.subject.now()) + self.subject.patience(),
        };
        while !wanted.is_empty() {
            let Some(came) = self.next_frame(deadline)? else {
                let missing: String =
                    wanted.iter().map(|wanted| format!("\n  {}: {}", wanted.line, wanted.text)).collect();
                return Err(format!("this did not come until {deadline}:{missing}"));
            };
            let differ = |wanted: &Wanted| differ(wanted, &came.layers);
            let all: Vec<Vec<String>> = wanted.iter().map(differ).collect();
            match all.iter().position(Vec::is_empty) {
                Some(position) => {
                    wanted.remove(position);
                }
                None => {
                    let lines: String =
                        all.into_iter().flatten().map(|line| format!("\n    {line}")).collect();
                    return Err(format!("another packet came:\n  > {}{lines}", print::packet(&came.layers)));
                }
            }
            self.check_time(&came, times)?;
            self.last = came.at;
        }
        Ok(())
    }

    fn check_time(&self, came: &Came, times: Option<(Instant, Instant)>) -> Result<(), String> {
        let tolerance = self.subject.tolerance();
        let Some((first, last)) = times else {
            return Ok(());
        };
        let early = (tolerance / EARLY_SHARE).min((first - self.last.min(first)) / 2);
        if came.at + early < first || came.at > last + tolerance {
            return Err(format!(
                "it came at {}, expected from {first} to {last} (within {tolerance})",
                came.at
            ));
        }
        Ok(())
    }

    /// Takes the next packet if it is this one.
    fn expect_maybe(&mut self, wanted: &Wanted, when: When) -> Result<(), String> {
        let times = self.times(when);
        let deadline = match times {
            Some((_, last)) => last + self.subject.tolerance() / EARLY_SHARE,
            None => self.last.max(self.subject.now()) + self.subject.quiet(),
        };
        if let Some(came) = self.next_frame(deadline)? {
            if differ(wanted, &came.layers).is_empty() {
                self.last = came.at;
            } else {
                self.queue.push_front(came);
            }
        }
        Ok(())
    }

    /// Takes packets until this one comes.
    fn expect_last(&mut self, wanted: &Wanted, when: When) -> Result<(), String> {
        let times = self.times(when);
        let deadline = match times {
            Some((_, last)) => last + self.subject.tolerance(),
            None => self.last.max(self.subject.now()) + self.subject.patience(),
        };
        while let Some(came) = self.next_frame(deadline)? {
            if differ(wanted, &came.layers).is_empty() {
                self.check_time(&came, times)?;
                self.last = came.at;
                return Ok(());
            }
        }
        Err(format!("this did not come until {deadline}:\n  {}: {}", wanted.line, wanted.text))
    }

    /// The next frame that the script is to look at.
    fn next_frame(&mut self, deadline: Instant) -> Result<Option<Came>, String> {
        loop {
            if let Some(came) = self.queue.pop_front() {
                return Ok(Some(came));
            }
            match self.subject.poll_frame(deadline)? {
                Some((at, frame)) => self.take(at, &frame)?,
                None => return Ok(None),
            }
        }
    }

    /// A frame came: for the script, or noise.
    fn take(&mut self, at: Instant, frame: &[u8]) -> Result<(), String> {
        self.frames += 1;
        if self.frames > FRAMES_MAX {
            return Err(format!("more than {FRAMES_MAX} frames came: it does not stop"));
        }
        let mut layers = decode::frame(frame);
        self.sequences.relate_host(&mut layers);
        let noise = noise(&layers);
        if noise.is_none_or(|noise| self.kinds.contains(&noise)) {
            self.trace.came(at, frame, &layers, "");
            self.queue.push_back(Came { at, layers });
            return Ok(());
        }
        self.trace.came(at, frame, &layers, "    # not looked at");
        match self.answer(&layers)? {
            Some(answer) => self.hand_over(&answer, "    # for the script"),
            None => Ok(()),
        }
    }

    /// The answer to one who asks for the peer or a gateway.
    fn answer(&self, layers: &[Layer]) -> Result<Option<Vec<u8>>, String> {
        let setup = &self.script.setup;
        let peers = [setup.peer.ipv4.map(|(ip, _)| ip.into()), setup.peer.ipv6.map(|(ip, _)| ip.into())];
        let is_ours = |ip: IpAddr| setup.gateways.contains(&ip) || peers.contains(&Some(ip));
        let mac = Value::Mac(setup.peer.mac);
        let asked = layers.iter().find_map(|layer| {
            let target = layer.ip("target").filter(|target| is_ours(*target))?;
            match (layer.kind, layer.number("op"), layer.number("type")) {
                (Kind::Arp, Some(1), _) if self.answers_arp => Some((layer.kind, target)),
                (Kind::Icmpv6, _, Some(135)) if self.answers_neighbors => Some((layer.kind, target)),
                _ => None,
            }
        });
        let Some((kind, target)) = asked else {
            return Ok(None);
        };
        let answer = if kind == Kind::Arp {
            vec![Layer::new(Kind::Arp).with_number("op", 2u8).with("sender", Value::Ip(target))]
        } else {
            let asker = layers.iter().find(|layer| layer.kind == Kind::Ipv6).and_then(|ip| ip.ip("from"));
            let Some(asker) = asker.filter(|asker| !asker.is_unspecified()) else {
                return Ok(None);
            };
            let ip = Layer::new(Kind::Ipv6).with("from", Value::Ip(target)).with("to", Value::Ip(asker));
            let advertisement = Layer::new(Kind::Icmpv6)
                .with_number("type", 136u8)
                .with("target", Value::Ip(target))
                .with_number("solicited", 1u8)
                .with_number("override", 1u8)
                .with("target-mac", mac);
            vec![ip.with_number("hop", 255u8), advertisement]
        };
        build::frame(&Packet::Layers(answer, Mutation::default()), &setup.peer, &setup.host).map(Some)
    }
}

/// How a packet differs from what is wanted; if it may be one of several, from the one that it is nearest to.
fn differ(wanted: &Wanted, came: &[Layer]) -> Vec<String> {
    let one = |packet: &Packet| match packet {
        Packet::Layers(layers, _) => differences(layers, came),
        Packet::Raw(frame) => differences(&decode::frame(frame), came),
    };
    wanted.packets.iter().map(one).min_by_key(Vec::len).unwrap_or_default()
}

/// Frames after which a subject is taken to be sending without end.
const FRAMES_MAX: usize = 20_000;

const ETHERNET_HEADER_LEN: usize = 14;
/// A busy machine makes things late, not early: a frame may be too early by this share of the tolerance.
const EARLY_SHARE: u32 = 5;
