//! What a person can write behind `wirestack perf`.

use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand, ValueEnum};

use crate::cli::{HostArgs, parse_seconds, whole};
use crate::error::AppError;
use crate::sockets::{Backend, Options};

/// Flags of `perf`.
#[derive(Debug, Args)]
pub struct PerfArgs {
    /// Which side, and whose protocol.
    #[command(subcommand)]
    pub command: PerfCommand,
}

/// The sides.
#[derive(Debug, Subcommand)]
pub enum PerfCommand {
    /// Serve `perf client`: streams, requests, connections
    Server(ServerArgs),
    /// Measure against a `perf server`, or against any HTTP server with --mode http
    Client(ClientArgs),
    /// Serve iperf3 clients
    Iperf3Server(Iperf3ServerArgs),
    /// Measure against an iperf3 server
    Iperf3Client(Iperf3ClientArgs),
}

/// Whose sockets, and where.
#[derive(Debug, Args)]
pub struct PlaceArgs {
    /// Whose sockets: wirestack, the stack's own; kernel, which needs no --nic and no --address; or smoltcp
    #[arg(long, value_name = "NAME", default_value_t)]
    pub backend: Backend,
    /// Where and who.
    #[command(flatten)]
    pub host: OptionalHost,
}

/// The flags of a host on a network interface, which not every backend needs.
#[derive(Debug)]
pub struct OptionalHost {
    /// All flags, if one that says where was given.
    pub host: Option<HostArgs>,
    /// `--json`, which counts without the others too.
    pub json: bool,
}

impl Args for OptionalHost {
    fn augment_args(command: Command) -> Command {
        let command = HostArgs::augment_args(command);
        command
            .mut_arg("nic", |arg| arg.required(false))
            .mut_arg("addresses", |arg| arg.required(false).requires("nic"))
            .mut_arg("json", |arg| arg.short('J').help("Print the result as one JSON object on stdout"))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for OptionalHost {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let is_host = matches.contains_id("nic");
        if is_host && !matches.contains_id("addresses") {
            let text = "--address is missing: --nic needs it, as in --address 10.0.0.2/24";
            return Err(clap::Error::raw(clap::error::ErrorKind::MissingRequiredArgument, text));
        }
        let host = is_host.then(|| HostArgs::from_arg_matches(matches)).transpose()?;
        Ok(Self { host, json: matches.get_flag("json") })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// How connections behave, in all roles.
#[derive(Debug, Clone, Default, Args)]
pub struct TcpFlags {
    /// Congestion control by name, as the backend knows it: reno, cubic or bbr
    #[arg(short = 'C', long, value_name = "NAME")]
    pub congestion: Option<String>,
    /// Bytes of payload in a segment, at most
    #[arg(short = 'M', long, value_name = "BYTES", value_parser = whole::<u32>(88..=65_495))]
    pub mss: Option<u32>,
    /// Bytes of the send and the receive buffer, as in 512K
    #[arg(short = 'w', long, value_name = "BYTES", value_parser = parse_buffer)]
    pub window: Option<u32>,
}

impl TcpFlags {
    /// For the sockets.
    pub fn options(&self, nodelay: bool) -> Options {
        Options {
            nodelay,
            congestion: self.congestion.clone(),
            mss: self.mss,
            send_buffer_bytes: self.window,
            recv_buffer_bytes: self.window,
        }
    }
}

/// Flags of `perf server`.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// TCP port
    #[arg(short = 'p', long, default_value_t = 5201, value_parser = whole::<u16>(1..=65_535))]
    pub port: u16,
    /// Connections that are served at a time; others are closed at once
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = whole::<usize>(1..=1_000_000))]
    pub connections_max: usize,
    /// How connections behave.
    #[command(flatten)]
    pub tcp: TcpFlags,
    /// Whose sockets.
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// What `perf client` measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Bytes a second
    Stream,
    /// Requests and responses of --size bytes, one after the other on each connection
    Rr,
    /// The same with a connection for each
    Crr,
    /// Connections that are opened and kept, and some of them used at the end
    Idle,
    /// Requests to an HTTP/1.1 server, one after the other on each connection
    Http,
}

