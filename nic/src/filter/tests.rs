use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::program::{EXTENSIONS, LINK_OFFSET, NETWORK_OFFSET};
use super::*;
use crate::claim::{Claim, ClaimSet, Protocol};

/// A frame as its fields, from which its bytes and the right answers are made.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) tags: usize,
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) protocol: u8,
    /// Offset in units of 8 bytes, and whether more follow. `None`: no fragment.
    pub(crate) fragment: Option<(u16, bool)>,
    /// IPv4: words of options. IPv6: kinds of extension headers with their length fields.
    pub(crate) options: u8,
    pub(crate) extensions: Vec<(u8, u8)>,
    pub(crate) body: Vec<u8>,
    /// Bytes that are missing at the end.
    pub(crate) cut: usize,
}

impl Made {
    pub(crate) fn packet(&self) -> Vec<u8> {
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.packet_v4(src, dst),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.packet_v6(src, dst),
            _ => panic!("one family"),
        }
    }

    fn packet_v4(&self, src: Ipv4Addr, dst: Ipv4Addr) -> Vec<u8> {
        let len = 20 + 4 * usize::from(self.options) + self.body.len();
        let (offset, more) = self.fragment.unwrap_or((0, false));
        let word = if self.fragment.is_some() { offset | u16::from(more) << 13 } else { 0x4000 };
        let mut bytes = vec![0x45 + self.options, 0];
        bytes.extend((len as u16).to_be_bytes());
        bytes.extend([0x12, 0x34]);
        bytes.extend(word.to_be_bytes());
        bytes.extend([64, self.protocol, 0, 0]);
        bytes.extend(src.octets());
        bytes.extend(dst.octets());
        bytes.resize(20 + 4 * usize::from(self.options), 1);
        bytes.extend(&self.body);
        bytes
    }

    fn packet_v6(&self, src: Ipv6Addr, dst: Ipv6Addr) -> Vec<u8> {
        let mut chain: Vec<(u8, Vec<u8>)> = Vec::new();
        for &(kind, length) in &self.extensions {
            let len = if kind == 51 { (usize::from(length) + 2) * 4 } else { (usize::from(length) + 1) * 8 };
            let mut header = vec![0; len];
            header[1] = length;
            chain.push((kind, header));
        }
        if let Some((offset, more)) = self.fragment {
            let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
            chain.push((44, vec![0, 0, high, low, 0, 0, 0, 9]));
        }
        let (mut next, mut body) = (self.protocol, self.body.clone());
        for (kind, mut header) in chain.into_iter().rev() {
            header[0] = next;
            next = kind;
            header.extend(body);
            body = header;
        }
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend([next, 64]);
        bytes.extend(src.octets());
        bytes.extend(dst.octets());
        bytes.extend(body);
        bytes
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for tag in 0..self.tags {
            bytes.extend(if tag == 0 { [0x88, 0xa8, 0, 7] } else { [0x81, 0, 0, 8] });
        }
        bytes.extend(if self.src.is_ipv4() { [8, 0] } else { [0x86, 0xdd] });
        bytes.extend(self.packet());
        bytes.truncate(bytes.len().saturating_sub(self.cut));
        bytes
    }

    /// The same flow in the other direction: ports are the first four bytes of the body.
    pub(crate) fn reversed(&self) -> Self {
        let mut reversed = Self { src: self.dst, dst: self.src, ..self.clone() };
        if matches!(self.protocol, 6 | 17) {
            reversed.body[..4].rotate_left(2);
        }
        reversed
    }

    pub(crate) fn ports(&self) -> Option<(u16, u16)> {
        let later = self.fragment.is_some_and(|(offset, _)| offset != 0);
        let has_ports = matches!(self.protocol, 6 | 17 | 132) && !later;
        has_ports.then(|| (number(&self.body, 0), number(&self.body, 2)))
    }
}

fn number(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn address(is_v4: bool) -> BoxedStrategy<IpAddr> {
    if is_v4 {
        prop_oneof![
            (0_u8..4).prop_map(|last| IpAddr::from([10, 0, 0, last])),
            any::<[u8; 4]>().prop_map(IpAddr::from),
            Just(IpAddr::from([224, 0, 0, 1])),
        ]
        .boxed()
    } else {
        let near = |last: u16| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]);
        prop_oneof![(0_u16..4).prop_map(near), any::<[u16; 8]>().prop_map(IpAddr::from)].boxed()
    }
}

