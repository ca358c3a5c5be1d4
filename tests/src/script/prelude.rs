//! What most scripts of TCP begin with: `use`, as the lines that it stands for.

use super::call;
use super::token::{Cursor, Token, number};

/// What a `use` line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prelude {
    kind: PreludeKind,
    pub(super) is_v6: bool,
    pub(super) host_port: u16,
    pub(super) peer_port: u16,
    mss: u16,
    sack: bool,
    timestamps: bool,
    window_scale: Option<u8>,
    ecn: bool,
    window: u16,
    round_trip: String,
    backlog: u32,
    /// Options of the socket, with their values.
    options: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PreludeKind {
    /// Only ports and addresses.
    Ports,
    /// A listener `l`.
    Listening,
    /// A connection `c` that was accepted.
    Established,
    /// A connection `c` that was begun by the host.
    Connected,
}

const KINDS: [(&str, PreludeKind); 4] = [
    ("ports", PreludeKind::Ports),
    ("listening", PreludeKind::Listening),
    ("established", PreludeKind::Established),
    ("connected", PreludeKind::Connected),
];

impl Prelude {
    /// Reads what is behind `use`.
    pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<Self, String> {
        let word = cursor.word("ports, listening, established or connected")?;
        let kind = KINDS.iter().find(|(known, _)| *known == word);
        let (_, kind) = kind.ok_or_else(|| {
            format!("`{word}`: ports, listening, established or connected is accepted behind `use`")
        })?;
        let is_ours = *kind == PreludeKind::Connected;
        let mut prelude = Self {
            kind: *kind,
            is_v6: false,
            host_port: if is_ours { 40_000 } else { 80 },
            peer_port: if is_ours { 80 } else { 40_000 },
            mss: 1_000,
            sack: false,
            timestamps: false,
            window_scale: None,
            ecn: false,
            window: u16::MAX,
            round_trip: "20ms".to_owned(),
            backlog: 5,
            options: Vec::new(),
        };
        while !cursor.is_at_end() {
            prelude.word(cursor)?;
        }
        Ok(prelude)
    }

    fn word(&mut self, cursor: &mut Cursor<'_>) -> Result<(), String> {
        let word = cursor.word("a word of `use`")?;
        match word {
            "v6" => self.is_v6 = true,
            "sack" => self.sack = true,
            "ts" => self.timestamps = true,
            "ecn" => self.ecn = true,
            _ => {
                cursor.expect('=')?;
                let value = match cursor.next() {
                    Some(Token::Word(value)) => value,
                    _ => return Err(format!("{word}=: a value is missing")),
                };
                let small = || {
                    let parsed = number(value).and_then(|number| u16::try_from(number).ok());
                    parsed.ok_or_else(|| format!("{word}=`{value}`: a number up to 65535 is accepted"))
                };
                match word {
                    "port" => self.host_port = small()?,
                    "peer-port" => self.peer_port = small()?,
                    "mss" => self.mss = small()?,
                    "wscale" => self.window_scale = Some(small()? as u8),
                    "win" => self.window = small()?,
                    "backlog" => self.backlog = small()?.into(),
                    "rtt" => self.round_trip = value.clone(),
                    _ => {
                        call::option(word)?;
                        self.options.push((word.to_owned(), value.clone()));
                    }
                }
            }
        }
        Ok(())
    }

    /// The lines that it stands for.
    pub(super) fn lines(&self) -> Vec<String> {
        match self.kind {
            PreludeKind::Ports => Vec::new(),
            PreludeKind::Listening => self.listening(),
            PreludeKind::Established => {
                let mut lines = self.listening();
                let (flags, answer) = if self.ecn { ("SEW", "SAE") } else { ("S", "SA") };
                lines.push(format!("< tcp {flags} seq=0 win={} <{}>", self.window, self.peer_options()));
                lines.push(format!("> tcp {answer} seq=0 ack=1"));
                lines.push(format!("+{} < tcp A seq=1 ack=1 win={}", self.round_trip, self.window));
                lines.push("c = accept(l)".to_owned());
                lines
            }
            PreludeKind::Connected => {
                let (host, peer) = self.ends();
                let version = if self.is_v6 { "tcp6" } else { "tcp" };
                let mut lines = vec![format!("c = socket {version}"), format!("bind(c, {host})")];
                lines.extend(self.options.iter().map(|(name, value)| format!("set(c, {name}, {value})")));
                lines.push(format!("connect(c, {peer})"));
                let (flags, answer) = if self.ecn { ("SEW", "SAE") } else { ("S", "SA") };
                lines.push(format!("> tcp {flags} seq=0"));
                lines.push(format!(
                    "+{} < tcp {answer} seq=0 ack=1 win={} <{}>",
                    self.round_trip,
                    self.window,
                    self.peer_options()
                ));
                lines.push("> tcp A seq=1 ack=1".to_owned());
                lines
            }
        }
    }

    fn ends(&self) -> (String, String) {
        let (host, peer) = if self.is_v6 { ("[fd00::2]", "[fd00::1]") } else { ("10.0.0.2", "10.0.0.1") };
        (format!("{host}:{}", self.host_port), format!("{peer}:{}", self.peer_port))
    }

    fn listening(&self) -> Vec<String> {
        let version = if self.is_v6 { "tcp6" } else { "tcp" };
        let mut lines = vec![format!("l = socket {version}"), format!("bind(l, {})", self.ends().0)];
        lines.extend(self.options.iter().map(|(name, value)| format!("set(l, {name}, {value})")));
        lines.push(format!("listen(l, {})", self.backlog));
        lines
    }

    /// Options of the peer's SYN. The twelve bytes of timestamps are added to the MSS, so that full segments have as
    /// many bytes with them as without.
    fn peer_options(&self) -> String {
        let mut options = vec![format!("mss {}", self.mss + if self.timestamps { 12 } else { 0 })];
        if self.sack {
            options.push("sackOK".to_owned());
        }
        if self.timestamps {
            options.push("TS any any".to_owned());
        }
        if let Some(shift) = self.window_scale {
            options.push(format!("wscale {shift}"));
        }
        options.join(",")
    }
}