/// Flags of `perf client`.
#[derive(Debug, Args)]
pub struct ClientArgs {
    /// Address or name of the server
    #[arg(value_name = "HOST")]
    pub server: String,
    /// TCP port
    #[arg(short = 'p', long, default_value_t = 5201, value_parser = whole::<u16>(1..=65_535))]
    pub port: u16,
    /// What is measured
    #[arg(long, value_enum, default_value_t = Mode::Stream)]
    pub mode: Mode,
    /// For so many seconds
    #[arg(short = 't', long, value_name = "S", default_value = "10", value_parser = parse_seconds)]
    pub time: f64,
    /// Bytes written at once, or of a request and of a response, as in 64 or 128K [default: 128K for stream, 1
    /// otherwise]
    #[arg(short = 'l', long, value_name = "BYTES", value_parser = parse_size)]
    pub size: Option<u32>,
    /// Connections at a time
    #[arg(short = 'P', long, value_name = "N", default_value_t = 1, value_parser = whole::<usize>(1..=1_000_000))]
    pub parallel: usize,
    /// For stream: the server sends
    #[arg(short = 'R', long, conflicts_with = "bidir")]
    pub reverse: bool,
    /// For stream: both send
    #[arg(long)]
    pub bidir: bool,
    /// For http: what is asked for
    #[arg(long, value_name = "PATH", default_value = "/", value_parser = parse_path)]
    pub path: String,
    /// Seconds between progress lines
    #[arg(short = 'i', long, value_name = "S", default_value = "1", value_parser = parse_seconds)]
    pub interval: f64,
    /// How connections behave.
    #[command(flatten)]
    pub tcp: TcpFlags,
    /// Whose sockets.
    #[command(flatten)]
    pub place: PlaceArgs,
}

impl ClientArgs {
    /// Checks what does not go together.
    ///
    /// # Errors
    /// A flag that another mode has. One line.
    pub fn check(&self) -> Result<(), AppError> {
        let mode = self.mode_name();
        let problem = format!("--mode {mode} has no such thing; leave it out");
        if self.mode != Mode::Stream && self.reverse {
            return Err(AppError::usage(format_args!("--reverse: {problem}")));
        }
        if self.mode != Mode::Stream && self.bidir {
            return Err(AppError::usage(format_args!("--bidir: {problem}")));
        }
        match self.size {
            Some(size) if self.mode == Mode::Http => Err(AppError::flag("--size", size, problem)),
            _ => Ok(()),
        }
    }

    /// The mode as it is written.
    pub fn mode_name(&self) -> &'static str {
        match self.mode {
            Mode::Stream => "stream",
            Mode::Rr => "rr",
            Mode::Crr => "crr",
            Mode::Idle => "idle",
            Mode::Http => "http",
        }
    }
}

