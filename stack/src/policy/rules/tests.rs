use ipnet::{Ipv4Net, Ipv6Net};
use proptest::prelude::*;

use super::*;
use crate::policy::Unit;

fn attempt(text: &str) -> Attempt {
    let words: Vec<_> = text.split(' ').collect();
    let kind = match words[0] {
        "listen" => AttemptKind::Listen,
        "connect" => AttemptKind::Connect,
        _ => AttemptKind::Accept,
    };
    let protocol = if words[1] == "udp" { Protocol::Udp } else { Protocol::Tcp };
    let at = |text: &str| text.parse().expect("an end");
    Attempt { kind, protocol, local: at(words[2]), remote: words.get(3).map(|text| at(text)) }
}

const EXAMPLE: &str = "
default deny   # what no rule matches
allow accept tcp from 10.0.0.0/8,2001:db8::/32 port 80,443
reject accept tcp from any port 22
allow accept any from any on 10.0.0.2 port 8000-8010
allow listen tcp port 80
allow listen udp on 0.0.0.0 port 53
allow connect tcp to 192.0.2.0/24,198.51.100.7 port 443
";

#[test]
fn the_first_rule_that_matches_decides() {
    let mut rules: Rules = EXAMPLE.parse().expect("good rules");
    for (text, expected) in [
        ("accept tcp 10.0.0.2:80 10.1.2.3:5000", Action::Allow),
        ("accept tcp 10.0.0.2:443 10.255.255.255:1", Action::Allow),
        ("accept tcp 10.0.0.2:80 11.0.0.0:5000", Action::Deny),
        ("accept tcp [fd00::2]:80 [2001:db8::1]:5000", Action::Allow),
        ("accept tcp [fd00::2]:80 [2001:db9::1]:5000", Action::Deny),
        ("accept tcp 10.0.0.2:22 10.1.2.3:5000", Action::Reject),
        ("accept tcp 10.0.0.2:8000 11.0.0.0:5000", Action::Allow),
        ("accept tcp 10.0.0.2:8010 11.0.0.0:5000", Action::Allow),
        ("accept tcp 10.0.0.2:8011 11.0.0.0:5000", Action::Deny),
        ("accept tcp 10.0.0.3:8000 11.0.0.0:5000", Action::Deny),
        ("listen tcp [::]:80", Action::Allow),
        ("listen udp 0.0.0.0:80", Action::Deny),
        ("listen udp 0.0.0.0:53", Action::Allow),
        ("listen udp 10.0.0.2:53", Action::Deny),
        ("connect tcp 10.0.0.2:443 192.0.2.9:443", Action::Allow),
        ("connect tcp 10.0.0.2:443 198.51.100.7:443", Action::Allow),
        ("connect tcp 10.0.0.2:443 198.51.100.8:443", Action::Deny),
        // The port is that of the peer.
        ("connect tcp 10.0.0.2:443 192.0.2.9:80", Action::Deny),
        ("connect udp 10.0.0.2:443 192.0.2.9:443", Action::Deny),
    ] {
        assert_eq!(rules.decide(Instant::ZERO, &attempt(text)), Ok(expected), "{text}");
    }
}

#[test]
fn what_no_rule_matches_is_denied_unless_it_is_said() {
    for (text, expected) in
        [("", Action::Deny), ("default reject", Action::Reject), ("default allow", Action::Allow)]
    {
        let mut rules: Rules = text.parse().expect("good rules");
        let decided = rules.decide(Instant::ZERO, &attempt("listen tcp 0.0.0.0:1"));
        assert_eq!((decided, rules.default_action()), (Ok(expected), expected), "{text}");
    }
}

