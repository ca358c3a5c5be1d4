//! A line as a person writes it.

use std::fmt;
use std::io;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;

use smoltcp::time::{Duration, Instant};

use super::framing::{Framing, FramingConfig};
use super::pace::BITS_PER_BYTE;
use super::port::{Exec, Port, Pty, Socket, Stdio, Tty};
use super::{Serial, SerialConfig, cslip, slip};

/// `PLACE[@BAUD][,mtu=BYTES][,framing=slip|cslip][,crc=on][,flow=none|rtscts|xonxoff][,listen=on]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SerialSpec {
    /// Where bytes go.
    pub place: Place,
    /// Bits in a second, ten for a byte. `None`: 115200 of a serial port, and no bound elsewhere.
    pub baud: Option<NonZeroU32>,
    /// Bytes of an IP packet, at most; 68 to 65535. Both ends should have the same.
    pub mtu: u16,
    /// How packets are framed. Both ends have the same.
    pub framing: FramingKind,
    /// Whether frames have a CRC. Both ends have the same.
    pub crc: bool,
    /// Who may stop whom.
    pub flow: FlowControl,
    /// Whether somebody is waited for, at a socket.
    pub listen: bool,
}

/// Where the bytes of a line go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A serial port of this machine.
    Tty(PathBuf),
    /// A pseudo-terminal that is made; a link of this name leads to its other end.
    Pty(PathBuf),
    /// A Unix socket.
    Unix(PathBuf),
    /// TCP of the kernel's, to HOST:PORT.
    Tcp(String),
    /// Stdin and stdout of a shell command.
    Exec(String),
    /// Our own stdin and stdout.
    Stdio,
}

/// How packets are framed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FramingKind {
    /// RFC 1055.
    #[default]
    Slip,
    /// The same, with TCP headers compressed as in RFC 1144.
    Cslip,
}

/// Who may stop whom on a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FlowControl {
    /// Nobody.
    #[default]
    None,
    /// Either end, by wires.
    RtsCts,
    /// Either end, by bytes, which are escaped in packets; at the other end they have to be, too.
    XonXoff,
}

impl SerialSpec {
    /// A line without any wishes.
    pub fn new(place: Place) -> Self {
        Self {
            place,
            baud: None,
            mtu: MTU,
            framing: FramingKind::default(),
            crc: false,
            flow: FlowControl::default(),
            listen: false,
        }
    }

    /// The rate, if there is one.
    pub fn baud(&self) -> Option<NonZeroU32> {
        let of_port = matches!(self.place, Place::Tty(_)).then(|| NonZeroU32::new(BAUD)).flatten();
        self.baud.or(of_port)
    }

    /// Bytes in a second, with a start and a stop bit each, if there is a rate.
    pub fn bytes_per_second(&self) -> Option<u32> {
        self.baud().map(|baud| (baud.get() / BITS_PER_BYTE).max(1))
    }

    /// Opens it.
    ///
    /// # Errors
    /// No such port, no permission, a rate that it does not do; one line that says so.
    pub fn open(&self, now: Instant) -> io::Result<Serial<Box<dyn Port>>> {
        let config = SerialConfig { name: format!("serial:{self}"), mtu: self.mtu, baud: self.baud() };
        let framing = self.framing(config.packet_max());
        let mut serial = Serial::new(config, self.port()?, framing, now)?;
        if !self.listen {
            serial.wait_for_answer(ANSWER_TIMEOUT)?;
        }
        Ok(serial)
    }

    fn framing(&self, packet_max: usize) -> Box<dyn Framing> {
        let config = FramingConfig {
            packet_max,
            crc: self.crc,
            escapes_flow_control: self.flow == FlowControl::XonXoff,
        };
        match self.framing {
            FramingKind::Slip => Box::new(slip::Slip::new(config)),
            FramingKind::Cslip => Box::new(cslip::Cslip::new(config, cslip::CONNECTIONS_DEFAULT)),
        }
    }

    fn port(&self) -> io::Result<Box<dyn Port>> {
        Ok(match &self.place {
            Place::Tty(path) => {
                Box::new(Tty::new(path, self.baud().map_or(BAUD, NonZeroU32::get), self.flow))
            }
            Place::Pty(link) => Box::new(Pty::new(link)),
            Place::Unix(path) => Box::new(Socket::unix(path, self.listen)),
            Place::Tcp(name) => Box::new(Socket::tcp(name, self.listen)?),
            Place::Exec(command) => Box::new(Exec::new(command)),
            Place::Stdio => Box::new(Stdio::take()?),
        })
    }

