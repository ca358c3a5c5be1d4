//! A policy decides, and hears of every end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::policy::{Action, Attempt, AttemptKind, Policy, PolicyError, Rules, SharedRules};
use crate::tcp::config::Cookies;
use crate::tcp::state::State;
use crate::tcp::{ConnectError, Failure, ListenError};
use crate::udp;

type Decides = fn(&Attempt) -> Result<Action, PolicyError>;

/// Allows what a function says, and counts what it has allowed and what has ended of it.
#[derive(Clone)]
struct Tally {
    decides: Decides,
    open: Arc<Mutex<HashMap<Attempt, i64>>>,
    asked: Arc<Mutex<u64>>,
}

impl Tally {
    fn new(decides: Decides) -> Self {
        Self { decides, open: Arc::default(), asked: Arc::default() }
    }

    /// Those that have not ended. Nothing ends twice, or that was not allowed.
    fn open(&self) -> Vec<Attempt> {
        let open = self.open.lock().expect("no panic");
        assert!(open.values().all(|count| *count >= 0), "{open:?}");
        open.iter().filter(|(_, count)| **count > 0).map(|(attempt, _)| *attempt).collect()
    }

    fn open_of(&self, kind: AttemptKind) -> usize {
        self.open().iter().filter(|attempt| attempt.kind == kind).count()
    }

    fn asked(&self) -> u64 {
        *self.asked.lock().expect("no panic")
    }
}

impl Policy for Tally {
    fn decide(&mut self, _now: Instant, attempt: &Attempt) -> Result<Action, PolicyError> {
        *self.asked.lock().expect("no panic") += 1;
        let action = (self.decides)(attempt)?;
        if action == Action::Allow {
            *self.open.lock().expect("no panic").entry(*attempt).or_default() += 1;
        }
        Ok(action)
    }

    fn ended(&mut self, _now: Instant, attempt: &Attempt) {
        *self.open.lock().expect("no panic").entry(*attempt).or_default() -= 1;
    }
}

fn allow(_: &Attempt) -> Result<Action, PolicyError> {
    Ok(Action::Allow)
}

/// Peers of the second shard are dealt with so; everything else is allowed.
fn peers(action: Action) -> Decides {
    match action {
        Action::Allow => allow,
        Action::Deny => {
            |attempt| Ok(if attempt.kind == AttemptKind::Accept { Action::Deny } else { Action::Allow })
        }
        Action::Reject => {
            |attempt| Ok(if attempt.kind == AttemptKind::Accept { Action::Reject } else { Action::Allow })
        }
    }
}

/// A pair whose second shard has a policy, and a listener.
fn policed(tally: &Tally, change: impl Fn(&mut ShardConfig)) -> (Pair, SocketId) {
    let mut pair = Pair::with(change);
    pair.shards[1].set_policy(Box::new(tally.clone()), Action::Deny);
    let listener = pair.shards[1].tcp_listen(TcpListen::new(at("[::]:80"))).expect("a listener");
    (pair, listener)
}

fn connect(pair: &mut Pair) -> SocketId {
    let id = pair.shards[0].tcp_connect(TcpConnect::new(at("10.0.0.2:80"))).expect("begun");
    pair.settle();
    id
}

fn no_state(shard: &Shard) -> (usize, usize, usize, usize) {
    let tcp = &shard.tcp;
    (tcp.flows.len(), tcp.half_opens.len(), tcp.connections.len(), tcp.timers_len())
}

#[test]
fn a_peer_that_is_denied_hears_nothing_and_leaves_nothing() {
    for (action, expected) in [(Action::Deny, None), (Action::Reject, Some(Failure::Refused))] {
        let tally = Tally::new(peers(action));
        let (mut pair, listener) = policed(&tally, |_| {});
        let client = connect(&mut pair);
        assert_eq!(pair.shards[0].tcp_failure(client), expected);
        assert_eq!(no_state(&pair.shards[1]), (0, 0, 0, 0));
        assert_eq!(pair.shards[1].drops.get(DropReason::TcpForbidden), 1);
        assert_eq!(pair.shards[1].counters.policy_accepts_denied, 1);
        assert!(pair.shards[1].tcp_accept(listener).is_none());
        if action == Action::Deny {
            // It tries again, and is asked for again.
            pair.advance(Duration::from_secs(10));
            assert!(pair.shards[1].counters.policy_accepts_denied > 1);
            assert!(
                pair.shards[0].tcp_failure(client).is_none() || pair.shards[0].tcp.connections.len() == 1
            );
        }
        assert_eq!((no_state(&pair.shards[1]), tally.open().len()), ((0, 0, 0, 0), 1), "the listener");
        let resets = u64::from(action == Action::Reject);
        assert_eq!(pair.shards[1].tcp_counters().resets_sent, resets);
    }
}

