//! TCP options as text: related to the numbers of a connection, and compared.

use super::token::range;

/// The name of an option and what it says.
fn words(option: &str) -> (&str, Vec<&str>) {
    let mut words = option.split_whitespace();
    (words.next().unwrap_or_default(), words.collect())
}

fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|option| !option.is_empty())
}

/// Whether there is a timestamp, or the script says that there is none.
pub(super) fn speaks_of_timestamps(text: &str) -> bool {
    split(text).any(|option| option == "!TS" || words(option).0 == "TS")
}

/// Whether the other side is told of timestamps.
pub(super) fn has_timestamps(text: &str) -> bool {
    timestamps(text).is_some()
}

/// The two words of a timestamp.
pub(super) fn timestamps(text: &str) -> Option<(&str, &str)> {
    split(text).find_map(|option| match words(option) {
        ("TS", values) => Some((values.first().copied()?, values.get(1).copied()?)),
        _ => None,
    })
}

/// The options with each number of a SACK block and each value of a timestamp changed.
pub(super) fn changed(
    text: &str,
    edge: impl Fn(u32) -> u32,
    timestamp: impl Fn(&str, usize) -> String,
) -> String {
    let one = |option: &str| match words(option) {
        ("sack", blocks) => {
            let number = |word: &str| word.parse().map_or(word.to_owned(), |number| edge(number).to_string());
            let block = |block: &&str| {
                let (start, end) = block.split_once(':').unwrap_or((block, "0"));
                format!(" {}:{}", number(start), number(end))
            };
            format!("sack{}", blocks.iter().map(block).collect::<String>())
        }
        ("TS", values) => {
            let values = values.iter().enumerate();
            format!("TS{}", values.map(|(at, word)| format!(" {}", timestamp(word, at))).collect::<String>())
        }
        _ => option.to_owned(),
    };
    split(text).map(one).collect::<Vec<_>>().join(",")
}

/// The options as they can be built: without what only an expectation can say.
pub(super) fn plain(text: &str) -> String {
    let is_there = |option: &&str| !option.starts_with('!') && *option != "...";
    let word = |word: &str| if word == "any" || range(word).is_some() { "0" } else { word }.to_owned();
    let one = |option: &str| option.split_whitespace().map(word).collect::<Vec<_>>().join(" ");
    split(text).filter(is_there).map(one).collect::<Vec<_>>().join(",")
}

/// What differs. All options are to be written, in any order, unless `...` is one of them; a timestamp may be left
/// out. `!NAME` must not be there.
pub(super) fn differences(wanted: &str, came: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut left: Vec<&str> = split(came).collect();
    let mut all = true;
    for option in split(wanted) {
        if option == "..." {
            all = false;
        } else if option == "nop" || option == "eol" {
            // How options are aligned is the sender's affair.
        } else if let Some(name) = option.strip_prefix('!') {
            if left.iter().any(|came| words(came).0 == name) {
                found.push(format!("tcp options: {name} is not expected"));
            }
        } else {
            match left.iter().position(|came| is_same(option, came)) {
                Some(at) => {
                    left.remove(at);
                }
                None => found.push(format!("tcp options: expected {option}, came <{came}>")),
            }
        }
    }
    left.retain(|option| words(option).0 != "TS");
    if all && found.is_empty() && !left.is_empty() {
        found.push(format!("tcp options: came, and is not expected: {}", left.join(",")));
    }
    found
}

fn is_same(wanted: &str, came: &str) -> bool {
    let ((wanted_name, wanted), (came_name, came)) = (words(wanted), words(came));
    let is_word = |(wanted, came): (&&str, &&str)| {
        let is_between = |(first, last)| came.parse().is_ok_and(|came: u64| first <= came && came <= last);
        *wanted == "any" || wanted == came || range(wanted).is_some_and(is_between)
    };
    wanted_name == came_name && wanted.len() == came.len() && wanted.iter().zip(&came).all(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_compared() {
        for (wanted, came, is_right) in [
            ("mss 1460,sackOK", "sackOK,mss 1460", true),
            ("mss 1460", "sackOK,mss 1460", false),
            ("mss 1460,...", "sackOK,mss 1460", true),
            ("mss any,sackOK", "sackOK,mss 1460", true),
            ("mss 1400..1460,sackOK", "sackOK,mss 1461", false),
            ("", "TS 1 2", true),
            ("!TS", "TS 1 2", false),
            ("TS any 2", "TS 1 2", true),
            ("TS any 3", "TS 1 2", false),
            ("sack 1:2 3:4", "TS 1 2,sack 1:2 3:4", true),
            ("sack 1:2", "sack 1:2 3:4", false),
            ("!sack,...", "TS 1 2,mss 9", true),
        ] {
            assert_eq!(differences(wanted, came).is_empty(), is_right, "{wanted} and {came}");
        }
    }

    #[test]
    fn numbers_are_changed() {
        let text = changed("sack 1:2 3:4,TS 5 any,nop", |edge| edge + 100, |word, at| format!("{word}{at}"));
        assert_eq!(text, "sack 101:102 103:104,TS 50 any1,nop");
        assert_eq!(plain("mss any,!TS,TS any 5,...,wscale 1..7"), "mss 0,TS 0 5,wscale 0");
    }
}
