//! iperf3 of others at both ends, our TCP in front of its server: one stream and many, both directions, at a time.

use std::collections::HashSet;
use std::net::IpAddr;
use std::process::Command;

use serde_json::Value;
use wirestack::config::parse_cidr;
use wirestack::observe::DropReason;
use wirestack::shard::ShardConfig;
use wirestack::tcp::TcpCounters;
use wirestack_apps::testbed::{Chain, IPV4_PREFIX_LEN, IPV6_PREFIX_LEN, VethEnd, Wire};
use wirestack_tests::programs::{Child, output};
use wirestack_tests::runner::{
    Case, Failed, Outcome, chain_test, note, require_program, stay_on_one_core, veth_test,
};

use crate::bridge::{bridge, count};
use crate::relay::{Relay, Totals};
use crate::shard_end::{End, Record};
use crate::support::{ADDRESSES, LONG, end};
use crate::tcp_bridge::OURS as BESIDE_LEFT;
use crate::tcp_trace::{LOSSES, ON_A_GOOD_WIRE, REPETITIONS, segments, violations};

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let with = |cases| require_program("iperf3", require_program("tshark", cases));
    vec![
        with(veth_test("iperf3::one_stream_to_us", |wire| on_a_wire(wire, &[]))),
        with(veth_test("iperf3::one_stream_from_us", |wire| on_a_wire(wire, &["-R"]))),
        with(veth_test("iperf3::eight_streams_to_us", |wire| on_a_wire(wire, &["-P", "8"]))),
        with(veth_test("iperf3::eight_streams_from_us", |wire| on_a_wire(wire, &["-P", "8", "-R"]))),
        with(veth_test("iperf3::both_directions_at_a_time", |wire| on_a_wire(wire, &["--bidir"]))),
        with(chain_test("iperf3::lossy_to_us", [1500, 1500], |chain| on_a_chain(chain, &[]))),
        with(chain_test("iperf3::lossy_from_us", [1500, 1500], |chain| on_a_chain(chain, &["-R"]))),
        with(chain_test("iperf3::lossy_eight_streams", [1500, 1500], |chain| {
            on_a_chain(chain, &["-P", "8", "-R"])
        })),
        with(chain_test("iperf3::lossy_both_directions", [1500, 1500], |chain| {
            on_a_chain(chain, &["--bidir"])
        })),
    ]
}

fn on_a_wire(wire: &Wire, args: &[&str]) -> Outcome {
    stay_on_one_core();
    for address in ADDRESSES {
        let args = [args, &["-n", "24M"]].concat();
        let bench = Bench::start(wire.ours(), ADDRESSES)?;
        bench.measure(wire.peer(), address, &args)?;
        let seen = bench.end()?;
        // A peer that is not scheduled looks like one that has lost something. Nothing else makes us repeat.
        let counters = seen.counters;
        let is_late = counters.timeouts > 0;
        assert!(is_late || counters.retransmits <= counters.loss_probes, "{counters:?}");
        seen.judge()?;
    }
    Ok(())
}

fn on_a_chain(chain: &Chain, args: &[&str]) -> Outcome {
    let impairment = ["--impair", "loss=0.5%,delay=2ms", "--seed", "21"];
    for address in BESIDE_LEFT {
        note(impairment.join(" "));
        let args = [args, &["-n", "4M"]].concat();
        let worse = bridge(chain, &impairment)?;
        let bench = Bench::start(chain.left(), BESIDE_LEFT)?;
        bench.measure(chain.right(), address, &args)?;
        let seen = bench.end()?;
        let (counters, ended) = (seen.counters, end(worse)?);
        let lost = count(&ended, "a_to_b", "impaired_lost") + count(&ended, "b_to_a", "impaired_lost");
        assert!(lost > 0, "{}", ended.stdout);
        // What we send again was lost, or a handful of times looked so; after a timeout, a window of it.
        let from_us = count(&ended, "a_to_b", "impaired_lost");
        assert!(
            counters.retransmits <= 2 * from_us + 20 + 200 * counters.timeouts,
            "{from_us} lost: {counters:?}"
        );
        seen.judge()?;
    }
    Ok(())
}

/// iperf3's server, and the relay in front of it.
struct Bench {
    end: End,
    relay: Relay,
    server: Child,
}