#[test]
fn resets_for_the_rejected_have_the_limits_of_others() {
    let tally = Tally::new(peers(Action::Reject));
    let (mut pair, _) = policed(&tally, |_| {});
    for _ in 0..2_000 {
        let client = connect(&mut pair);
        pair.shards[0].close(client);
        pair.settle();
    }
    let counters = pair.shards[1].tcp_counters();
    assert!(counters.throttled > 0 && counters.resets_sent < 2_000, "{counters:?}");
}

#[test]
fn listening_and_connecting_are_asked_for() {
    let tally = Tally::new(|_| Ok(Action::Deny));
    let mut pair = Pair::new();
    let shard = &mut pair.shards[0];
    shard.set_policy(Box::new(tally.clone()), Action::Allow);
    let (local, remote) = (at("10.0.0.1:80"), at("10.0.0.2:80"));
    assert_eq!(shard.tcp_listen(TcpListen::new(local)), Err(ListenError::Forbidden { local }));
    assert_eq!(shard.udp_bind(UdpBind::new(local)), Err(udp::BindError::Forbidden { local }));
    assert_eq!(shard.tcp_connect(TcpConnect::new(remote)), Err(ConnectError::Forbidden { remote }));
    assert_eq!(
        shard.udp_dial(remote, udp::SocketOptions::default()),
        Err(udp::ConnectError::Forbidden { remote })
    );
    assert_eq!((shard.sockets_len(), no_state(shard), shard.udp.len()), (0, (0, 0, 0, 0), 0));
    assert_eq!((shard.counters.policy_listens_denied, shard.counters.policy_connects_denied), (2, 2));
    assert_eq!(tally.asked(), 4);
    // Nobody is asked about what cannot be anyway.
    assert!(shard.tcp_listen(TcpListen::new(at("10.0.0.9:80"))).is_err());
    assert!(shard.tcp_connect(TcpConnect::new(at("10.0.0.2:0"))).is_err());
    assert_eq!(tally.asked(), 4);
    shard.clear_policy();
    assert!(shard.tcp_listen(TcpListen::new(local)).is_ok());
}

#[test]
fn sockets_of_udp_end_once() {
    let tally = Tally::new(allow);
    let mut pair = Pair::new();
    let shard = &mut pair.shards[0];
    shard.set_policy(Box::new(tally.clone()), Action::Deny);
    let socket = shard.udp_bind(UdpBind::new(at("10.0.0.1:7"))).expect("port 7");
    assert!(shard.udp_bind(UdpBind::new(at("10.0.0.1:7"))).is_err(), "it is in use");
    assert_eq!(tally.open().len(), 1);
    for to in [Some("10.0.0.2:7"), Some("10.0.0.2:8"), None, Some("10.0.0.2:7")] {
        shard.udp_connect(socket, to.map(at)).expect("there is a way");
        assert_eq!(tally.open().len(), 1 + usize::from(to.is_some()), "{to:?}");
    }
    let dialled = shard.udp_dial(at("10.0.0.2:53"), udp::SocketOptions::default()).expect("a way");
    assert_eq!((tally.open_of(AttemptKind::Listen), tally.open_of(AttemptKind::Connect)), (1, 2));
    shard.close(dialled);
    shard.close(socket);
    shard.close(socket);
    assert_eq!(tally.open(), []);
}