fn ports() -> impl Strategy<Value = Vec<u8>> {
    let port = || prop_oneof![78_u16..92, 4999_u16..5002, any::<u16>()];
    (port(), port()).prop_map(|(src, dst)| [src.to_be_bytes(), dst.to_be_bytes()].concat())
}

/// Packets of all kinds; `depth` is how many packets may quote another one.
fn made(depth: u32) -> BoxedStrategy<Made> {
    any::<bool>().prop_flat_map(move |is_v4| made_of(is_v4, depth)).boxed()
}

fn made_of(is_v4: bool, depth: u32) -> BoxedStrategy<Made> {
    let transport = (prop_oneof![Just(6_u8), Just(17_u8), Just(132_u8)], ports(), 4_usize..24).prop_map(
        |(protocol, mut body, len)| {
            body.resize(len, 0x55);
            (protocol, body)
        },
    );
    let other = (any::<u8>(), prop::collection::vec(any::<u8>(), 4..30));
    let body = if depth == 0 {
        prop_oneof![4 => transport, 1 => other].boxed()
    } else {
        let kinds = if is_v4 {
            prop::sample::select(vec![0_u8, 3, 8, 11, 12])
        } else {
            prop::sample::select(vec![1_u8, 2, 3, 128, 129, 135])
        };
        let quote = (kinds, made_of(is_v4, depth - 1)).prop_map(move |(kind, inner)| {
            let head = [kind, 0, 0, 0, 0, 0, 0, 0];
            (if is_v4 { 1 } else { 58 }, [&head[..], &inner.packet()].concat())
        });
        prop_oneof![4 => transport, 1 => other, 4 => quote].boxed()
    };
    let fragment = prop_oneof![4 => Just(None), 1 => (prop_oneof![Just(0_u16), 1_u16..0x1fff], any::<bool>()).prop_map(Some)];
    let extension = (prop::sample::select(vec![0_u8, 43, 51, 60]), 0_u8..3);
    let extensions = prop_oneof![2 => Just(vec![]), 1 => prop::collection::vec(extension, 0..7)];
    let cut = prop_oneof![9 => Just(0_usize), 1 => 0_usize..80];
    (0_usize..3, address(is_v4), address(is_v4), body, fragment, 0_u8..11, extensions, cut)
        .prop_map(move |(tags, src, dst, (protocol, body), fragment, options, extensions, cut)| {
            let options = if is_v4 && options > 3 { options } else { 0 };
            Made { tags, src, dst, protocol, fragment, options, extensions, body, cut }
        })
        .boxed()
}

/// Whole packets of all kinds.
pub(crate) fn whole() -> impl Strategy<Value = Made> {
    made(1).prop_map(|made| Made { cut: 0, ..made })
}

/// Whole packets of TCP and UDP that are no fragments, with few enough extension headers.
pub(crate) fn flows() -> impl Strategy<Value = Made> {
    whole().prop_map(|mut made| {
        made.extensions.truncate(4);
        Made { protocol: if made.protocol.is_multiple_of(2) { 6 } else { 17 }, fragment: None, ..made }
    })
}

/// Frames of all kinds: packets, cut ones, and noise.
pub(crate) fn frames() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => made(1).prop_map(|made| made.frame()),
        1 => prop::collection::vec(any::<u8>(), 0..90),
        1 => (made(1), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)).prop_map(|(made, changes)| {
            let mut frame = made.frame();
            for (at, byte) in changes.iter().filter(|_| !made.body.is_empty()) {
                if !frame.is_empty() {
                    let at = at.index(frame.len());
                    frame[at] = *byte;
                }
            }
            frame
        }),
    ]
}

