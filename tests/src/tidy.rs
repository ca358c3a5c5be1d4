//! Rules on the source text that the compiler does not know, each a function from text to findings.
//!
//! A finding is one line: where, and what would be right. The test `tidy` runs all rules on all files
//! of the repository.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where unsafe code may be. Nowhere else, and these two are in one crate.
const UNSAFE_FOLDERS: [&str; 2] = ["nic/src/shm/", "nic/src/sys/"];

/// Where the clock may be read. The stack gets the time as an argument, so that tests own it.
const CLOCK_PLACES: [&str; 3] = ["nic/src/wait.rs", "apps/", "tests/"];

/// Lines that a file may have.
const FILE_LINES_MAX: usize = 900;

/// Lines that a function may have, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// Files (`path`) and functions (`path name`) that may be longer. An entry that is not needed any more
/// is a finding, so the list only gets shorter.
const LONG_ONES: [&str; 0] = [];

/// Folders that hold what was built or downloaded, or found by a fuzzer.
const SKIPPED_FOLDERS: [&str; 5] = [".git", "target", "node_modules", "corpus", "artifacts"];

/// Kinds of files that people write here, without the dot.
const TEXT_KINDS: [&str; 7] = ["rs", "md", "toml", "sh", "yml", "yaml", "html"];

/// A file of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// From the root of the repository, with slashes.
    pub path: String,
    /// What is in it.
    pub text: String,
}

/// The root of the repository that these tests were compiled from.
pub fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// All files below `root` that people have written.
///
/// # Errors
/// A folder or a file cannot be read, or a file is not UTF-8.
pub fn sources(root: &Path) -> io::Result<Vec<Source>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                let name = entry.file_name();
                if !SKIPPED_FOLDERS.iter().any(|skipped| name == **skipped) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|kind| TEXT_KINDS.iter().any(|known| kind == *known)) {
                let text = fs::read_to_string(&path)?;
                let path = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
                found.push(Source { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Unsafe code, and permission for it, outside of the folders that are for it.
pub fn misplaced_unsafe(path: &str, text: &str) -> Vec<String> {
    if !is_rust(path) || is_below(path, &UNSAFE_FOLDERS) {
        return Vec::new();
    }
    let permission: String = ["allow", "(unsafe_code)"].concat();
    let is_wrong = |line: &str| has_word(line, "unsafe") || line.replace(' ', "").contains(&permission);
    findings(path, &code_only(text), is_wrong, "unsafe code belongs in nic/src/shm or nic/src/sys")
}

/// Reads of a clock outside of the places that are for it.
pub fn misplaced_clock(path: &str, text: &str) -> Vec<String> {
    if !is_rust(path) || is_below(path, &CLOCK_PLACES) {
        return Vec::new();
    }
    let is_wrong = |line: &str| {
        ["Instant::now(", "SystemTime::now(", "clock_gettime("].iter().any(|read| line.contains(read))
    };
    findings(path, &code_only(text), is_wrong, "take `now` as an argument; nic/src/wait.rs reads the clock")
}

/// Work that was left undone: marks in comments, macros, and tests that do not run.
pub fn unfinished(path: &str, text: &str) -> Vec<String> {
    // Put together here, so that this file does not find itself.
    let words = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"]].map(|parts| parts.concat());
    let code = [["todo", "!("], ["unimplemented", "!("], ["#[ign", "ore"]].map(|parts| parts.concat());
    let is_wrong = |line: &str| {
        words.iter().any(|word| has_word(line, word)) || code.iter().any(|code| line.contains(code))
    };
    findings(path, text, is_wrong, "finish it, or write down as a limit what it cannot do")
}

/// Words of a workplace, which mean nothing to a reader from elsewhere.
pub fn foreign_words(path: &str, text: &str) -> Vec<String> {
    let words = [["/wo", "rk/"], ["dev", "pi"], ["registry", " host"]].map(|parts| parts.concat());
    let is_wrong = |line: &str| {
        let line = line.to_lowercase();
        words.iter().any(|word| line.contains(word)) || names_an_issue(&line)
    };
    findings(path, text, is_wrong, "say what it is, to a reader who has only this repository")
}

/// Files and functions that are longer than a reader likes.
pub fn too_long(path: &str, text: &str) -> Vec<String> {
    too_long_except(path, text, &LONG_ONES)
}

/// Entries of the list of long ones that are short by now, or gone.
pub fn stale_exceptions(sources: &[Source]) -> Vec<String> {
    let long: BTreeSet<String> = sources
        .iter()
        .flat_map(|source| long_ones(&source.path, &source.text))
        .map(|(name, _)| name)
        .collect();
    let stale = LONG_ONES.iter().filter(|exception| !long.contains(**exception));
    stale.map(|exception| format!("{exception}: is not long any more; take it off LONG_ONES")).collect()
}

/// Paths that a document names and that do not exist: between backticks, or as the target of a link.
pub fn missing_paths(path: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut is_block = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            is_block = !is_block;
            continue;
        }
        if is_block {
            continue;
        }
        let quoted = line.split('`').skip(1).step_by(2).filter(|quoted| looks_like_path(quoted, &exists));
        let links = line.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next());
        let links = links.filter(|link| !link.is_empty() && !link.contains(':'));
        for named in quoted.chain(links).filter(|named| !exists(named.trim_end_matches('/'))) {
            wrong.push(format!("{path}:{number}: {named} does not exist: name what does"));
        }
    }
    wrong
}