#[test]
fn a_connection_ends_once_however_it_ends() {
    type End = fn(&mut Pair, SocketId, SocketId, SocketId);
    let ends: [(&str, End); 7] = [
        ("reset by the peer", |pair, client, _, _| pair.shards[0].tcp_abort(client)),
        ("aborted", |pair, _, server, _| pair.shards[1].tcp_abort(server)),
        ("closed here first: TIME-WAIT", |pair, client, server, _| {
            pair.shards[1].close(server);
            pair.settle();
            pair.shards[0].close(client);
            pair.settle();
            assert_eq!(pair.shards[1].tcp.time_waits.len(), 1);
        }),
        ("closed by the peer first", |pair, client, server, _| {
            pair.shards[0].close(client);
            pair.settle();
            pair.shards[1].close(server);
        }),
        ("the address gone", |pair, _, _, _| pair.shards[1].remove_address(ip("10.0.0.2"))),
        ("an orphan that nobody answers", |pair, _, server, _| {
            pair.shards[1].close(server);
            pair.nics[0] = Loopback::pair(&LoopbackConfig::default()).expect("a wire").0;
            pair.advance(Duration::from_secs(3_600));
        }),
        ("the listener closed", |pair, _, server, listener| {
            pair.shards[1].close(listener);
            pair.shards[1].tcp_abort(server);
        }),
    ];
    for (name, end) in ends {
        let tally = Tally::new(allow);
        let (mut pair, listener) = policed(&tally, |_| {});
        let client = connect(&mut pair);
        let server = pair.shards[1].tcp_accept(listener).expect("it waits");
        assert_eq!(tally.open_of(AttemptKind::Accept), 1, "{name}");
        end(&mut pair, client, server, listener);
        pair.settle();
        assert_eq!(tally.open_of(AttemptKind::Accept), 0, "{name}");
        pair.shards[1].close(server);
        pair.shards[1].close(listener);
        pair.advance(Duration::from_secs(200));
        assert_eq!(tally.open(), [], "{name}");
    }
}

#[test]
fn what_was_not_accepted_yet_ends_with_its_listener() {
    let tally = Tally::new(allow);
    let (mut pair, listener) = policed(&tally, |_| {});
    connect(&mut pair);
    connect(&mut pair);
    assert_eq!(tally.open_of(AttemptKind::Accept), 2);
    pair.shards[1].close(listener);
    assert_eq!(tally.open(), []);
}

#[test]
fn a_half_open_connection_ends_when_nobody_answers() {
    let tally = Tally::new(allow);
    let (mut pair, _) = policed(&tally, |_| {});
    // The SYN arrives, and then there is no peer any more.
    pair.shards[0].tcp_connect(TcpConnect::new(at("10.0.0.2:80"))).expect("begun");
    for _ in 0..4 {
        for end in 0..2 {
            let now = pair.now;
            if pair.shards[1].tcp.half_opens.is_empty() {
                pair.shards[end].turn(now, &mut pair.nics[end], |_| {});
            }
        }
    }
    assert_eq!((pair.shards[1].tcp.half_opens.len(), tally.open_of(AttemptKind::Accept)), (1, 1));
    pair.shards[0] = Pair::new().shards.into_iter().next().expect("a shard that sends no reset");
    pair.shards[0].config.sends_unreachable = false;
    pair.advance(Duration::from_secs(200));
    assert_eq!((pair.shards[1].tcp.half_opens.len(), tally.open_of(AttemptKind::Accept)), (0, 0));
}

#[test]
fn a_cookie_is_asked_for_when_it_goes_and_when_it_comes_back() {
    let tally = Tally::new(allow);
    let (mut pair, listener) = policed(&tally, |config| config.tcp.cookies = Cookies::Always);
    connect(&mut pair);
    // For the listener, the SYN and the ACK.
    assert_eq!((tally.asked(), tally.open_of(AttemptKind::Accept)), (3, 1));
    assert!(pair.shards[1].tcp_accept(listener).is_some());

    // Denied from now on: the peer believes that it is connected, until it says something.
    for (action, failure) in [(Action::Deny, None), (Action::Reject, Some(Failure::Reset))] {
        let (mut pair, listener) = policed(&tally, |config| config.tcp.cookies = Cookies::Always);
        pair.shards[0].tcp_connect(TcpConnect::new(at("10.0.0.2:80"))).expect("begun");
        while pair.shards[1].tcp_counters().cookies_sent == 0 {
            for end in 0..2 {
                pair.shards[end].turn(pair.now, &mut pair.nics[end], |_| {});
            }
        }
        let late = Tally::new(peers(action));
        pair.shards[1].set_policy(Box::new(late.clone()), Action::Deny);
        pair.settle();
        assert_eq!((late.asked(), no_state(&pair.shards[1])), (1, (0, 0, 0, 0)));
        assert!(pair.shards[1].tcp_accept(listener).is_none());
        let client = pair.shards[0].next_event().expect("it is connected, or was").socket;
        assert_eq!(pair.shards[0].tcp_failure(client), failure);
    }
}