fn one(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

const RETURN_A: Instruction = Instruction { code: 0x16, jt: 0, jf: 0, k: 0 };

#[test]
fn programs_are_checked() {
    let check = |list: &[Instruction]| Program::new(list.to_vec()).map(|_| ());
    let jump = |jt, jf| Instruction { code: 0x15, jt, jf, k: 0 };
    assert_eq!(check(&[]), Err(ProgramError::Empty));
    assert_eq!(check(&[RETURN_A; 4096]), Ok(()));
    assert_eq!(check(&[RETURN_A; 4097]), Err(ProgramError::TooLong(4097)));
    assert_eq!(check(&[one(0xffff, 0), RETURN_A]), Err(ProgramError::Code { at: 0, code: 0xffff }));
    assert_eq!(check(&[one(0x34, 0), RETURN_A]), Err(ProgramError::Division(0)));
    assert_eq!(check(&[one(0x94, 0), RETURN_A]), Err(ProgramError::Division(0)));
    assert_eq!(check(&[one(0x64, 32), RETURN_A]), Err(ProgramError::Shift(0)));
    assert_eq!(check(&[one(0x02, 16), RETURN_A]), Err(ProgramError::Scratch(0)));
    assert_eq!(check(&[one(0x60, 3), RETURN_A]), Err(ProgramError::Unwritten(0)));
    assert_eq!(check(&[one(0x02, 3), one(0x60, 3), RETURN_A]), Ok(()));
    // One of two ways does not write.
    assert_eq!(check(&[jump(1, 0), one(0x02, 3), one(0x60, 3), RETURN_A]), Err(ProgramError::Unwritten(2)));
    assert_eq!(check(&[jump(1, 0), RETURN_A]), Err(ProgramError::Jump(0)));
    assert_eq!(check(&[jump(0, 1), RETURN_A]), Err(ProgramError::Jump(0)));
    assert_eq!(check(&[one(0x05, u32::MAX), RETURN_A]), Err(ProgramError::Jump(0)));
    assert_eq!(
        check(&[one(0x20, EXTENSIONS + 64), RETURN_A]),
        Err(ProgramError::Ancillary { at: 0, k: EXTENSIONS + 64 })
    );
    assert_eq!(check(&[RETURN_A, one(0x00, 1)]), Err(ProgramError::NoReturn));
}

#[test]
fn results_are_those_of_the_machine() {
    let packet: Vec<u8> = (0..64).collect();
    let run = |list: &[Instruction]| {
        let program = Program::new(list.to_vec()).expect("a program");
        program.run(&Context { bytes: &packet, zero_at: 14, network_at: 18, ..Context::link(&packet) })
    };
    assert_eq!(run(&[one(0x20, 0), RETURN_A]), 0x0e0f_1011);
    assert_eq!(run(&[one(0x28, NETWORK_OFFSET + 2), RETURN_A]), 0x1415);
    assert_eq!(run(&[one(0x30, LINK_OFFSET + 3), RETURN_A]), 3);
    assert_eq!(run(&[one(0x30, 50), RETURN_A]), 0, "behind the end");
    assert_eq!(run(&[one(0x28, 49), one(0x06, 7)]), 0, "half behind the end ends it");
    assert_eq!(run(&[one(0x01, 3), one(0x50, u32::MAX), RETURN_A]), 16, "X + k wraps");
    assert_eq!(run(&[one(0x80, 0), RETURN_A]), 50);
    assert_eq!(run(&[one(0xb1, 1), one(0x87, 0), RETURN_A]), 60);
    assert_eq!(run(&[one(0x00, 7), one(0x3c, 0), one(0x06, 9)]), 0, "division by X = 0 ends it");
    assert_eq!(run(&[one(0x00, 7), one(0x84, 0), RETURN_A]), 7_u32.wrapping_neg());
    assert_eq!(run(&[one(0x01, 33), one(0x00, 7), one(0x6c, 0), RETURN_A]), 14);
    assert_eq!(run(&[one(0x20, EXTENSIONS), RETURN_A]), 0x0c0d);
}

#[test]
fn far_jumps_are_helped() {
    let mut asm = assemble::Assembler::default();
    let (far, near) = (asm.label(), asm.label());
    asm.load(program::Size::Byte, 0);
    asm.if_equal(1, far);
    asm.unless_equal(2, near);
    for _ in 0..300 {
        asm.set(0);
    }
    asm.place(near);
    asm.ret(22);
    asm.place(far);
    asm.ret(11);
    let program = asm.finish().expect("a program");
    let run = |byte| program.run(&Context { bytes: &[byte], ..Context::default() });
    assert_eq!((run(1), run(2), run(3)), (11, 22, 22));
    assert_eq!(program.len(), 307);
}

const DDD: &str = "4\n40 0 0 12\n21 0 1 2048\n6 0 0 262144\n6 0 0 0\n";

#[test]
fn output_of_tcpdump_is_read() {
    let program = tcpdump::parse_ddd(DDD).expect("a program");
    let shown = program.to_string();
    let expected = "(000) ldh      [12]\n(001) jeq      #0x800           jt 2\tjf 3\n(002) ret      #262144\n(003) ret      #0";
    assert_eq!(shown, expected);
    let fails = |text: &str| tcpdump::parse_ddd(text).unwrap_err().to_string();
    assert!(fails("").contains("line 1"));
    assert!(fails("2\n6 0 0 0\n").contains("announces 2 instructions, and 1 follow"));
    assert!(fails("1\n6 0 0\n").contains("line 2"), "{}", fails("1\n6 0 0\n"));
    assert!(fails("1\n6 0 300 0\n").contains("line 2"));
    assert!(fails("1\n40 0 0 12\n").contains("must be a `ret`"));
}

#[test]
fn rules_are_read_as_they_are_written() {
    for text in ["tcp", "udp dst 10.0.0.0/8 port 80-89", "src fd00::/8", "port 53", "89 dst 10.0.0.1/32", ""]
    {
        match text.parse::<Rule>() {
            Ok(rule) => assert_eq!(rule.to_string(), text),
            Err(error) => assert_eq!((text, error), ("", ParseRuleError::Empty)),
        }
    }
    for (text, words) in [
        ("tpc", "\"tpc\""),
        ("tcp port", "port or range"),
        ("port 9-8", "9-8"),
        ("port 65536", "65536"),
        ("10.0.0.1/8", "write 10.0.0.0/8"),
        ("10.0.0.0/33", "32 is the longest"),
        ("10.0.0", "no prefix"),
        ("dst port 80 tcp", "in this order"),
    ] {
        let error = text.parse::<Rule>().unwrap_err().to_string();
        assert!(error.contains(words) && !error.contains('\n'), "{text}: {error}");
    }
}

#[test]
fn too_many_rules_are_an_error() {
    let rules = |len| vec!["tcp 10.0.0.0/8 port 80-89".parse().unwrap(); len];
    let spec = |len| FilterSpec { rules: rules(len), ..FilterSpec::default() };
    assert!(spec(100).compile().is_ok());
    assert!(matches!(spec(1000).compile(), Err(ProgramError::TooLong(_))));
}

fn rule() -> impl Strategy<Value = Rule> {
    let prefix = prop_oneof![
        Just(None),
        (any::<bool>().prop_flat_map(address), prop_oneof![Just(128_u8), 0_u8..130])
            .prop_map(|(address, len)| Some(Prefix::new(address, len))),
    ];
    let ports =
        prop_oneof![Just(None), Just(Some(80..=89)), Just(Some(5000..=5000)), Just(Some(0..=u16::MAX))];
    let protocol = prop_oneof![Just(None), prop::sample::select(vec![6_u8, 17, 1, 58, 132]).prop_map(Some)];
    let side = prop::sample::select(vec![Side::Src, Side::Dst, Side::Either]);
    (protocol, side, prefix, ports).prop_map(|(protocol, side, prefix, ports)| Rule {
        protocol,
        side,
        prefix,
        ports,
    })
}

/// Whether a rule describes a packet; `None`: cannot be told.
fn describes(rule: &Rule, made: &Made) -> Option<bool> {
    let exceeded = made.extensions.len() + usize::from(made.fragment.is_some()) > 4 && made.src.is_ipv6();
    let protocol = rule.protocol.is_none_or(|protocol| exceeded || protocol == made.protocol);
    let mut doubt = exceeded && (rule.protocol.is_some() || rule.ports.is_some());
    let has_ports = matches!(made.protocol, 6 | 17 | 132);
    let end = |address: IpAddr, port: Option<u16>, doubt: &mut bool| {
        let by_address = rule.prefix.is_none_or(|prefix| prefix.contains(address));
        let by_port = match (&rule.ports, port) {
            (None, _) => true,
            (Some(_), None) => {
                *doubt |= by_address && (has_ports || exceeded);
                has_ports || exceeded
            }
            (Some(ports), Some(port)) => ports.contains(&port),
        };
        by_address && by_port
    };
    let ports = if exceeded { None } else { made.ports() };
    let (src, dst) = (ports.map(|(src, _)| src), ports.map(|(_, dst)| dst));
    let found = match rule.side {
        Side::Src => end(made.src, src, &mut doubt),
        Side::Dst => end(made.dst, dst, &mut doubt),
        Side::Either => {
            let at_src = end(made.src, src, &mut doubt);
            end(made.dst, dst, &mut doubt) || at_src
        }
    };
    if !(protocol && found) {
        return Some(false);
    }
    if doubt { None } else { Some(true) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn specs_describe_what_their_rules_say(
        made in whole(),
        rules in prop::collection::vec(rule(), 0..4),
        accepts in any::<bool>(),
    ) {
        let sense = if accepts { ListSense::Accept } else { ListSense::Deny };
        let program = FilterSpec { sense, rules: rules.clone(), neighbors: false }.compile().unwrap();
        // A protocol number that is one of an extension header makes another packet than was meant.
        prop_assume!(!matches!(made.protocol, 0 | 43 | 44 | 51 | 60) || made.src.is_ipv4());
        let expected = match sense {
            ListSense::Accept => rules.iter().any(|rule| describes(rule, &made) != Some(false)),
            ListSense::Deny => !rules.iter().any(|rule| describes(rule, &made) == Some(true)),
        };
        prop_assert_eq!(program.run(&Context::link(&made.frame())) != 0, expected);
    }

    #[test]
    fn nothing_of_ours_is_dropped(frame in frames(), last in 0_u8..4) {
        let claims = ClaimSet::new(&[
            Claim::ports([10, 0, 0, last].into(), Protocol::Tcp, 80..=89),
            Claim::ports([10, 0, 0, 1].into(), Protocol::Udp, 5000..=5000),
            Claim::ports([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)].into(), Protocol::Tcp, 80..=89),
            Claim::address([10, 0, 0, 3].into()),
        ]);
        let program = claims.socket_filter().expect("something is shared");
        let passes = program.run(&Context::link(&frame)) != 0;
        prop_assert!(passes || !claims.is_ours(&frame), "{program}");
    }

    /// The same for frames of which most are ours: segments to a claimed port, their fragments, and errors
    /// about segments from it.
    #[test]
    fn what_is_ours_passes(made in flows(), kind in 0_usize..5, later in any::<bool>(), cut in 0_usize..40) {
        let shared = if made.src.is_ipv4() { [10, 0, 0, 2].into() } else { IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 2]) };
        let claims = ClaimSet::new(&[
            Claim::ports(shared, Protocol::Tcp, 80..=80),
            Claim::ports(shared, Protocol::Udp, 80..=80),
        ]);
        let program = claims.socket_filter().expect("something is shared");
        let passes = |frame: &[u8]| program.run(&Context::link(frame)) != 0;
        let with_port = |at: usize| {
            let mut body = made.body.clone();
            body[at..at + 2].copy_from_slice(&[0, 80]);
            body
        };
        let segment = Made { dst: shared, body: with_port(2), ..made.clone() };
        let fragment = Made { fragment: later.then_some((9, false)), ..segment.clone() };
        let quoted = Made { src: shared, dst: made.src, body: with_port(0), ..made.clone() };
        let (protocol, kinds) = if shared.is_ipv4() { (1, [3, 4, 5, 11, 12]) } else { (58, [1, 2, 3, 4, 127]) };
        let body = [&[kinds[kind], 0, 0, 0, 0, 0, 0, 0][..], &quoted.packet()].concat();
        let error = Made { dst: shared, protocol, body, extensions: vec![], ..made.clone() };
        for whole in [segment, fragment, error] {
            prop_assert!(claims.is_ours(&whole.frame()) && passes(&whole.frame()), "{whole:?}");
            let short = Made { cut, ..whole }.frame();
            prop_assert!(passes(&short) || !claims.is_ours(&short), "{short:02x?}");
        }
    }

    #[test]
    fn any_program_ends(
        list in prop::collection::vec((prop::sample::select(CODES.to_vec()), 0_u8..4, 0_u8..4, prop_oneof![0_u32..70, any::<u32>()]), 0..40),
        frame in frames(),
    ) {
        let mut list: Vec<_> = list.into_iter().map(|(code, jt, jf, k)| Instruction { code, jt, jf, k }).collect();
        list.push(RETURN_A);
        if let Ok(program) = Program::new(list) {
            let run = program.run_counted(&Context::link(&frame));
            prop_assert!(run.instructions <= program.len());
            prop_assert!(!program.to_string().is_empty());
        }
    }
}

