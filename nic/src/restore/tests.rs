use std::cell::RefCell;
use std::os::unix::fs::symlink;

use super::*;

fn scope(folder: &tempfile::TempDir) -> Scope {
    Scope::new(folder.path().to_owned(), "eth0", 7, 2)
}

/// The journal of a process that was killed: the same text with another start.
fn left_behind(scope: &Scope, entries: &[(&str, &str)]) -> PathBuf {
    let mut journal = Journal::open("tune", scope).unwrap();
    entries.iter().for_each(|(key, old)| journal.record(key, old).unwrap());
    let text = fs::read_to_string(&journal.path).unwrap();
    let (before, rest) = text.split_once("owner ").unwrap();
    let (owner, rest) = rest.split_once('\n').unwrap();
    let (pid, other) = owner.split_once(' ').unwrap();
    fs::write(&journal.path, format!("{before}owner {pid} 9{other}\n{rest}")).unwrap();
    journal.path
}

#[test]
fn what_a_dead_process_left_is_put_back_in_reverse() {
    let folder = tempfile::tempdir().unwrap();
    let scope = scope(&folder);
    let path = left_behind(&scope, &[("a", "1"), ("b", "2"), ("a", "3"), ("c", "")]);
    assert!(matches!(Journal::open("tune", &scope), Err(JournalError::Left { .. })));
    let seen = RefCell::new(Vec::new());
    let recovery = recover("tune", &scope, |key, old| {
        seen.borrow_mut().push(format!("{key}={old}"));
        if key == "b" { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
    });
    let recovery = recovery.unwrap();
    assert_eq!(*seen.borrow(), ["c=", "b=2", "a=1"]);
    assert_eq!(recovery.pid, Some(std::process::id()));
    let lines = recovery.lines();
    assert!(lines[0].starts_with("put back c = , which process "), "{lines:?}");
    assert!(lines[1].starts_with("cannot put back b = 2") && lines[1].contains("os error 5"), "{lines:?}");
    assert!(!path.exists());
    assert!(recover("tune", &scope, |_, _| unreachable!()).unwrap().is_empty());
}

#[test]
fn a_living_process_keeps_its_record() {
    let folder = tempfile::tempdir().unwrap();
    let scope = scope(&folder);
    let mut journal = Journal::open("tune", &scope).unwrap();
    journal.record("a", "1").unwrap();
    let error = Journal::open("tune", &scope).unwrap_err();
    assert!(matches!(&error, JournalError::Held { pid, .. } if *pid == std::process::id()), "{error}");
    assert!(recover("tune", &scope, |_, _| unreachable!()).unwrap().is_empty());
    // Other kinds and other interfaces are not concerned.
    Journal::open("offload", &scope).unwrap().finish().unwrap();
    let other = Scope::new(folder.path().to_owned(), "eth0", 8, 2);
    Journal::open("tune", &other).unwrap().finish().unwrap();
    let mode = fs::metadata(&journal.path).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
    journal.forget("a").unwrap();
    journal.finish().unwrap();
    let names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["lock"]);
}

#[test]
fn a_record_that_may_not_be_put_back_stays() {
    let folder = tempfile::tempdir().unwrap();
    let scope = scope(&folder);
    let path = left_behind(&scope, &[("a", "1")]);
    let denied = recover("tune", &scope, |_, _| Err(io::Error::from_raw_os_error(libc::EPERM)));
    assert!(matches!(denied, Err(JournalError::Denied { .. })));
    assert!(path.exists());
    assert_eq!(recover("tune", &scope, |_, _| Ok(())).unwrap().entries.len(), 1);
}

#[test]
fn what_is_no_record_is_moved_aside() {
    let folder = tempfile::tempdir().unwrap();
    let scope = scope(&folder);
    let path = scope.path("tune");
    let target = folder.path().join("target");
    fs::write(&target, "wirestack restore 1\n").unwrap();
    let garbage: [&dyn Fn(); 4] = [
        &|| drop(replace(&path, b"garbage")),
        &|| symlink(&target, &path).unwrap(),
        // Others could have read or written it.
        &|| fs::write(&path, "wirestack restore 1\n").unwrap(),
        &|| nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap(),
    ];
    for make in garbage {
        make();
        let recovery = recover("tune", &scope, |_, _| unreachable!()).unwrap();
        assert_eq!(recovery.lines().len(), 1);
        let aside = recovery.broken.expect("it is moved");
        assert!(aside.symlink_metadata().is_ok() && path.symlink_metadata().is_err());
        Journal::open("tune", &scope).unwrap().finish().unwrap();
    }
    assert_eq!(fs::read_to_string(&target).unwrap(), "wirestack restore 1\n");
}

#[test]
fn keys_and_values_are_text_of_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::open("tune", &scope(&folder)).unwrap();
    for (key, old) in [("", "1"), ("a\tb", "1"), ("a", "1\n2"), ("a", &"x".repeat(9000)[..])] {
        assert!(journal.record(key, old).is_err(), "{key:?}");
    }
    journal.record("a", "1").unwrap();
    journal.finish().unwrap();
}

#[test]
fn a_folder_of_others_is_not_ours() {
    let folder = tempfile::tempdir().unwrap();
    let ours = folder.path().join("ours");
    own(&ours).unwrap();
    own(&ours).unwrap();
    assert_eq!(fs::metadata(&ours).unwrap().mode() & 0o777, 0o700);
    let link = folder.path().join("link");
    symlink(&ours, &link).unwrap();
    assert!(own(&link).is_err());
    let open = folder.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    assert!(own(&open).is_err());
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(own(&file).is_err());
}

#[test]
fn a_record_is_never_longer_than_what_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::open("tune", &scope(&folder)).unwrap();
    let value = "f".repeat(8192);
    let refused = (0..200).find_map(|number| journal.record(&format!("cpus {number}"), &value).err());
    let source = io::Error::from(refused.expect("more than a MiB"));
    assert!(source.to_string().contains("File too large"), "{source}");
    let found = read(&journal.path).unwrap();
    assert!(matches!(found, Found::Record(record) if record.entries.len() == journal.record.entries.len()));
    journal.finish().unwrap();
}