#[test]
fn a_syn_that_is_denied_does_not_end_a_time_wait() {
    let tally = Tally::new(allow);
    let (mut pair, listener) = policed(&tally, |_| {});
    let from = TcpConnect { local: Some(at("10.0.0.1:5000")), ..TcpConnect::new(at("10.0.0.2:80")) };
    let client = pair.shards[0].tcp_connect(from).expect("begun");
    pair.settle();
    let server = pair.shards[1].tcp_accept(listener).expect("it waits");
    pair.shards[1].close(server);
    pair.settle();
    pair.shards[0].close(client);
    pair.settle();
    assert_eq!((pair.shards[1].tcp.time_waits.len(), tally.open_of(AttemptKind::Accept)), (1, 0));
    for (action, records) in [(Action::Deny, 1), (Action::Reject, 1), (Action::Allow, 0)] {
        pair.shards[1].set_policy(Box::new(Tally::new(peers(action))), Action::Deny);
        pair.advance(Duration::from_secs(1));
        let client = pair.shards[0].tcp_connect(from).expect("begun");
        pair.settle();
        assert_eq!(pair.shards[1].tcp.time_waits.len(), records, "{action}");
        pair.shards[0].tcp_abort(client);
        pair.shards[0].close(client);
    }
}

#[test]
fn a_policy_that_fails_leaves_it_to_the_default() {
    let fails: [Decides; 2] = [
        |attempt| match attempt.kind {
            AttemptKind::Accept => Err(PolicyError::new("no idea")),
            _ => Ok(Action::Allow),
        },
        |attempt| match attempt.kind {
            AttemptKind::Accept => panic!("a policy that panics, as this test wants it"),
            _ => Ok(Action::Allow),
        },
    ];
    for decides in fails {
        for (default, connected, failure) in [
            (Action::Allow, true, None),
            (Action::Deny, false, None),
            (Action::Reject, false, Some(Failure::Refused)),
        ] {
            let tally = Tally::new(decides);
            let mut pair = Pair::new();
            pair.shards[1].set_policy(Box::new(tally.clone()), default);
            let listener = pair.shards[1].tcp_listen(TcpListen::new(at("[::]:80"))).expect("a listener");
            let client = connect(&mut pair);
            assert_eq!(pair.shards[0].tcp_readiness(client).connected, connected, "{default}");
            assert_eq!(pair.shards[0].tcp_failure(client), failure, "{default}");
            let counters = pair.shards[1].counters;
            assert_eq!((counters.policy_failed, counters.policy_accepts_denied), (1, (!connected).into()));
            // It has not allowed it, so it hears nothing of the end.
            pair.shards[1].close(listener);
            assert_eq!(tally.open(), []);
        }
    }
}

#[test]
fn a_closure_is_a_policy_and_one_that_panics_at_an_end_ends_nothing_else() {
    struct Panics;
    impl Policy for Panics {
        fn decide(&mut self, _: Instant, _: &Attempt) -> Result<Action, PolicyError> {
            Ok(Action::Allow)
        }
        fn ended(&mut self, _: Instant, _: &Attempt) {
            panic!("a policy that panics, as this test wants it");
        }
    }
    let mut pair = Pair::new();
    let shard = &mut pair.shards[0];
    let mut left = 1;
    let one_only = move |_: Instant, _: &Attempt| {
        left -= 1;
        Ok(if left < 0 { Action::Deny } else { Action::Allow })
    };
    shard.set_policy(Box::new(one_only), Action::Deny);
    let listener = shard.tcp_listen(TcpListen::new(at("0.0.0.0:1"))).expect("the one");
    assert!(shard.tcp_listen(TcpListen::new(at("0.0.0.0:2"))).is_err());
    shard.close(listener);
    shard.set_policy(Box::new(Panics), Action::Deny);
    let listener = shard.tcp_listen(TcpListen::new(at("0.0.0.0:1"))).expect("allowed");
    shard.close(listener);
    assert_eq!((shard.counters.policy_failed, shard.sockets_len()), (1, 0));
}

