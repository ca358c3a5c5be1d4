//! `wirestack tune` on a pair with two queues: what it sets holds, and what was there comes back,
//! whether it ends by a signal, with another process, or is killed.

use std::fs;
use std::io;
use std::process::Command;

use wirestack_apps::testbed::{Wire, WireOptions};
use wirestack_nic::Interface;
use wirestack_nic::affinity::{CpuSet, Report, Roots, threads};
use wirestack_nic::ethtool::{self, Offload, OffloadGuard};
use wirestack_tests::programs::{Child, Ended, wirestack};
use wirestack_tests::runner::{Case, Outcome, require_program, root_test, test};

use crate::support::{LONG, end};
use crate::talk::through;

pub(crate) fn cases() -> Vec<Vec<Case>> {
    // The masks of queues are for root outside of any user namespace.
    vec![
        root_test("tune::shows_and_leaves_all_as_it_is", shows),
        root_test("tune::sets_until_a_signal", sets_until_a_signal),
        root_test("tune::sets_as_long_as_a_process_lives", sets_for_a_process),
        root_test("tune::what_a_killed_one_left_is_put_back", killed),
        root_test("tune::a_broken_record_is_moved_aside", broken_record),
        root_test("tune::switches_offloads_for_a_while", offloads_for_a_while),
        root_test("tune::an_instance_of_sysfs_shows_the_same_devices", real_devices),
        root_test("tune::bad_input", bad_input),
        require_program("setpriv", root_test("tune::no_privilege", no_privilege)),
        test("tune::features_have_names", features_have_names),
        test("tune::one_guard_at_a_time", one_guard_at_a_time),
    ]
}

fn wire() -> Result<Wire, Box<dyn std::error::Error>> {
    let mut options = WireOptions::default();
    options.veth.queues = 2;
    Ok(Wire::with(&options)?)
}

fn tune(wire: &Wire, more: &[&str]) -> Command {
    let nic = format!("packet:{}", wire.ours().name());
    wirestack([&["tune", "--nic", &nic], more].concat())
}

/// Runs it to its end, which is to be a good one.
fn look(wire: &Wire, more: &[&str]) -> io::Result<Ended> {
    let ended = wire.at_ours(|| Child::start(&mut tune(wire, more)))?.wait(LONG)?;
    assert!(ended.status.success(), "{ended}");
    Ok(ended)
}

/// Starts it with `--apply`, and waits until all is set.
fn apply(wire: &Wire, more: &[&str]) -> io::Result<Child> {
    let mut child = wire.at_ours(|| Child::start(&mut tune(wire, &[&["--apply"], more].concat())))?;
    assert_eq!(child.wait_ready(LONG)?, format!("ready tune {}", wire.ours().name()));
    Ok(child)
}

/// A file of a queue at our end.
fn queue(wire: &Wire, file: &str) -> io::Result<String> {
    wire.at_ours(|| {
        let roots = Roots::of_this_namespace();
        let path = roots.sys.join("class/net").join(wire.ours().name()).join("queues").join(file);
        Ok(fs::read_to_string(path)?.trim().to_owned())
    })
}

fn set_queue(wire: &Wire, file: &str, value: &str) -> io::Result<()> {
    wire.at_ours(|| {
        let roots = Roots::of_this_namespace();
        fs::write(roots.sys.join("class/net").join(wire.ours().name()).join("queues").join(file), value)
    })
}

/// RPS of both RX queues and XPS of both TX queues, as sets.
fn masks(wire: &Wire) -> io::Result<[String; 4]> {
    let files = ["rx-0/rps_cpus", "rx-1/rps_cpus", "tx-0/xps_cpus", "tx-1/xps_cpus"];
    let mut masks = [const { String::new() }; 4];
    for (mask, file) in masks.iter_mut().zip(files) {
        *mask = CpuSet::from_mask(&queue(wire, file)?).map_err(io::Error::other)?.to_string();
    }
    Ok(masks)
}

/// Masks that are not those of a new interface, so that coming back is more than being zero.
fn unusual(wire: &Wire) -> Result<[String; 4], Box<dyn std::error::Error>> {
    set_queue(wire, "rx-1/rps_cpus", "1")?;
    set_queue(wire, "tx-1/xps_cpus", "1")?;
    set_queue(wire, "rx-1/rps_flow_cnt", "64")?;
    let masks = masks(wire)?;
    assert_eq!(masks, ["", "0", "", "0"]);
    Ok(masks)
}

/// What `--cpus 0` makes of [`unusual`].
const ON_CPU_0: [&str; 4] = ["0", "0", "0", ""];