fn too_long_except(path: &str, text: &str, exceptions: &[&str]) -> Vec<String> {
    let long = long_ones(path, text).into_iter().filter(|(name, _)| !exceptions.contains(&name.as_str()));
    long.map(|(name, finding)| format!("{name}: {finding}")).collect()
}

/// What is too long in a file: its name as in the list of exceptions, and what is wrong with it.
fn long_ones(path: &str, text: &str) -> Vec<(String, String)> {
    if !is_rust(path) {
        return Vec::new();
    }
    let mut long = Vec::new();
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        long.push((path.to_owned(), format!("{lines} lines: split it, {FILE_LINES_MAX} are right")));
    }
    for (name, lines) in functions(&code_only(text)) {
        if lines > FUNCTION_LINES_MAX {
            let finding = format!("{lines} lines: split it, {FUNCTION_LINES_MAX} are right");
            long.push((format!("{path} {name}"), finding));
        }
    }
    long
}

/// Names of the functions in a text without comments and strings, and how many lines they have.
fn functions(code: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (start, _) in code.match_indices("fn ") {
        if code[..start].chars().next_back().is_some_and(is_word_char) {
            continue;
        }
        let name: String = code[start + 3..].chars().take_while(|c| is_word_char(*c)).collect();
        if let Some(len) = body_end(&code[start..]) {
            found.push((name, code[start..start + len].lines().count()));
        }
    }
    found
}

/// Where the body of the function that starts here ends; `None` if it has none.
fn body_end(code: &str) -> Option<usize> {
    let (mut braces, mut brackets) = (0, 0);
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            // A declaration in a trait. The semicolon of `[u8; 4]` is inside of brackets.
            ';' if braces == 0 && brackets == 0 => return None,
            '{' => braces += 1,
            '}' if braces <= 1 => return Some(at + 1),
            '}' => braces -= 1,
            _ => {}
        }
    }
    None
}

/// Rust source with a space for each character of a comment, a string or a character literal. Lines
/// stay where they are.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let len = skipped_len(rest, &code);
        if len == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            let (skipped, after) = rest.split_at(len);
            code.extend(skipped.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = after;
        }
    }
    code
}

/// How many bytes at the start of `rest` are no code; `before` is the code in front of them.
fn skipped_len(rest: &str, before: &str) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment_len(rest);
    }
    if rest.starts_with('"') {
        return quoted_len(rest, '"');
    }
    if rest.starts_with('\'') {
        return char_len(rest);
    }
    // A raw string, unless the `r` is the end of a name.
    let raw = rest.strip_prefix('b').unwrap_or(rest).strip_prefix('r');
    match raw {
        Some(raw) if !before.ends_with(is_word_char) => {
            let hashes = raw.len() - raw.trim_start_matches('#').len();
            if !raw[hashes..].starts_with('"') {
                return 0;
            }
            let end = format!("\"{}", "#".repeat(hashes));
            let open = rest.len() - raw.len() + hashes + 1;
            rest[open..].find(&end).map_or(rest.len(), |at| open + at + end.len())
        }
        _ => 0,
    }
}

