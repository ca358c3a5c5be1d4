//! Bounds, times and servers in trouble.

use super::*;

#[test]
fn who_does_not_want_to_know_any_more_is_not_told() {
    let mut bed = Bed::plain();
    let ids = ["192.0.2.1", "192.0.2.2"].map(|literal| bed.resolve(literal, Kind::A));
    bed.resolver.cancel(ids[0]);
    assert_eq!(bed.event().id, ids[1]);
    assert_eq!(bed.resolver.poll_event(), None);
}

#[test]
fn ports_cannot_be_guessed_and_are_all_used() {
    let mut bed = Bed::plain();
    let mut ports: Vec<_> = (0..20)
        .map(|n| {
            bed.resolve(&format!("n{n}.example"), Kind::A);
            bed.transmit().local_port
        })
        .collect();
    let steps: BTreeSet<_> = ports.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    assert!(steps.len() > 15, "{ports:?}");
    ports.sort_unstable();
    assert!(ports[0] >= 16_384 && ports[0] < 30_000 && ports[19] > 50_000, "{ports:?}");
    // The last of a few is found, and then there is none.
    let mut bed = Bed::new(Config { ports: 5000..=5099, ..Config::default() });
    for n in 0..100 {
        bed.resolve(&format!("n{n}.example"), Kind::A);
    }
    assert_eq!(bed.transmits().len(), 100);
    bed.resolve("more.example", Kind::A);
    assert_eq!(bed.err(), DnsError::NoServer);
}

#[test]
fn a_port_is_used_again_when_it_is_closed() {
    let mut bed = Bed::new(Config { ports: 5000..=5000, ..Config::default() });
    bed.resolve("a.example", Kind::A);
    let transmit = bed.transmit();
    bed.answer(&transmit, &reply(&transmit, 0, &[address(1, 60)], &[])).unwrap();
    bed.ok();
    bed.resolve("b.example", Kind::A);
    assert_eq!(bed.err(), DnsError::NoServer, "the driver has not closed it yet");
    bed.close();
    bed.resolve("b.example", Kind::A);
    assert_eq!(bed.transmit().local_port, 5000);
}

#[test]
fn what_an_alias_leads_to_is_not_remembered_longer_than_the_alias() {
    let alias = record(&SAME, CNAME, 10, &wire("y.example"));
    // In two messages, and in one.
    for is_split in [true, false] {
        let mut bed = Bed::plain();
        bed.resolve("x.example", Kind::A);
        let mut transmit = bed.transmit();
        if is_split {
            bed.answer(&transmit, &reply(&transmit, 0, std::slice::from_ref(&alias), &[])).unwrap();
            transmit = bed.transmit();
        }
        let answers = if is_split { vec![] } else { vec![alias.clone()] };
        bed.answer(&transmit, &reply(&transmit, NXDOMAIN, &answers, &[soa(60, 60)])).unwrap();
        assert_eq!(bed.err(), DnsError::NotFound);
        bed.now += Duration::from_secs(9);
        bed.resolve("x.example", Kind::A);
        assert_eq!(bed.err(), DnsError::NotFound);
        bed.now += Duration::from_secs(1);
        bed.resolve("x.example", Kind::A);
        bed.transmit();
    }
}

#[test]
fn the_shortest_of_all_times_is_that_of_an_answer() {
    let mut bed = Bed::new(Config { ttl_min: Duration::from_secs(5), ..Config::default() });
    for (ttls, expected) in [([10, 60, 300], 10), ([60, 10, 300], 10), ([60, 300, 10], 10), ([1, 2, 3], 5)] {
        bed.resolver.clear_cache();
        bed.resolve("a.example", Kind::A);
        for (name, ttl) in ["b.example", "c.example"].into_iter().zip(ttls) {
            let transmit = bed.transmit();
            let alias = record(&SAME, CNAME, ttl, &wire(name));
            bed.answer(&transmit, &reply(&transmit, 0, &[alias], &[])).unwrap();
        }
        let transmit = bed.transmit();
        bed.answer(&transmit, &reply(&transmit, 0, &[address(1, ttls[2])], &[])).unwrap();
        assert_eq!(bed.ok().expires, Some(bed.now + Duration::from_secs(expected)), "{ttls:?}");
    }
}