const CODES: [u16; 24] = [
    0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x80, 0x00, 0x60, 0x01, 0x61, 0xb1, 0x02, 0x03, 0x04, 0x2c, 0x3c,
    0x6c, 0x05, 0x15, 0x1d, 0x45, 0x07, 0x87,
];

#[test]
fn most_of_the_kernels_traffic_is_dropped() {
    let shared: IpAddr = [10, 0, 0, 2].into();
    let claims = ClaimSet::new(&[Claim::ports(shared, Protocol::Tcp, 80..=89)]);
    let program = claims.socket_filter().unwrap();
    let frame = |protocol, body: &[u8], fragment| {
        let (tags, options, extensions, cut) = (0, 0, vec![], 0);
        let body = body.to_vec();
        Made {
            tags,
            src: [10, 0, 0, 1].into(),
            dst: shared,
            protocol,
            fragment,
            options,
            extensions,
            body,
            cut,
        }
        .frame()
    };
    let passes = |frame: &[u8]| program.run(&Context::link(frame)) != 0;
    assert!(passes(&frame(6, &[0, 9, 0, 80, 0], None)));
    assert!(!passes(&frame(6, &[0, 9, 0, 22, 0], None)));
    assert!(!passes(&frame(17, &[0, 9, 0, 80, 0], None)));
    assert!(!passes(&frame(1, &[8, 0, 0, 0], None)), "an echo request");
    assert!(passes(&frame(1, &[3, 0, 0, 0], None)));
    assert!(passes(&frame(6, &[0, 9, 0, 22], Some((5, false)))), "a later fragment");
    assert!(!passes(&frame(17, &[0, 9, 0, 22], Some((5, false)))));
    assert!(!passes(&frame(47, &[0; 8], None)));
    let arp = [&[0xff; 12][..], &[8, 6], &[0; 28]].concat();
    assert!(passes(&arp));
    assert!(ClaimSet::new(&[Claim::address(shared)]).socket_filter().is_none());
}