fn block_comment_len(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(next) = rest[at..].find(['/', '*']).map(|offset| at + offset) {
        if rest[next..].starts_with("/*") {
            depth += 1;
            at = next + 2;
        } else if rest[next..].starts_with("*/") {
            depth -= 1;
            at = next + 2;
            if depth == 0 {
                return at;
            }
        } else {
            at = next + 1;
        }
    }
    rest.len()
}

fn quoted_len(rest: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if c == quote && !is_escaped {
            return at + 1;
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    rest.len()
}

/// The length of a character literal; 0 for a lifetime.
fn char_len(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), _) => quoted_len(rest, '\''),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

fn findings(path: &str, text: &str, is_wrong: impl Fn(&str) -> bool, right: &str) -> Vec<String> {
    let lines = (1..).zip(text.lines()).filter(|(_, line)| is_wrong(line));
    lines.map(|(number, line)| format!("{path}:{number}: {:?}: {right}", line.trim())).collect()
}

fn looks_like_path(quoted: &str, exists: impl Fn(&str) -> bool) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    if quoted.is_empty() || quoted.starts_with('/') || !quoted.chars().all(is_plain) {
        return false;
    }
    match quoted.split_once('/') {
        // In one of our folders, or with a file's ending: not `10.0.0.2/24` or `and/or`.
        Some((folder, _)) => exists(folder) || has_text_kind(quoted),
        None => has_text_kind(quoted),
    }
}

fn has_text_kind(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|kind| TEXT_KINDS.iter().any(|known| kind == *known))
}

/// Whether a line in lower case points to an entry of somebody's list: that word, and a number.
fn names_an_issue(line: &str) -> bool {
    line.match_indices("issue").any(|(at, word)| {
        let rest = line[at + word.len()..].trim_start();
        rest.trim_start_matches('#').starts_with(|c: char| c.is_ascii_digit()) || rest.starts_with('#')
    })
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(is_word_char) && !line[at + word.len()..].starts_with(is_word_char)
    })
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_rust(path: &str) -> bool {
    path.ends_with(".rs")
}