#[test]
fn a_policy_that_has_to_go_is_told_that_everything_has_ended() {
    let tally = Tally::new(allow);
    let (mut pair, listener) = policed(&tally, |_| {});
    pair.shards[1].udp_dial(at("10.0.0.1:53"), udp::SocketOptions::default()).expect("a way");
    pair.shards[1].tcp_connect(TcpConnect::new(at("10.0.0.9:80"))).expect("begun");
    connect(&mut pair);
    pair.shards[0].tcp_connect(TcpConnect::new(at("10.0.0.2:80"))).expect("begun");
    for end in [0, 1] {
        pair.shards[end].turn(pair.now, &mut pair.nics[end], |_| {});
    }
    assert_eq!((tally.open().len(), pair.shards[1].tcp.half_opens.len()), (5, 1));
    let next = Tally::new(allow);
    pair.shards[1].set_policy(Box::new(next.clone()), Action::Deny);
    assert_eq!(tally.open(), []);
    // What was there goes on, and ends without a word.
    pair.settle();
    while let Some(server) = pair.shards[1].tcp_accept(listener) {
        pair.shards[1].tcp_abort(server);
    }
    pair.shards[1].close(listener);
    pair.settle();
    assert_eq!((tally.open(), next.open(), next.asked()), (vec![], vec![], 0));
}

#[test]
fn a_source_has_as_many_connections_as_its_rule_says() {
    let rules: Rules = "allow listen tcp\nallow accept tcp port 80 per-source 2".parse().expect("rules");
    let rules = SharedRules::new(rules);
    let mut pair = Pair::new();
    pair.shards[1].set_policy(Box::new(rules.clone()), Action::Deny);
    let listener = pair.shards[1].tcp_listen(TcpListen::new(at("[::]:80"))).expect("a listener");
    let clients = [(); 3].map(|()| connect(&mut pair));
    let connected = |pair: &Pair, id| pair.shards[0].tcp_readiness(id).connected;
    assert_eq!(clients.map(|id| connected(&pair, id)), [true, true, false]);
    // Another source is not concerned.
    let v6 = pair.shards[0].tcp_connect(TcpConnect::new(at("[fd00::2]:80"))).expect("begun");
    // The question for the neighbour, and what waits for the answer.
    (0..3).for_each(|_| pair.settle());
    assert!(connected(&pair, v6));
    pair.shards[0].tcp_abort(clients[0]);
    // The third one tries again.
    pair.advance(Duration::from_secs(4));
    assert!(connected(&pair, clients[2]));
    pair.shards[1].close(listener);
    assert_eq!(rules.look(Rules::sources_len), 0);
}

/// Something that happens to two shards, one of them with a policy.
#[derive(Debug, Clone, Copy)]
enum Step {
    Connect { from: usize, port: u16 },
    Listen { port: u16 },
    Accept,
    Close { end: usize, which: usize },
    Abort { end: usize, which: usize },
    Finish { end: usize, which: usize },
    Send { end: usize, which: usize },
    Udp { port: u16 },
    LoseFrames,
    Settle,
    Advance { millis: u64 },
    ForgetAddress,
}

fn any_step() -> impl Strategy<Value = Step> {
    let which = || (0..2_usize, 0..16_usize);
    prop_oneof![
        4 => (0..2_usize, 80..84_u16).prop_map(|(from, port)| Step::Connect { from, port }),
        2 => (80..84_u16).prop_map(|port| Step::Listen { port }),
        3 => Just(Step::Accept),
        3 => which().prop_map(|(end, which)| Step::Close { end, which }),
        2 => which().prop_map(|(end, which)| Step::Abort { end, which }),
        2 => which().prop_map(|(end, which)| Step::Finish { end, which }),
        2 => which().prop_map(|(end, which)| Step::Send { end, which }),
        1 => (80..84_u16).prop_map(|port| Step::Udp { port }),
        1 => Just(Step::LoseFrames),
        4 => Just(Step::Settle),
        2 => (1..100_000_u64).prop_map(|millis| Step::Advance { millis }),
        1 => Just(Step::ForgetAddress),
    ]
}

/// A pair, and the sockets of each end.
struct World {
    pair: Pair,
    sockets: [Vec<SocketId>; 2],
}