/// Flags of `perf iperf3-server`.
#[derive(Debug, Args)]
pub struct Iperf3ServerArgs {
    /// TCP and UDP port
    #[arg(short = 'p', long, default_value_t = 5201, value_parser = whole::<u16>(1..=65_535))]
    pub port: u16,
    /// End after one test
    #[arg(short = '1', long)]
    pub one_off: bool,
    /// Seconds between progress lines
    #[arg(short = 'i', long, value_name = "S", default_value = "1", value_parser = parse_seconds)]
    pub interval: f64,
    /// Whose sockets.
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// Flags of `perf iperf3-client`; their letters are iperf3's.
#[derive(Debug, Args)]
pub struct Iperf3ClientArgs {
    /// Address or name of the server
    #[arg(value_name = "HOST")]
    pub server: String,
    /// TCP and UDP port
    #[arg(short = 'p', long, default_value_t = 5201, value_parser = whole::<u16>(1..=65_535))]
    pub port: u16,
    /// The server sends
    #[arg(short = 'R', long, conflicts_with = "bidir")]
    pub reverse: bool,
    /// Both send
    #[arg(long)]
    pub bidir: bool,
    /// Streams at a time, in each direction
    #[arg(short = 'P', long, value_name = "N", default_value_t = 1, value_parser = whole::<usize>(1..=128))]
    pub parallel: usize,
    /// UDP instead of TCP
    #[arg(short = 'u', long)]
    pub udp: bool,
    /// Bits a second of each stream, as in 100M; 0: no limit [default: 1M for UDP, no limit for TCP]
    #[arg(short = 'b', long, value_name = "RATE", value_parser = parse_rate)]
    pub bitrate: Option<u64>,
    /// For so many seconds
    #[arg(short = 't', long, value_name = "S", default_value = "10", value_parser = whole::<u32>(1..=86_400))]
    pub time: u32,
    /// For so many bytes, as in 100M, instead of a time
    #[arg(short = 'n', long, value_name = "BYTES", value_parser = parse_bytes, conflicts_with = "time")]
    pub bytes: Option<u64>,
    /// Bytes written at once, or of a datagram [default: 128K for TCP, 1448 for UDP over IPv4]
    #[arg(short = 'l', long, value_name = "BYTES", value_parser = parse_size)]
    pub length: Option<u32>,
    /// Seconds at the beginning that do not count
    #[arg(short = 'O', long, value_name = "S", default_value = "0", value_parser = whole::<u32>(0..=60))]
    pub omit: u32,
    /// Seconds between progress lines
    #[arg(short = 'i', long, value_name = "S", default_value = "1", value_parser = parse_seconds)]
    pub interval: f64,
    /// Small segments are sent at once
    #[arg(short = 'N', long)]
    pub no_delay: bool,
    /// How connections behave.
    #[command(flatten)]
    pub tcp: TcpFlags,
    /// Whose sockets.
    #[command(flatten)]
    pub place: PlaceArgs,
}

impl Iperf3ClientArgs {
    /// Checks what does not go together.
    ///
    /// # Errors
    /// A length that is none of a datagram. One line.
    pub fn check(&self) -> Result<(), AppError> {
        let lengths = DATAGRAM_BYTES_MIN..=DATAGRAM_BYTES_MAX;
        match self.length {
            Some(length) if self.udp && !lengths.contains(&length) => {
                let problem =
                    format_args!("{DATAGRAM_BYTES_MIN} to {DATAGRAM_BYTES_MAX} is accepted with --udp");
                Err(AppError::flag("--length", length, problem))
            }
            _ => Ok(()),
        }
    }
}

/// A number with an optional unit: K, M, G, T of `step` each.
fn scaled(text: &str, step: u64) -> Option<u64> {
    let power = match text.bytes().last()?.to_ascii_uppercase() {
        b'K' => 1,
        b'M' => 2,
        b'G' => 3,
        b'T' => 4,
        _ => 0,
    };
    let digits = if power > 0 { &text[..text.len() - 1] } else { text };
    let unit = step.pow(power);
    match digits.parse::<u64>() {
        Ok(number) => number.checked_mul(unit),
        Err(_) => {
            let number: f64 = digits.parse().ok()?;
            let value = number * unit as f64;
            // Beyond, a float counts in steps of more than one.
            (0.0..=9e15).contains(&value).then_some(value as u64)
        }
    }
}

fn parse_size(text: &str) -> Result<u32, &'static str> {
    let size = scaled(text, 1024).filter(|size| (1..=u64::from(SIZE_BYTES_MAX)).contains(size));
    size.map(|size| size as u32).ok_or("1 to 16M is accepted, as in 64 or 128K")
}

fn parse_buffer(text: &str) -> Result<u32, &'static str> {
    let size = scaled(text, 1024).filter(|size| (1024..=1 << 30).contains(size));
    size.map(|size| size as u32).ok_or("1K to 1G is accepted, as in 512K")
}