    /// One of the options behind the place. `None`: it is none. `Some(None)`: not with this value.
    fn set(&mut self, option: &str) -> Option<Option<()>> {
        let (name, value) = option.split_once('=')?;
        let set = |found: bool| found.then_some(());
        Some(match name {
            "mtu" => value.parse().ok().filter(|mtu| *mtu >= MTU_MIN).map(|mtu| self.mtu = mtu),
            "baud" => parse_baud(value).map(|baud| self.baud = Some(baud)),
            "framing" => {
                let all = [FramingKind::Slip, FramingKind::Cslip];
                all.into_iter().find(|kind| kind.to_string() == value).map(|kind| self.framing = kind)
            }
            "flow" => {
                let all = [FlowControl::None, FlowControl::RtsCts, FlowControl::XonXoff];
                all.into_iter().find(|flow| flow.to_string() == value).map(|flow| self.flow = flow)
            }
            "crc" => parse_switch(value).map(|on| self.crc = on),
            "listen" => parse_switch(value).map(|on| self.listen = on),
            _ => return None,
        })
        .map(|found| found.and_then(|()| set(true)))
    }

    /// What does not go together.
    fn check(&self) -> Result<(), String> {
        if self.flow != FlowControl::None && !matches!(self.place, Place::Tty(_)) {
            return Err(format!(
                "flow={} is for a serial port, as in /dev/ttyUSB0@115200,flow=rtscts",
                self.flow
            ));
        }
        if self.listen && !matches!(self.place, Place::Unix(_) | Place::Tcp(_)) {
            return Err("listen=on is for unix:PATH and tcp:HOST:PORT".to_owned());
        }
        Ok(())
    }
}

impl FromStr for SerialSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut spec = Self::new(Place::Stdio);
        // Options are taken from the end as long as they are some: a command may have commas of its own.
        let mut place = text;
        while let Some((front, option)) = place.rsplit_once(',') {
            match spec.set(option) {
                Some(Some(())) => place = front,
                Some(None) => return Err(format!("{option:?}: {OPTIONS}")),
                None => break,
            }
        }
        spec.place = match place.split_once(':') {
            _ if place == "-" => Place::Stdio,
            Some(("pty", link)) if !link.is_empty() => Place::Pty(link.into()),
            Some(("unix", path)) if !path.is_empty() => Place::Unix(path.into()),
            Some(("tcp", name)) if name.contains(':') => Place::Tcp(name.to_owned()),
            Some(("exec", command)) if !command.is_empty() => Place::Exec(command.to_owned()),
            Some(("pty" | "unix" | "tcp" | "exec", _)) => return Err(PLACES.to_owned()),
            _ => {
                let (path, baud) = match place.rsplit_once('@') {
                    // An option that is none stands where the rate would end.
                    Some((_, baud)) if baud.contains('=') => return Err(OPTIONS.to_owned()),
                    Some((path, baud)) => (path, Some(parse_baud(baud).ok_or(BAUDS)?)),
                    None => (place, None),
                };
                if !path.starts_with('/') {
                    return Err(if path.contains('=') { OPTIONS.to_owned() } else { PLACES.to_owned() });
                }
                spec.baud = baud.or(spec.baud);
                Place::Tty(path.into())
            }
        };
        spec.check().map(|()| spec)
    }
}

fn parse_baud(text: &str) -> Option<NonZeroU32> {
    text.parse().ok().filter(|baud: &NonZeroU32| (BAUD_MIN..=BAUD_MAX).contains(&baud.get()))
}

fn parse_switch(text: &str) -> Option<bool> {
    match text {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

/// As it can be read again; what is usual is left out.
impl fmt::Display for SerialSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_tty = matches!(self.place, Place::Tty(_));
        match &self.place {
            Place::Tty(path) => write!(f, "{}", path.display())?,
            Place::Pty(link) => write!(f, "pty:{}", link.display())?,
            Place::Unix(path) => write!(f, "unix:{}", path.display())?,
            Place::Tcp(name) => write!(f, "tcp:{name}")?,
            Place::Exec(command) => write!(f, "exec:{command}")?,
            Place::Stdio => f.write_str("-")?,
        }
        match self.baud() {
            Some(baud) if is_tty => write!(f, "@{baud}")?,
            Some(baud) => write!(f, ",baud={baud}")?,
            None => {}
        }
        if self.mtu != MTU {
            write!(f, ",mtu={}", self.mtu)?;
        }
        if self.framing != FramingKind::default() {
            write!(f, ",framing={}", self.framing)?;
        }
        if self.flow != FlowControl::default() {
            write!(f, ",flow={}", self.flow)?;
        }
        f.write_str(if self.crc { ",crc=on" } else { "" })?;
        f.write_str(if self.listen { ",listen=on" } else { "" })
    }
}