impl World {
    fn step(&mut self, step: Step) {
        let Self { pair, sockets } = self;
        match step {
            Step::Connect { from, port } => {
                let to = SocketAddr::new(ip(["10.0.0.2", "10.0.0.1"][from]), port);
                sockets[from].extend(pair.shards[from].tcp_connect(TcpConnect::new(to)));
            }
            Step::Listen { port } => {
                for (shard, sockets) in pair.shards.iter_mut().zip(sockets) {
                    let listen = TcpListen::new(SocketAddr::new(ip("::"), port));
                    sockets.extend(shard.tcp_listen(TcpListen { backlog: 2, ..listen }));
                }
            }
            Step::Accept => {
                for (shard, sockets) in pair.shards.iter_mut().zip(sockets) {
                    for listener in sockets.clone() {
                        sockets.extend(shard.tcp_accept(listener));
                    }
                }
            }
            Step::Close { end, which } => {
                if which < sockets[end].len() {
                    pair.shards[end].close(sockets[end].swap_remove(which));
                }
            }
            Step::Abort { end, which } => self.with(end, which, |shard, id| shard.tcp_abort(id)),
            Step::Finish { end, which } => self.with(end, which, |shard, id| shard.tcp_finish(id)),
            Step::Send { end, which } => self.with(end, which, |shard, id| {
                let _ = shard.tcp_send(id, b"something");
            }),
            Step::Udp { port } => {
                let shard = &mut pair.shards[1];
                sockets[1].extend(shard.udp_bind(UdpBind::new(SocketAddr::new(ip("0.0.0.0"), port))));
                sockets[1].extend(shard.udp_dial(at("10.0.0.1:53"), udp::SocketOptions::default()));
                for id in sockets[1].clone() {
                    let _ = shard.udp_connect(id, (port % 2 == 0).then(|| at("10.0.0.1:54")));
                }
            }
            Step::LoseFrames => {
                for end in 0..2 {
                    pair.shards[end].turn(pair.now, &mut pair.nics[end], |_| {});
                }
                let (left, right) = Loopback::pair(&LoopbackConfig::default()).expect("a wire");
                pair.nics = [left, right];
            }
            Step::Settle => pair.settle(),
            Step::Advance { millis } => pair.advance(Duration::from_millis(millis)),
            Step::ForgetAddress => {
                pair.shards[1].remove_address(ip("10.0.0.2"));
                let _ =
                    pair.shards[1].push_command(Command::AddAddress(parse_cidr("10.0.0.2/24").expect("one")));
            }
        }
    }

    fn with(&mut self, end: usize, which: usize, f: impl FnOnce(&mut Shard, SocketId)) {
        if let Some(&id) = self.sockets[end].get(which) {
            f(&mut self.pair.shards[end], id);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Every attempt that was allowed is live in a table of the shard, or has ended; and in the end, all have.
    #[test]
    fn what_is_allowed_ends_once(steps in prop::collection::vec(any_step(), 1..80), mode in 0..3_u8) {
        // Some are denied, so that all ways are gone.
        let tally = Tally::new(|attempt| Ok(match attempt {
            Attempt { kind: AttemptKind::Accept, local, .. } if local.port() == 83 => Action::Reject,
            Attempt { kind: AttemptKind::Accept, local, .. } if local.port() == 82 => Action::Deny,
            _ => Action::Allow,
        }));
        let mut pair = Pair::with(|config| {
            config.tcp.cookies = [Cookies::WhenFull, Cookies::Always, Cookies::Never][usize::from(mode)];
            config.tcp.connections_max = 4;
            config.tcp.half_open_max = 3;
            config.tcp.time_wait_max = 2;
            config.sockets_max = 12;
        });
        pair.shards[1].set_policy(Box::new(tally.clone()), Action::Deny);
        let mut world = World { pair, sockets: Default::default() };
        for step in steps {
            world.step(step);
            let tcp = &world.pair.shards[1].tcp;
            let states = tcp.connections.iter().map(|(_, connection)| connection.tcb.state);
            let connections = states.filter(|state| *state != State::Closed).count();
            let of_tcp = tally.open().iter().filter(|attempt| {
                attempt.protocol == crate::policy::Protocol::Tcp
            }).count();
            prop_assert_eq!(of_tcp, connections + tcp.half_opens.len() + tcp.listeners.len(), "{:?}", step);
        }
        let World { mut pair, sockets } = world;
        for (shard, sockets) in pair.shards.iter_mut().zip(sockets) {
            for id in sockets {
                shard.close(id);
            }
        }
        pair.advance(Duration::from_secs(3_600));
        prop_assert_eq!(tally.open(), vec![]);
    }
}