fn shows() -> Outcome {
    let wire = wire()?;
    let before = unusual(&wire)?;
    let ended = look(&wire, &["--cpus", "0", "--rfs", "1024", "--offload", "gso=off"])?;
    for words in [
        "rx-0 ",
        "rx-1 ",
        "tx-0 ",
        "tx-1 ",
        "RPS CPU 0",
        "XPS CPU 0",
        "propose rx-0/rps_cpus: 0 -> 1 (rx queue 0",
        "propose tx-0/xps_cpus: 0 -> 1 (tx queue 0",
        "propose tx-1/xps_cpus: 1 -> 0 (tx queue 1",
        "propose rx-1/rps_flow_cnt: 64 -> 512 (rx queue 1",
        "propose generic-segmentation-offload=off",
    ] {
        assert!(ended.stdout.contains(words), "{words:?} is missing\n{ended}");
    }
    let ended = look(&wire, &["--cpus", "0", "--json"])?;
    let object: serde_json::Value = serde_json::from_str(&ended.stdout)?;
    assert_eq!(object["interface"], wire.ours().name());
    assert_eq!(
        (object["rx"][1]["rps_cpus"].as_str(), object["tx"][1]["queue"].as_u64()),
        (Some("0"), Some(1))
    );
    assert_eq!(object["offloads"]["large-receive-offload"], serde_json::Value::Null);
    assert_eq!(object["offloads"]["generic-segmentation-offload"], true);
    assert_eq!(object["changes"].as_array().map(Vec::len), Some(3), "{object}");
    assert_eq!(masks(&wire)?, before);
    // The library says the same.
    let report = wire.at_ours(|| Report::read(&Roots::of_this_namespace(), wire.ours().name()))?;
    assert_eq!((report.rx.len(), report.tx.len(), report.irqs.len()), (2, 2, 0));
    assert_eq!(report.channels.map(|channels| (channels.rx, channels.tx)), Some((2, 2)));
    Ok(())
}

fn sets_until_a_signal() -> Outcome {
    let wire = wire()?;
    let before = unusual(&wire)?;
    let child = apply(&wire, &["--cpus", "0", "--rfs", "1024"])?;
    assert_eq!(masks(&wire)?, ON_CPU_0);
    assert_eq!(queue(&wire, "rx-1/rps_flow_cnt")?, "512");
    // A second one is told who is in charge, and changes nothing.
    let second =
        wire.at_ours(|| Child::start(&mut tune(&wire, &["--apply", "--cpus", "0", "--rfs", "64"])))?;
    let second = second.wait(LONG)?;
    assert_eq!((second.status.code(), second.stderr.lines().count()), (Some(2), 1), "{second}");
    assert!(second.stderr.contains(&format!("process {}", child.id())), "{second}");
    // Looking is free, and does not put back what is in use.
    look(&wire, &[])?;
    assert_eq!(masks(&wire)?, ON_CPU_0);
    let ended = end(child)?;
    assert!(ended.stdout.contains("set rx-0/rps_cpus: 0 -> 1"), "{ended}");
    assert_eq!(masks(&wire)?, before);
    assert_eq!(queue(&wire, "rx-1/rps_flow_cnt")?, "64");
    Ok(())
}

fn sets_for_a_process() -> Outcome {
    let wire = wire()?;
    let before = unusual(&wire)?;
    let sleeper = Child::start(Command::new("sleep").arg("1000"))?;
    let pid = sleeper.id();
    let child = apply(&wire, &["--cpus", "0", "--pin", "--for", &pid.to_string()])?;
    assert_eq!(masks(&wire)?, ON_CPU_0);
    let pinned = threads(&Roots::default(), pid)?;
    assert_eq!(pinned.iter().map(|thread| thread.cpus.to_string()).collect::<Vec<_>>(), ["0"]);
    sleeper.kill_hard()?;
    let ended = child.wait(LONG)?;
    assert!(ended.status.success(), "{ended}");
    assert_eq!(masks(&wire)?, before);
    Ok(())
}

fn killed() -> Outcome {
    let wire = wire()?;
    let before = unusual(&wire)?;
    let child = apply(&wire, &["--cpus", "0"])?;
    let pid = child.id();
    child.kill_hard()?;
    assert_eq!(masks(&wire)?, ON_CPU_0, "nobody has put it back so far");
    let ended = look(&wire, &[])?;
    let told = format!("put back tx-1/xps_cpus = 1, which process {pid} left changed");
    assert!(ended.stderr.contains(&told), "{told:?} is missing\n{ended}");
    assert_eq!(masks(&wire)?, before);
    // Once is enough.
    assert_eq!(look(&wire, &[])?.stderr, "");
    // The next one that sets something puts back first, so that it does not take 0 for the old value.
    apply(&wire, &["--cpus", "0"])?.kill_hard()?;
    let child = apply(&wire, &["--cpus", "0"])?;
    assert_eq!(masks(&wire)?, ON_CPU_0);
    end(child)?;
    assert_eq!(masks(&wire)?, before);
    Ok(())
}