#[test]
fn wrong_lines_are_named_with_their_word_and_what_is_accepted() {
    for (text, expected) in [
        ("default", "line 1: it ends too early: allow, deny or reject is accepted"),
        ("default maybe", "line 1: `maybe`: allow, deny or reject is accepted"),
        ("default deny\n#\ndefault deny", "line 3: `default`: one line with it is accepted"),
        ("default deny all", "line 1: `all`: nothing more on this line is accepted"),
        ("permit accept tcp", "line 1: `permit`: allow, deny, reject or default is accepted"),
        ("\n\nallow", "line 3: it ends too early: listen, connect or accept is accepted"),
        ("allow bind tcp", "line 1: `bind`: listen, connect or accept is accepted"),
        ("allow listen", "line 1: it ends too early: tcp, udp or any is accepted"),
        ("allow listen icmp", "line 1: `icmp`: tcp, udp or any is accepted"),
        ("allow accept udp", "line 1: `udp`: tcp or any is accepted: UDP does not accept"),
        ("allow listen tcp from any", "line 1: `from`: on, port, rate or burst is accepted here"),
        ("allow connect tcp from any", "line 1: `from`: to, on, port, rate or burst is accepted here"),
        ("deny accept tcp rate 1/s", "line 1: `rate`: from, on or port is accepted here"),
        (
            "allow connect tcp per-source 1",
            "line 1: `per-source`: to, on, port, rate or burst is accepted here",
        ),
        ("allow accept tcp port 1 port 2", "line 1: `port`: it is accepted once in a rule"),
        ("allow accept tcp burst 2", "line 1: `burst`: it is accepted with rate only"),
        (
            "allow accept tcp port",
            "line 1: it ends too early: a port, or FIRST-LAST, is accepted: 1 to 65535",
        ),
        ("allow accept tcp port 0", "line 1: `0`: a port, or FIRST-LAST, is accepted: 1 to 65535"),
        ("allow accept tcp port +1", "line 1: `+1`: a port, or FIRST-LAST, is accepted: 1 to 65535"),
        ("allow accept tcp port 80,", "line 1: ``: a port, or FIRST-LAST, is accepted: 1 to 65535"),
        ("allow accept tcp port 9-8", "line 1: `9-8`: a port, or FIRST-LAST, is accepted: 1 to 65535"),
        ("allow accept tcp port 65536", "line 1: `65536`: a port, or FIRST-LAST, is accepted: 1 to 65535"),
        (
            "allow accept tcp from 10.0.0.1/8",
            "line 1: `10.0.0.1/8`: bits behind the prefix; 10.0.0.0/8 is accepted",
        ),
        (
            "allow accept tcp from example.org",
            "line 1: `example.org`: any, an address or a prefix such as 10.0.0.0/8 is accepted",
        ),
        ("allow accept tcp rate 5", "line 1: `5`: NUMBER/s, /m or /h is accepted: 1 to 1000000"),
        ("allow accept tcp rate 5/d", "line 1: `5/d`: NUMBER/s, /m or /h is accepted: 1 to 1000000"),
        ("allow accept tcp rate 0/s", "line 1: `0/s`: NUMBER/s, /m or /h is accepted: 1 to 1000000"),
        ("allow accept tcp per-source 0", "line 1: `0`: 1 to 1000000 is accepted"),
        ("\u{7f}ELF\u{1}", "line 1: `\\u{7f}ELF\\u{1}`: allow, deny, reject or default is accepted"),
    ] {
        let error = text.parse::<Rules>().expect_err(text);
        assert_eq!(error.to_string(), expected, "{text:?}");
    }
    let long = "x".repeat(10_000).parse::<Rules>().expect_err("no rule").to_string();
    assert!(long.contains("x…`") && long.len() < 200, "{long}");
}

#[test]
fn there_are_bounds() {
    let lines = |count| "allow accept tcp\n".repeat(count);
    assert_eq!(lines(RULES_MAX).parse::<Rules>().map(|rules| rules.rules().count()), Ok(RULES_MAX));
    let error = lines(RULES_MAX + 1).parse::<Rules>().expect_err("one too many");
    assert_eq!(error.to_string(), "line 1001: `allow`: 1000 rules are accepted, no more");
    let ports = |count| format!("allow accept tcp port {}", vec!["1"; count].join(","));
    assert!(ports(64).parse::<Rules>().is_ok() && ports(65).parse::<Rules>().is_err());
}

#[test]
fn who_is_over_a_limit_is_denied() {
    let text = "default reject\nallow accept tcp port 80 rate 1/s burst 2 per-source 2\nallow accept any";
    let mut rules: Rules = text.parse().expect("good rules");
    let one = attempt("accept tcp 10.0.0.2:80 192.0.2.1:1");
    let other = attempt("accept tcp 10.0.0.2:80 192.0.2.2:1");
    let mut decide =
        |second, attempt| rules.decide(Instant::from_secs(second), attempt).expect("rules decide");
    let (allow, deny) = (Action::Allow, Action::Deny);
    assert_eq!([decide(0, &one), decide(0, &one), decide(0, &one)], [allow, allow, deny]);
    // The rate is of all sources; what was denied by it is not counted for its source.
    assert_eq!([decide(0, &other), decide(0, &other), decide(0, &other)], [deny; 3]);
    // Who has too many takes nothing of the rate.
    assert_eq!([decide(2, &one), decide(2, &one), decide(2, &one)], [deny; 3]);
    assert_eq!([decide(2, &other), decide(2, &other), decide(2, &other)], [allow, allow, deny]);
    rules.ended(Instant::from_secs(2), &one);
    assert_eq!(rules.decide(Instant::from_secs(3), &one), Ok(allow));
    assert_eq!(rules.sources_len(), 2);
    for attempt in [one, one, other, other] {
        rules.ended(Instant::from_secs(3), &attempt);
    }
    assert_eq!(rules.sources().count(), 0);
}