fn is_below(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| path.starts_with(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule finds something in each of `wrong`, and nothing in any of `right`.
    fn check(rule: impl Fn(&str) -> Vec<String>, wrong: &[&str], right: &[&str]) {
        for text in wrong {
            assert_eq!(rule(text).len(), 1, "{text:?}: {:?}", rule(text));
        }
        for text in right {
            assert!(rule(text).is_empty(), "{text:?}: {:?}", rule(text));
        }
    }

    #[test]
    fn unsafe_code_is_found_and_talk_of_it_is_not() {
        check(
            |text| misplaced_unsafe("stack/src/a.rs", text),
            &[
                "let x = unsafe { y() };",
                "unsafe impl Send for A {}",
                "pub unsafe fn a() {}",
                "#![allow(unsafe_code)]",
                "/* a /* b */ c */ unsafe {",
                "let quote = '\"'; unsafe { a() }",
                "fn a<'a>(b: &'a str) { unsafe { c(b) } }",
                "let r = var\"\"; unsafe {}",
            ],
            &[
                "#![forbid(unsafe_code)]",
                "#![deny(unsafe_op_in_unsafe_fn)]",
                "// unsafe { }",
                "let x = \"unsafe\";",
                "let x = \"\\\"unsafe\";",
                "let x = r#\"a \" unsafe\"#;",
                "let x = br\"unsafe\";",
                "/* a /* unsafe */ unsafe */",
                "let unsafely = 1;",
            ],
        );
        assert!(misplaced_unsafe("nic/src/sys/a.rs", "unsafe {").is_empty());
        assert!(misplaced_unsafe("README.md", "unsafe {").is_empty());
        assert_eq!(misplaced_unsafe("nic/src/system.rs", "\n unsafe {").len(), 1);
    }

    #[test]
    fn clock_reads_are_found() {
        let wrong = ["let t = Instant::now();", "std::time::SystemTime::now()", "clock_gettime(id)"];
        let right = ["// Instant::now()", "let t = now;", "wait::now()"];
        check(|text| misplaced_clock("stack/src/a.rs", text), &wrong, &right);
        for path in ["nic/src/wait.rs", "apps/src/a.rs", "tests/src/a.rs"] {
            assert!(misplaced_clock(path, wrong[0]).is_empty(), "{path}");
        }
    }

    #[test]
    fn unfinished_work_is_found() {
        let [a, b, c] = [["// TO", "DO: x"], ["// FIX", "ME x"], ["// XX", "X"]].map(|parts| parts.concat());
        let [d, e, f] =
            [["to", "do!()"], ["unimple", "mented!()"], ["#[ig", "nore]"]].map(|parts| parts.concat());
        let right = ["// what is left to do", "mktemp XXXXXX", "with_ignored_flag(true)"];
        check(|text| unfinished("a.rs", text), &[&a, &b, &c, &d, &e, &f], &right);
    }

    #[test]
    fn words_of_a_workplace_are_found() {
        let [a, b, c] =
            [["See /wo", "rk/x"], ["Dev", "pi"], ["the registry", " host"]].map(|parts| parts.concat());
        let [d, e] = [["see iss", "ue #12"], ["Iss", "ue 7 says"]].map(|parts| parts.concat());
        let right = ["the issue is that 3 frames", "https://example.org/works/", "issued 3 times"];
        check(|text| foreign_words("a.md", text), &[&a, &b, &c, &d, &e], &right);
    }

    #[test]
    fn long_functions_are_found() {
        let body = |lines: usize| format!("fn f(a: [u8; 4]) {{\n{}}}\n", "    a();\n".repeat(lines));
        let rule = |text: &str| too_long_except("a.rs", text, &[]);
        let in_impl = format!("impl A {{\n    fn g(&self);\n    {}}}\n", body(69));
        let with_brace = format!("fn f() {{\n    \"}}\";\n{}}}\n", "    a();\n".repeat(68));
        check(rule, &[&body(69), &in_impl, &with_brace], &[&body(68), "type F = fn (u8);", "fn f();"]);
        assert!(rule(&body(69))[0].starts_with("a.rs f: 71 lines"));
        assert!(too_long_except("a.rs", &body(69), &["a.rs f"]).is_empty());
    }

    #[test]
    fn long_files_are_found() {
        let file = |lines| "// x\n".repeat(lines);
        check(|text| too_long_except("a.rs", text, &[]), &[&file(901)], &[&file(900)]);
        assert!(too_long_except("a.rs", &file(901), &["a.rs"]).is_empty());
        assert!(too_long("a.md", &file(901)).is_empty());
    }

    #[test]
    fn paths_that_do_not_exist_are_found() {
        let exists = |path: &str| ["nic", "nic/src", "nic/src/lib.rs", "Cargo.toml"].contains(&path);
        check(
            |text| missing_paths("README.md", text, exists),
            &["see `nic/src/gone.rs`", "`gone.rs`", "`gone/a.rs`", "[x](gone)", "`a` and `nic/b/`"],
            &[
                "`nic/src/lib.rs` and `nic/src/` and `Cargo.toml`",
                "`10.77.0.1/24`, `fd77::1/64`, `and/or`, `/dev/net/tun`, `cargo run -p nic/a.rs`",
                "[x](nic/src/lib.rs#top) [y](https://example.org/a.rs) [z](#here)",
                "```\nsee `gone.rs`\n```",
            ],
        );
    }

    #[test]
    fn this_repository_is_read() {
        let sources = sources(&repository()).unwrap();
        let this = sources.iter().find(|source| source.path == "tests/src/tidy.rs").expect("this file");
        assert_eq!(this.text, include_str!("tidy.rs"));
        assert!(!sources.iter().any(|source| source.path.starts_with("target/")));
    }
}