fn parse_bytes(text: &str) -> Result<u64, &'static str> {
    scaled(text, 1024).filter(|bytes| *bytes > 0).ok_or("1 or more is accepted, as in 1000000 or 100M")
}

fn parse_rate(text: &str) -> Result<u64, &'static str> {
    scaled(text, 1000).ok_or("bits a second are accepted, as in 100M or 2.5G")
}

fn parse_path(text: &str) -> Result<String, &'static str> {
    let is_path =
        text.starts_with('/') && text.len() <= 4_096 && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_path { Ok(text.to_owned()) } else { Err("a path is accepted, percent-encoded, as in /index.html") }
}

/// A header with a number of 64 bits fits into it.
pub const DATAGRAM_BYTES_MIN: u32 = 16;
/// The largest datagram of IPv4.
pub const DATAGRAM_BYTES_MAX: u32 = 65_507;
/// What is written at once, at most.
pub const SIZE_BYTES_MAX: u32 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers() {
        let cases = [
            ("0", 1024, Some(0)),
            ("128K", 1024, Some(131_072)),
            ("2.5g", 1000, Some(2_500_000_000)),
            ("1M", 1000, Some(1_000_000)),
            ("18446744073709551615", 1000, Some(u64::MAX)),
            ("18446744073709551615K", 1000, None),
            ("", 1000, None),
            ("K", 1000, None),
            ("-1", 1000, None),
            ("NaN", 1000, None),
            ("infK", 1000, None),
            ("é", 1000, None),
        ];
        for (text, step, expected) in cases {
            assert_eq!(scaled(text, step), expected, "{text}");
        }
    }

    #[test]
    fn bad_input_is_one_line() {
        let parse = |line: &str| {
            let words = ["wirestack", "perf"].into_iter().chain(line.split_whitespace());
            crate::cli::parse(words.map(Into::into)).and_then(|cli| match cli.command {
                crate::cli::Command::Perf(args) => crate::perf::run(&args),
                other => panic!("{other:?}"),
            })
        };
        let cases = [
            ("", "server, client, iperf3-server or iperf3-client"),
            ("client", "HOST"),
            ("client h", "--nic and --address are missing"),
            ("client h --nic packet:x", "--address is missing"),
            ("client h --address 10.0.0.2/24", "--nic"),
            ("client h --backend kernel --nic packet:x --address 10.0.0.2/24", "--nic packet:x"),
            ("client h --backend lwip", "wirestack, kernel or smoltcp"),
            ("client h --mode udp", "stream"),
            ("client h --time 0", "0.001 to"),
            ("client h --parallel 0", "1..=1000000"),
            ("client h --reverse --bidir", "--bidir"),
            ("client h --mode rr --reverse", "--reverse: --mode rr"),
            ("client h --mode http --size 7", "--size 7: --mode http"),
            ("client h --mode http --path x", "as in /index.html"),
            ("server --port 0", "1..=65535"),
            ("iperf3-client h -t 1 -n 5", "--bytes"),
            ("iperf3-client h -P 129", "1..=128"),
            ("iperf3-client h -b fast", "as in 100M"),
            ("iperf3-server -i -1", "0.001 to"),
            ("iperf3-client h -u -l 7", "--length 7"),
            ("iperf3-client h -u -l 64K", "--length 65536"),
        ];
        for (line, expected) in cases {
            let error = parse(line).expect_err(line);
            assert!(error.message.contains(expected), "{line}: {error:?}");
            assert_eq!(error.message.lines().count(), 1, "{line}: {error:?}");
            assert_eq!(error.status, 2, "{line}: {error:?}");
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        assert_eq!([parse_size("16M"), parse_size("1")].map(|size| size.ok()), [Some(16 << 20), Some(1)]);
        for wrong in ["0", "17M", "x"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "index.html", "/a b", "/\r\n"] {
            assert!(parse_path(wrong).is_err(), "{wrong}");
        }
    }
}