#[test]
fn shared_rules_count_for_all() {
    let rules: Rules = "allow accept tcp per-source 2".parse().expect("good rules");
    let mut shards = [(); 3].map({
        let shared = SharedRules::new(rules);
        move |()| shared.clone()
    });
    let one = attempt("accept tcp 10.0.0.2:80 192.0.2.1:1");
    let decided = shards.each_mut().map(|shard| shard.decide(Instant::ZERO, &one));
    assert_eq!(decided, [Ok(Action::Allow), Ok(Action::Allow), Ok(Action::Deny)]);
    shards[2].ended(Instant::ZERO, &one);
    assert_eq!(shards[0].look(|rules| rules.sources().next().map(|(_, _, count)| count)), Some(1));
}

fn any_prefix() -> impl Strategy<Value = IpNet> {
    let v4 = (any::<u32>(), 0..=32_u8)
        .prop_map(|(address, len)| IpNet::from(Ipv4Net::new(address.into(), len).expect("up to 32")).trunc());
    let v6 = (any::<u128>(), 0..=128_u8).prop_map(|(address, len)| {
        IpNet::from(Ipv6Net::new(address.into(), len).expect("up to 128")).trunc()
    });
    prop_oneof![v4, v6]
}

fn any_rate() -> impl Strategy<Value = Rate> {
    let units = prop_oneof![Just(Unit::Second), Just(Unit::Minute), Just(Unit::Hour)];
    (1..=1_000_000_u32, units, 1..=1_000_000_u32, any::<bool>()).prop_map(|(attempts, unit, burst, same)| {
        Rate { attempts, unit, burst: if same { attempts } else { burst } }
    })
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let actions = prop_oneof![Just(Action::Allow), Just(Action::Deny), Just(Action::Reject)];
    let kinds = prop_oneof![Just(AttemptKind::Listen), Just(AttemptKind::Connect), Just(AttemptKind::Accept)];
    let protocols = prop_oneof![Just(None), Just(Some(Protocol::Tcp)), Just(Some(Protocol::Udp))];
    let prefixes = || prop::collection::vec(any_prefix(), 0..4);
    let range = (1..=u16::MAX, 0..3_000_u16).prop_map(|(first, len)| first..=first.saturating_add(len));
    let ports = prop::collection::vec(range, 0..4);
    let limits = (prop::option::of(any_rate()), prop::option::of(1..=1_000_000_u32));
    (actions, kinds, protocols, prefixes(), prefixes(), ports, limits).prop_map(
        |(action, kind, protocol, remote, local, ports, (rate, per_source))| {
            let (is_allowed, is_accept) = (action == Action::Allow, kind == AttemptKind::Accept);
            Rule {
                action,
                kind,
                protocol: protocol.filter(|protocol| !is_accept || *protocol == Protocol::Tcp),
                remote: if kind == AttemptKind::Listen { vec![] } else { remote },
                local,
                ports,
                rate: rate.filter(|_| is_allowed),
                per_source: per_source.filter(|_| is_allowed && is_accept),
            }
        },
    )
}

proptest! {
    #[test]
    fn rules_are_read_as_they_are_written(rules in prop::collection::vec(any_rule(), 0..8)) {
        let written = Rules::new(Action::Reject, rules.clone()).to_string();
        let read: Rules = written.parse().expect("what was written");
        prop_assert_eq!(read.rules().cloned().collect::<Vec<_>>(), rules, "{}", written);
        prop_assert_eq!(read.default_action(), Action::Reject);
    }

    #[test]
    fn no_text_is_too_strange(
        text in "([a-z0-9./:,\n# -]{0,8}|allow|accept|tcp|port|rate|from| |\n){0,30}", noise in ".{0,100}"
    ) {
        for text in [text, noise] {
            if let Err(error) = text.parse::<Rules>() {
                prop_assert_eq!(error.to_string().lines().count(), 1);
            }
        }
    }
}