#[test]
fn the_longest_prefix_counts() {
    let text = "# ours\n10.0.0.0/8\n!10.1.0.0/16 # but not\n10.1.2.3\n\nfd00::/8\n!fd00:1::/32\n";
    let deny = PrefixSet::parse(ListKind::Deny, text).unwrap();
    assert_eq!(deny.len(), 5);
    let listed = |address: &str| deny.contains(address.parse().unwrap());
    assert!(listed("10.0.0.1") && !listed("10.1.0.1") && listed("10.1.2.3") && !listed("11.0.0.1"));
    assert!(listed("fd00::1") && !listed("fd00:1::1") && !listed("::ffff:10.0.0.1"));
    for (text, words) in [
        ("10.0.0.0/8\nx", "line 2: \"x\""),
        ("10.0.0.0/8\n\n!10.0.0.0/8", "line 3: 10.0.0.0/8"),
        ("10.0.0.1/8", "write 10.0.0.0/8"),
    ] {
        let error = PrefixSet::parse(ListKind::Allow, text).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

proptest! {
    #[test]
    fn lists_agree_with_a_look_at_every_prefix(
        list in prop::collection::vec((any::<bool>().prop_flat_map(address), 0_u8..130, any::<bool>()), 0..60),
        made in whole(),
    ) {
        let mut set = PrefixSet::new(ListKind::Deny);
        let mut all: Vec<(Prefix, bool)> = Vec::new();
        for (address, len, listed) in list {
            let prefix = Prefix::new(address, len);
            set.insert(prefix, listed);
            all.retain(|(other, _)| *other != prefix);
            all.push((prefix, listed));
        }
        let oracle = |address| {
            let longest = all.iter().filter(|(prefix, _)| prefix.contains(address)).max_by_key(|(prefix, _)| prefix.len());
            longest.is_some_and(|(_, listed)| *listed)
        };
        prop_assert_eq!(set.len(), all.len());
        prop_assert_eq!(set.contains(made.src), oracle(made.src));
        let frame = made.frame();
        let discovery = made.protocol == 58 && made.src.is_ipv6() && made.extensions.is_empty() && made.fragment.is_none() && (133..=137).contains(&made.body[0]);
        let expected = discovery || !(oracle(made.src) || oracle(made.dst));
        prop_assert_eq!(set.decide(&frame), expected);
    }
}
