//! The rules of `wirestack_tests::tidy`, on all files of this repository.

use std::fs;

use wirestack_tests::tidy::{self, Source};

fn sources() -> Vec<Source> {
    tidy::sources(&tidy::repository()).expect("all files can be read")
}

/// Fails with everything that a rule finds.
fn check(rule: fn(&str, &str) -> Vec<String>) {
    let findings: Vec<_> = sources().iter().flat_map(|source| rule(&source.path, &source.text)).collect();
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn unsafe_code_is_where_it_belongs() {
    check(tidy::misplaced_unsafe);
}

#[test]
fn clocks_are_read_where_it_belongs() {
    check(tidy::misplaced_clock);
}

#[test]
fn nothing_is_left_unfinished() {
    check(tidy::unfinished);
}

#[test]
fn no_word_is_foreign() {
    check(tidy::foreign_words);
}

#[test]
fn nothing_is_too_long() {
    check(tidy::too_long);
    let stale = tidy::stale_exceptions(&sources());
    assert!(stale.is_empty(), "\n{}\n", stale.join("\n"));
}

#[test]
fn the_readme_names_what_exists() {
    let root = tidy::repository();
    let text = fs::read_to_string(root.join("README.md")).expect("README.md is at the root");
    let findings = tidy::missing_paths("README.md", &text, |path| root.join(path).exists());
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}
