//! A line of a script as words, texts and marks.

use std::fmt;

/// One piece of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// Anything without spaces and marks: `udp`, `10.0.0.2:7`, `0..24`, `+10ms`.
    Word(String),
    /// Between double quotes, with `\n`, `\"`, `\\` and `\xff` undone.
    Text(Vec<u8>),
    /// One of [`MARKS`].
    Mark(char),
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => write!(f, "`{word}`"),
            Self::Text(text) => write!(f, "\"{}\"", text.escape_ascii()),
            Self::Mark(mark) => write!(f, "`{mark}`"),
        }
    }
}

/// Characters that are pieces of their own.
const MARKS: &str = "()=,<>{}";

/// Cuts a line into pieces, up to its comment.
pub(super) fn tokens(line: &str) -> Result<Vec<Token>, String> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        if first == '#' {
            break;
        }
        if first == '"' {
            let (text, behind) = quoted(&rest[1..])?;
            found.push(Token::Text(text));
            rest = behind;
        } else if MARKS.contains(first) {
            found.push(Token::Mark(first));
            rest = &rest[1..];
        } else if first.is_whitespace() {
            rest = rest.trim_start();
        } else {
            let is_end = |c: char| c.is_whitespace() || c == '"' || c == '#' || MARKS.contains(c);
            let (word, behind) = rest.split_at(rest.find(is_end).unwrap_or(rest.len()));
            found.push(Token::Word(word.to_owned()));
            rest = behind;
        }
    }
    Ok(found)
}

/// A text up to its closing quote, and what is behind that.
fn quoted(rest: &str) -> Result<(Vec<u8>, &str), String> {
    let mut text = Vec::new();
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((text, &rest[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => text.push(b'\n'),
                Some((_, kept @ ('"' | '\\'))) => text.push(kept as u8),
                Some((_, 'x')) => {
                    let digits: String = chars.by_ref().take(2).map(|(_, digit)| digit).collect();
                    let byte = u8::from_str_radix(&digits, 16);
                    text.push(byte.map_err(|_| format!("\\x{digits}: two hexadecimal digits are accepted"))?);
                }
                _ => return Err("after a backslash, n, \", \\ or x is accepted".to_owned()),
            },
            _ => text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Err("a text has no closing quote".to_owned())
}

/// What is left of a line.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    rest: &'a [Token],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(tokens: &'a [Token]) -> Self {
        Self { rest: tokens }
    }

    pub(super) fn peek(&self) -> Option<&'a Token> {
        self.rest.first()
    }

    pub(super) fn next(&mut self) -> Option<&'a Token> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next piece if it is a word, without taking it.
    pub(super) fn peek_word(&self) -> Option<&'a str> {
        match self.peek() {
            Some(Token::Word(word)) => Some(word),
            _ => None,
        }
    }

    /// Whether `mark` stands behind the next piece.
    pub(super) fn is_followed_by(&self, mark: char) -> bool {
        self.rest.get(1) == Some(&Token::Mark(mark))
    }

    /// Takes a mark if it is next.
    pub(super) fn eat(&mut self, mark: char) -> bool {
        let is_next = self.peek() == Some(&Token::Mark(mark));
        if is_next {
            self.next();
        }
        is_next
    }

    /// Takes a word if it is next.
    pub(super) fn eat_word(&mut self, word: &str) -> bool {
        let is_next = self.peek_word() == Some(word);
        if is_next {
            self.next();
        }
        is_next
    }

    /// Takes a mark that must be next.
    pub(super) fn expect(&mut self, mark: char) -> Result<(), String> {
        if self.eat(mark) { Ok(()) } else { Err(self.complaint(&format!("`{mark}`"))) }
    }

    /// Takes a certain word that must be next.
    pub(super) fn expect_word(&mut self, word: &str) -> Result<(), String> {
        if self.eat_word(word) { Ok(()) } else { Err(self.complaint(&format!("`{word}`"))) }
    }

    /// Takes a word, which is `what`.
    pub(super) fn word(&mut self, what: &str) -> Result<&'a str, String> {
        let word = self.peek_word().ok_or_else(|| self.complaint(what))?;
        self.next();
        Ok(word)
    }

    /// Takes a text, which is `what`.
    pub(super) fn text(&mut self, what: &str) -> Result<&'a [u8], String> {
        match self.peek() {
            Some(Token::Text(text)) => {
                self.next();
                Ok(text)
            }
            _ => Err(self.complaint(what)),
        }
    }

    /// Takes a word that is to be parsed.
    pub(super) fn parsed<T: std::str::FromStr>(&mut self, what: &str) -> Result<T, String> {
        let word = self.word(what)?;
        word.parse().map_err(|_| format!("`{word}`: {what} is accepted here"))
    }

    /// Takes a number, decimal or hexadecimal.
    pub(super) fn number(&mut self) -> Result<u64, String> {
        let word = self.word("a number")?;
        number(word).ok_or_else(|| format!("`{word}`: a number is accepted here"))
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<(), String> {
        if self.is_at_end() { Ok(()) } else { Err(self.complaint("the end of the line")) }
    }

    /// What is wrong if `wanted` is not next.
    pub(super) fn complaint(&self, wanted: &str) -> String {
        match self.peek() {
            Some(token) => format!("{wanted} is expected here, not {token}"),
            None => format!("{wanted} is expected at the end of the line"),
        }
    }
}

/// A number, decimal or hexadecimal.
pub(super) fn number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

/// `A..B`, both of which are meant: numbers from the first to the second.
pub(super) fn range(word: &str) -> Option<(u64, u64)> {
    let (first, last) = word.split_once("..")?;
    number(first).zip(number(last)).filter(|(first, last)| first <= last)
}

/// Bytes in hexadecimal, with 0x before them.
pub(super) fn hex(word: &str) -> Option<Vec<u8>> {
    let digits = word.strip_prefix("0x").filter(|digits| digits.len() % 2 == 0 && digits.is_ascii())?;
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok()).collect()
}