fn broken_record() -> Outcome {
    let wire = wire()?;
    apply(&wire, &["--cpus", "0"])?.kill_hard()?;
    let set = masks(&wire)?;
    let prefix = format!("tune-{}-", wire.ours().name());
    let folder = wirestack_nic::restore::folder()?;
    let entries: Vec<_> = fs::read_dir(&folder)?.collect::<Result<_, _>>()?;
    let is_ours = |entry: &&fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&prefix);
    let record = entries.iter().find(is_ours).expect("a killed one leaves a record").path();
    let text = fs::read_to_string(&record)?;
    fs::write(&record, text.replace("end\n", ""))?;
    let ended = look(&wire, &[])?;
    let aside = record.with_extension("broken");
    assert!(ended.stderr.contains(&aside.display().to_string()), "{ended}");
    assert_eq!(masks(&wire)?, set, "nothing of it is trusted");
    fs::remove_file(aside)?;
    end(apply(&wire, &["--cpus", "0"])?)?;
    Ok(())
}

fn offloads_for_a_while() -> Outcome {
    let wire = wire()?;
    wire.pair().set_offloads(true)?;
    wire.at_ours(|| ethtool::set(wire.ours().name(), Offload::Gro, false))?;
    let before = wire.ours().offloads()?;
    let args = ["--cpus", "0", "--offload", "gro=on,tso=off,gso=off"];
    let child = apply(&wire, &args)?;
    let during = wire.ours().offloads()?;
    let states =
        [Offload::Gro, Offload::Tso, Offload::Gso, Offload::TxChecksum].map(|offload| during.has(offload));
    assert_eq!(states, [true, false, false, true], "{during}");
    end(child)?;
    assert_eq!(wire.ours().offloads()?, before);
    // Killed: the next start of the program, and of any guard.
    let child = apply(&wire, &args)?;
    let pid = child.id();
    child.kill_hard()?;
    assert_eq!(wire.ours().offloads()?, during);
    let ended = look(&wire, &[])?;
    let told = format!("put back tcp-segmentation-offload = on, which process {pid} left changed");
    assert!(ended.stderr.contains(&told), "{told:?} is missing\n{ended}");
    assert_eq!(wire.ours().offloads()?, before);
    apply(&wire, &args)?.kill_hard()?;
    let recovery = wire.at_ours(|| ethtool::recover(wire.ours().name()))?;
    assert_eq!(recovery.entries.len(), 3, "{recovery:?}");
    assert_eq!(wire.ours().offloads()?, before);
    apply(&wire, &args)?.kill_hard()?;
    let mut guard = wire.at_ours(|| OffloadGuard::new(wire.ours().name()))?;
    guard.set(Offload::TxChecksum, false)?;
    drop(guard);
    assert_eq!(wire.ours().offloads()?, before);
    // The masks of queues are left of that one.
    look(&wire, &[])?;
    Ok(())
}