#[test]
fn limits_of_one_answer() {
    let alias = |n: usize| record(&wire(&format!("n{n}")), CNAME, 60, &wire(&format!("n{}", n + 1)));
    for (aliases, is_ok) in [(8, true), (9, false)] {
        let mut bed = Bed::plain();
        bed.resolve("n0", Kind::A);
        let transmit = bed.transmit();
        let mut list: Vec<_> = (0..aliases).map(alias).collect();
        list.push(record(&wire(&format!("n{aliases}")), A, 60, &[192, 0, 2, 1]));
        bed.answer(&transmit, &reply(&transmit, 0, &list, &[])).unwrap();
        assert_eq!(bed.event().result.is_ok(), is_ok, "{aliases}");
    }
    let mut bed = Bed::plain();
    bed.resolve("a.example", Kind::A);
    let transmit = bed.transmit();
    let list: Vec<_> = (0..100).map(|last| address(last, 60)).collect();
    bed.answer(&transmit, &reply(&transmit, 0, &list, &[])).unwrap();
    assert_eq!(bed.ok().addresses.len(), 64);
}

#[test]
fn an_alias_to_nothing_is_no_data() {
    let mut bed = Bed::plain();
    bed.resolve("a.example", Kind::A);
    let transmit = bed.transmit();
    let alias = record(&SAME, CNAME, 60, &wire("b.example"));
    bed.answer(&transmit, &reply(&transmit, 0, &[alias], &[soa(60, 60)])).unwrap();
    assert_eq!(bed.err(), DnsError::NoData);
    bed.assert_idle();
}

#[test]
fn a_search_ends_with_the_worst_that_was_seen() {
    let config = || Config {
        servers: vec![SERVERS[0].parse().unwrap()],
        search: vec![Name::parse("lan").unwrap()],
        attempts: 1,
        ..Config::default()
    };
    let mut bed = Bed::new(config());
    bed.resolve("host", Kind::A);
    for flags in [0, 2] {
        let transmit = bed.transmit();
        bed.answer(&transmit, &reply(&transmit, flags, &[], &[])).unwrap();
    }
    assert_eq!(bed.err(), DnsError::ServerFailure { rcode: 2 }, "who knows what there is");
    // Nobody is there: other names will not change that.
    let mut bed = Bed::new(config());
    bed.resolve("host", Kind::A);
    assert_eq!(asked(&bed.transmit()).0, "host.lan");
    bed.timeout();
    assert_eq!(bed.err(), DnsError::TimedOut);
    bed.assert_idle();
}

#[test]
fn a_server_is_avoided_only_while_it_is_in_trouble() {
    let config = || Config { attempts: 1, ..Config::default() };
    let first_asked = |bed: &mut Bed, name: &str| {
        bed.resolve(name, Kind::A);
        let transmit = bed.transmit();
        (transmit.server.to_string(), transmit)
    };
    // Not three times in a row.
    let mut bed = Bed::new(config());
    for (n, is_silent) in [true, true, false, true, true].into_iter().enumerate() {
        let (server, transmit) = first_asked(&mut bed, &format!("n{n}.example"));
        assert_eq!(server, SERVERS[0]);
        if is_silent {
            bed.timeout();
        }
        let transmit = if is_silent { bed.transmit() } else { transmit };
        bed.answer(&transmit, &reply(&transmit, 0, &[address(1, 60)], &[])).unwrap();
        bed.ok();
    }
    assert_eq!(first_asked(&mut bed, "last.example").0, SERVERS[0]);
    // An answer ends it at once: both are avoided, and the first is back.
    let mut bed = Bed::new(config());
    for n in 0..3 {
        first_asked(&mut bed, &format!("n{n}.example"));
        bed.timeout();
        bed.transmit();
        bed.timeout();
        assert_eq!(bed.err(), DnsError::TimedOut);
    }
    let (server, transmit) = first_asked(&mut bed, "back.example");
    assert_eq!(server, SERVERS[0]);
    bed.answer(&transmit, &reply(&transmit, 0, &[address(1, 60)], &[])).unwrap();
    let avoided: Vec<_> = bed.resolver.servers().map(|server| server.avoided_until.is_some()).collect();
    assert_eq!(avoided, [false, true]);
}

#[test]
fn edns_is_tried_again_after_a_while() {
    let mut bed = Bed::plain();
    bed.resolve("a.example", Kind::A);
    let first = bed.transmit();
    bed.answer(&first, &reply(&first, 1, &[], &[])).unwrap();
    let second = bed.transmit();
    bed.answer(&second, &reply(&second, 0, &[address(1, 60)], &[])).unwrap();
    for (name, pause, records) in [("b.example", 899, 0), ("c.example", 1, 1)] {
        bed.now += Duration::from_secs(pause);
        bed.resolve(name, Kind::A);
        let transmit = bed.transmit();
        assert_eq!(transmit.payload[11], records, "{name}");
        bed.answer(&transmit, &reply(&transmit, 0, &[address(1, 60)], &[])).unwrap();
    }
}