impl Bench {
    fn start(at: &VethEnd, addresses: [IpAddr; 2]) -> Result<Self, Failed> {
        let mut config = ShardConfig::new(at.mac());
        config.seed = 0x1f3;
        for (ip, prefix_len) in addresses.into_iter().zip([IPV4_PREFIX_LEN, IPV6_PREFIX_LEN]) {
            config = config.address(parse_cidr(&format!("{ip}/{prefix_len}")).expect("an address"));
        }
        let end = End::start_on(at, config)?;
        end.until_addressed()?;
        let mut command = Command::new("iperf3");
        command.args(["-s", "-B", "127.0.0.1", "--forceflush"]);
        let mut server = at.namespace().run(|| Child::start(&mut command))?;
        server.wait_for_line("Server listening", LONG)?;
        let relay = Relay::start(&end, PORT)?;
        Ok(Self { end, relay, server })
    }

    /// Runs the client. Both of its ends, and the relay, must agree on what was sent.
    fn measure(&self, at: &VethEnd, address: IpAddr, args: &[&str]) -> Outcome {
        let mut client = Command::new("iperf3");
        client.args(["-J", "--connect-timeout", "20000", "-c", &address.to_string()]).args(args);
        note(format!("{client:?}"));
        let ended = at.namespace().run(|| output(&mut client, LONG))?;
        let report: Value = serde_json::from_str(&ended.stdout)?;
        assert_eq!(report["error"], Value::Null, "{}", ended.stdout);
        let sums: Vec<_> = ["", "_bidir_reverse"].iter().map(|suffix| Sum::of(&report, suffix)).collect();
        let has_two = args.contains(&"--bidir");
        for sum in &sums[..1 + usize::from(has_two)] {
            // The receiver stops when it hears that the test is over, which overtakes what is in buffers.
            assert!(sum.received > 0 && sum.received <= sum.sent, "{sum:?} {:?}", self.relay.totals());
        }
        Ok(())
    }

    /// Everything has come to its end, on the wire too.
    fn end(self) -> Result<Seen, Failed> {
        let relay = self.relay.clone();
        let is_over = |totals: Totals| totals.accepted >= 2 && totals.over == totals.accepted;
        self.end.until("all connections have ended", move |_| is_over(relay.totals()).then_some(()))?;
        let counters = self.end.call(|shard| shard.tcp_counters())?;
        // It serves until it is told to go, and says so with a status of its own.
        self.server.terminate()?;
        self.server.wait(LONG)?;
        // Not `finish`: to tshark, data that is sent again is an error of whoever puts it together.
        Ok(Seen { record: self.end.finish_dirty()?, counters, totals: self.relay.totals() })
    }
}

/// What both ends of iperf3 say of a direction.
#[derive(Debug)]
struct Sum {
    sent: u64,
    received: u64,
}

impl Sum {
    fn of(report: &Value, suffix: &str) -> Self {
        let bytes = |name: &str| report["end"][format!("{name}{suffix}")]["bytes"].as_u64().unwrap_or(0);
        Self { sent: bytes("sum_sent"), received: bytes("sum_received") }
    }
}

/// What is left to be judged.
struct Seen {
    record: Record,
    counters: TcpCounters,
    totals: Totals,
}

impl Seen {
    /// Nothing is dropped that only a mistake of ours, or of the peer's, explains, and no rule is broken.
    fn judge(&self) -> Outcome {
        let Self { record, counters, totals } = self;
        for reason in MISTAKES {
            assert_eq!(record.finished.drops.get(reason), 0, "{reason:?}: {counters:?}");
        }
        let segments = segments(&record.path(), false)?;
        let found = violations(&segments, &[&ON_A_GOOD_WIRE[..], &REPETITIONS, &LOSSES].concat());
        let first = found[..found.len().min(10)].join("\n");
        assert!(
            found.is_empty(),
            "{} violations in {} segments: {counters:?}\n{first}",
            found.len(),
            segments.len()
        );
        // At the end of a test iperf3's server leaves data unread, and so resets what the relay has; that resets the
        // peer, and whatever it has sent until it hears of it is reset as well. Nobody else is reset.
        let reset: HashSet<_> = segments
            .iter()
            .filter(|segment| segment.is_ours && segment.is_reset)
            .map(|segment| segment.stream)
            .collect();
        let broken = totals.over - totals.finished;
        assert!(reset.len() as u64 <= broken, "{} reset, {totals:?}, {counters:?}", reset.len());
        Ok(())
    }
}

/// What nobody sends who makes no mistake. A bad reset is not among them: who has sent his FIN and is gone answers
/// what was under way with the number that it told, which is the one before.
const MISTAKES: [DropReason; 7] = [
    DropReason::TcpMalformed,
    DropReason::TcpChecksum,
    DropReason::TcpBadAck,
    DropReason::TcpBadFlags,
    DropReason::TcpNoAck,
    DropReason::TcpNoTimestamp,
    DropReason::TcpUnexpected,
];

const PORT: u16 = 5201;
