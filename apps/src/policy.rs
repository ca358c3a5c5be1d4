//! `--policy FILE`: rules on who may listen, connect and be accepted.

use std::fs::File;
use std::io::{self, Read};

use wirestack::policy::{Rules, SharedRules};
use wirestack::shard::Shard;

use crate::cli::TcpArgs;

/// Reads a file of rules. Clones of what is returned count together.
///
/// # Errors
/// The file cannot be read, or one of its lines is wrong. One line.
pub fn load(path: &str) -> Result<SharedRules, String> {
    let text = read(path).map_err(|error| error.to_string())?;
    let rules: Rules = text.parse().map_err(|error| format!("{error}"))?;
    Ok(SharedRules::new(rules))
}

/// Puts a shard under the rules that the flags name, if they name any; all shards that are given the same flags count
/// together. Before anything listens.
pub fn install(shard: &mut Shard, args: &TcpArgs) {
    if let Some(rules) = &args.policy {
        let default = rules.look(Rules::default_action);
        shard.set_policy(Box::new(rules.clone()), default);
    }
}

fn read(path: &str) -> io::Result<String> {
    let file = File::open(path)?;
    // A named pipe nobody writes to would be waited for; a device may have no end.
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("no file; a text file of rules is accepted"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("too long; {FILE_BYTES_MAX} bytes are accepted")));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("no text; rules in UTF-8 are accepted"))
}

/// A thousand rules with lists and comments have room.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cli::{Cli, parse};
    use crate::error::AppError;

    fn run_with(path: &str, more: &[&str]) -> Result<Cli, AppError> {
        let words = ["wirestack", "echo", "--nic", "packet:x", "--address", "10.0.0.2/24", "--policy", path];
        parse(words.iter().chain(more).map(Into::into))
    }

    #[test]
    fn a_file_is_read_or_named_in_one_line() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        let long = "#".repeat(FILE_BYTES_MAX as usize + 1);
        for (name, bytes) in [
            ("good", &b"default deny\nallow listen any # all\n"[..]),
            ("wrong", b"default deny\n\nallow accept tcp port http\n"),
            ("binary", b"\xff\xfe"),
            ("long", long.as_bytes()),
            ("empty", b""),
        ] {
            fs::write(at(name), bytes).expect("written");
        }
        for (name, expected) in [
            ("good", None),
            ("empty", None),
            ("wrong", Some("line 3: `http`: a port, or FIRST-LAST, is accepted: 1 to 65535")),
            ("binary", Some("no text; rules in UTF-8 are accepted")),
            ("long", Some("too long; 1048576 bytes are accepted")),
            ("missing", Some("No such file or directory (os error 2)")),
            ("", Some("no file; a text file of rules is accepted")),
        ] {
            let path = at(name);
            match (run_with(&path, &[]), expected) {
                (Ok(_), None) => {}
                (Err(error), Some(expected)) => {
                    let line = format!("invalid value '{path}' for '--policy <FILE>': {expected}");
                    assert_eq!((error.message, error.status), (line, 2), "{name}");
                }
                (parsed, _) => panic!("{name}: {parsed:?}"),
            }
        }
        let path = at("good");
        let Ok(Cli { command: crate::cli::Command::Echo(args) }) = run_with(&path, &["--backend", "smoltcp"])
        else {
            panic!("the flags can be read");
        };
        let error = args.tcp.check().expect_err("not with smoltcp");
        assert!(error.message.starts_with("--policy") && error.status == 2, "{}", error.message);
    }
}