#[test]
fn the_cache_forgets_what_ends_first() {
    for is_cleared in [true, false] {
        let mut bed = Bed::new(Config { cache_entries_max: 2, ..Config::default() });
        let ask = |bed: &mut Bed, name: &str, ttl| {
            bed.resolve(name, Kind::A);
            let transmit = bed.transmit();
            bed.answer(&transmit, &reply(&transmit, 0, &[address(1, ttl)], &[])).unwrap();
            bed.ok();
        };
        // What was known of `a` is gone: it was cleared, or has ended.
        ask(&mut bed, "a.example", 10);
        if is_cleared {
            bed.resolver.clear_cache();
        } else {
            bed.now += Duration::from_secs(10);
        }
        ask(&mut bed, "a.example", 100);
        ask(&mut bed, "b.example", 60);
        ask(&mut bed, "c.example", 70);
        bed.resolve("a.example", Kind::A);
        assert_eq!(bed.ok().addresses.len(), 1, "{is_cleared}");
        bed.resolve("b.example", Kind::A);
        bed.transmit();
    }
}

#[test]
fn bounds_of_a_configuration() {
    // Timeouts, of the first and of the second round.
    for (timeout, expected) in [
        (Duration::ZERO, [10_000, 20_000]),
        (Duration::from_secs(20), [20_000_000, 30_000_000]),
        (Duration::from_secs(99), [30_000_000, 30_000_000]),
    ] {
        let servers = vec![SERVERS[0].parse().unwrap()];
        let mut bed = Bed::new(Config { timeout, servers, ..Config::default() });
        bed.resolve("a.example", Kind::A);
        assert_eq!([bed.timeout(), bed.timeout()].map(|waited| waited.total_micros()), expected);
    }
    for (payload_bytes_max, expected) in [(0, None), (512, None), (513, Some(513)), (65_535, Some(4096))] {
        let mut bed = Bed::new(Config { payload_bytes_max, ..Config::default() });
        bed.resolve("a.example", Kind::A);
        let message = bed.transmit().payload;
        let end = &message[12 + question(&message).len()..];
        let told = end.get(3..5).map(|bytes| u16::from_be_bytes(bytes.try_into().unwrap()));
        assert_eq!(told, expected, "{payload_bytes_max}");
    }
    #[expect(clippy::reversed_empty_ranges, reason = "as a person may write it")]
    for ports in [0..=0, 7..=6] {
        let mut bed = Bed::new(Config { ports, ..Config::default() });
        bed.resolve("a.example", Kind::A);
        assert!(bed.transmit().local_port >= 16_384);
    }
    let mut bed = Bed::new(Config { ttl_max: Duration::from_secs(10), ..Config::default() });
    bed.resolve("a.example", Kind::A);
    let transmit = bed.transmit();
    bed.answer(&transmit, &reply(&transmit, NXDOMAIN, &[], &[soa(60, 60)])).unwrap();
    bed.err();
    bed.now += Duration::from_secs(10);
    bed.resolve("a.example", Kind::A);
    bed.transmit();
}

#[test]
fn the_longest_name_is_asked_for_and_a_longer_one_is_left_out() {
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    let mut bed = Bed::plain();
    bed.resolve(&longest, Kind::A);
    assert_eq!(asked(&bed.transmit()).0, longest);
    let search = [&longest[2..], &longest[1..]].map(|domain| Name::parse(domain).unwrap()).to_vec();
    let mut bed = Bed::new(Config { search, ..Config::default() });
    bed.resolve("b", Kind::A);
    for expected in [format!("b.{}", &longest[2..]), "b".to_owned()] {
        let transmit = bed.transmit();
        assert_eq!(asked(&transmit).0, expected);
        bed.answer(&transmit, &reply(&transmit, NXDOMAIN, &[], &[])).unwrap();
    }
    assert_eq!(bed.err(), DnsError::NotFound);
}

#[test]
fn files_are_read_up_to_their_bounds() {
    let conf = ResolvConf::parse("search a b\n; search x\nnameserver 10.0.0.1\ndomain c\n");
    assert_eq!(conf.search, [Name::parse("c").unwrap()], "the last line counts");
    let hosts = Hosts::parse("192.0.2.1 a a\n192.0.2.1 a\n192.0.2.2 a\n");
    assert_eq!(hosts.addresses(&Name::parse("a").unwrap()), ips(&["192.0.2.1", "192.0.2.2"]));
    assert_eq!(hosts.names(ips(&["192.0.2.1"])[0]), [Name::parse("a").unwrap()]);
    let many: String = (0..65_540).map(|n| format!("192.0.2.1 n{n}\n")).collect();
    let hosts = Hosts::parse(&many);
    assert_eq!(hosts.skipped(), 4);
    assert_eq!(hosts.names(ips(&["192.0.2.1"])[0]).len(), 64);
    assert_eq!(hosts.addresses(&Name::parse("n65535").unwrap()).len(), 1);
}