/// Interfaces of this host, with whatever hardware it has: read only.
fn real_devices() -> Outcome {
    let (mounted, own) = (Roots::default(), Roots::of_this_namespace());
    assert_ne!(mounted.sys, own.sys, "root can have an instance of its own");
    for entry in fs::read_dir(own.sys.join("class/net"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        // Files may be there that are no interface; and `/sys` may be that of another namespace.
        let Ok(interface) = Interface::by_name(&name) else { continue };
        assert!(own.shows(&interface), "{name}");
        if mounted.shows(&interface) {
            let reports = [&mounted, &own].map(|roots| Report::read(roots, &name));
            let [mut one, mut other] = reports.map(|report| report.expect("it is shown"));
            // Those go on counting.
            for irq in one.irqs.iter_mut().chain(&mut other.irqs) {
                irq.served.clear();
            }
            assert_eq!(one, other);
            let has_driver = mounted.sys.join("class/net").join(&name).join("device/driver").exists();
            assert_eq!(one.driver.is_some(), has_driver, "{name}");
        }
    }
    Ok(())
}

/// A start that is to be refused with one line that has all `words`.
fn assert_refused(wire: &Wire, command: &mut Command, words: &[&str]) -> Outcome {
    let before = (masks(wire)?, wire.ours().offloads()?);
    let ended = wire.at_ours(|| Child::start(command))?.wait(LONG)?;
    assert_eq!(ended.status.code(), Some(2), "{words:?}: {ended}");
    assert_eq!((ended.stderr.lines().count(), ended.stdout.as_str()), (1, ""), "{words:?}: {ended}");
    for word in words {
        assert!(ended.stderr.contains(word), "{word:?} is missing: {ended}");
    }
    assert_eq!((masks(wire)?, wire.ours().offloads()?), before, "{ended}");
    Ok(())
}

fn bad_input() -> Outcome {
    let wire = wire()?;
    let refused = |more: &[&str], words: &[&str]| assert_refused(&wire, &mut tune(&wire, more), words);
    assert_refused(
        &wire,
        &mut wirestack(["tune", "--nic", "packet:nosuchnic0"]),
        &["--nic", "packet:nosuchnic0", "No such device", "`ip link` lists"],
    )?;
    refused(&["--cpus", "0,8191"], &["--cpus", "0,8191", "CPU 8191 is not online", "accepted"])?;
    refused(&["--apply", "--for", "4194304"], &["--for", "4194304", "No such process"])?;
    refused(
        &["--apply", "--offload", "lro=on"],
        &["--offload", "large-receive-offload=on", "it has rx-check"],
    )?;
    refused(&["--offload", "gro=maybe"], &["--offload", "gro=maybe", "gro=off"])
}

fn no_privilege() -> Outcome {
    let wire = wire()?;
    let without = |capabilities: &str, more: &[&str]| {
        through(&["setpriv", "--bounding-set", capabilities, "--inh-caps", capabilities], &tune(&wire, more))
    };
    let words = ["--apply", "Operation not permitted", "root"];
    assert_refused(&wire, &mut without("-net_admin", &["--apply"]), &words)?;
    let words = ["--offload", "generic-segmentation-offload=off", "Operation not permitted"];
    assert_refused(&wire, &mut without("-net_admin", &["--apply", "--offload", "gso=off"]), &words)?;
    // Without the right to mount, `/sys` is that of the host, where there is no such interface.
    let nic = format!("packet:{}", wire.ours().name());
    assert_refused(&wire, &mut without("-sys_admin", &[]), &["--nic", &nic, "another network namespace"])
}

fn features_have_names() -> Outcome {
    let wire = Wire::new()?;
    wire.pair().set_offloads(true)?;
    let name = wire.ours().name();
    let active = |feature: &str| -> io::Result<bool> {
        Ok(wire.at_ours(|| ethtool::features(name))?.is_active(feature))
    };
    for feature in
        ["tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-checksum-ip-generic", "tx-vlan-hw-insert"]
    {
        assert!(active(feature)?, "a veth pair has {feature}");
    }
    let mut guard = wire.at_ours(|| OffloadGuard::new(name))?;
    guard.set(Offload::Tso, false)?;
    assert!(!active("tx-tcp-segmentation")? && !active("tx-tcp6-segmentation")?);
    assert!(active("tx-checksum-ip-generic")?);
    guard.set(Offload::TxChecksum, false)?;
    assert!(!active("tx-checksum-ip-generic")?);
    drop(guard);
    assert!(active("tx-tcp-segmentation")? && active("tx-checksum-ip-generic")?);
    let offloads = wire.ours().offloads()?;
    assert!(offloads.is_all() && !offloads.is_available(Offload::Lro), "{offloads}");
    let error = wire.at_ours(|| ethtool::set(name, Offload::Lro, true)).expect_err("veth has no LRO");
    assert!(error.raw_os_error().is_some(), "{error}");
    assert!(!active("no-such-feature")?);
    Ok(())
}

fn one_guard_at_a_time() -> Outcome {
    let wire = Wire::new()?;
    wire.pair().set_offloads(true)?;
    let new = || wire.at_ours(|| OffloadGuard::new(wire.ours().name()));
    let (mut first, mut second) = (new()?, new()?);
    first.set(Offload::Gro, false)?;
    let error = second.set(Offload::Gso, false).expect_err("the first one is in charge");
    assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    // What holds already needs nobody in charge.
    second.set(Offload::Gro, false)?;
    drop(first);
    assert!(wire.ours().offloads()?.is_all());
    second.set(Offload::Gso, false)?;
    // The other end is another interface.
    let mut other = wire.at_peer(|| OffloadGuard::new(wire.peer().name()))?;
    other.set(Offload::Gso, false)?;
    drop((second, other));
    assert!(wire.ours().offloads()?.is_all() && wire.peer().offloads()?.is_all());
    Ok(())
}