impl fmt::Display for FramingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Slip => "slip",
            Self::Cslip => "cslip",
        })
    }
}

impl fmt::Display for FlowControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::RtsCts => "rtscts",
            Self::XonXoff => "xonxoff",
        })
    }
}

/// RFC 1055: what Berkeley's SLIP drivers have.
const MTU: u16 = 1_006;
/// RFC 791: what every link carries.
const MTU_MIN: u16 = 68;
/// Of a serial port for which nothing is said.
const BAUD: u32 = 115_200;
const BAUD_MIN: u32 = 50;
const BAUD_MAX: u32 = 100_000_000;
/// How long somebody far away may take to answer before it is gone on without.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
const PLACES: &str = "/dev/PORT[@BAUD], pty:LINK, unix:PATH, tcp:HOST:PORT, exec:COMMAND or - is accepted, as in \
                      /dev/ttyUSB0@115200";
const BAUDS: &str = "a rate of 50 to 100000000 baud is accepted behind @, as in /dev/ttyUSB0@115200";
const OPTIONS: &str = "mtu=68..65535, baud=50..100000000, framing=slip|cslip, crc=on|off, flow=none|rtscts|xonxoff and \
                       listen=on|off are accepted";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_are_written() {
        for text in [
            "/dev/ttyUSB0@115200",
            "/dev/ttyUSB0@9600,mtu=296,framing=cslip,flow=rtscts,crc=on",
            "/dev/serial/by-id/usb-a@b@300,flow=xonxoff",
            "pty:/tmp/line,mtu=1500",
            "pty:line,baud=115200",
            "unix:/run/line.socket,listen=on",
            "tcp:localhost:7000",
            "tcp:[::1]:7000,listen=on",
            "exec:slirp -P,x mtu=3, and more,mtu=576",
            "exec:ssh user@10",
            "-",
            "-,framing=cslip",
        ] {
            let spec: SerialSpec = text.parse().expect(text);
            assert_eq!(spec.to_string(), text);
        }
        let spec: SerialSpec = "exec:a,b=c,d,mtu=576,baud=9600".parse().expect("right");
        assert_eq!(spec.place, Place::Exec("a,b=c,d".to_owned()));
        assert_eq!((spec.mtu, spec.baud.map(NonZeroU32::get)), (576, Some(9_600)));
        assert_eq!("/dev/ttyS0".parse::<SerialSpec>().expect("right").to_string(), "/dev/ttyS0@115200");
    }

    #[test]
    fn what_is_wrong_is_told_with_what_is_accepted() {
        for (text, word) in [
            ("", "/dev/PORT"),
            ("ttyUSB0", "/dev/PORT"),
            ("pty:", "pty:LINK"),
            ("unix:", "unix:PATH"),
            ("tcp:host", "tcp:HOST:PORT"),
            ("exec:", "exec:COMMAND"),
            ("/dev/ttyS0@fast", "50 to 100000000"),
            ("/dev/ttyS0@49", "50 to 100000000"),
            ("/dev/ttyS0@9600,parity=even", "framing=slip|cslip"),
            ("/dev/ttyS0,mtu=67", "mtu=68..65535"),
            ("/dev/ttyS0,mtu=70000", "mtu=68..65535"),
            ("/dev/ttyS0,framing=ppp", "framing=slip|cslip"),
            ("/dev/ttyS0,crc=yes", "crc=on|off"),
            ("/dev/ttyS0,flow=dtr", "flow=none|rtscts|xonxoff"),
            ("-,flow=rtscts", "for a serial port"),
            ("pty:x,listen=on", "unix:PATH and tcp:HOST:PORT"),
            ("x=1", "mtu="),
        ] {
            let error = text.parse::<SerialSpec>().expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
            assert_eq!(error.lines().count(), 1);
        }
    }
}
