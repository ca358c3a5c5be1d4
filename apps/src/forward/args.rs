//! Flags of `forward`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use clap::Args;

use crate::cli::{HostArgs, TcpArgs, parse_gateway};
use crate::host::RunArgs;

/// Flags of `forward`.
#[derive(Debug, Args)]
pub struct ForwardArgs {
    /// Listen on the kernel's side, on BIND and PORT, and connect to HOST:PORT through the stack; repeatable. BIND is
    /// 127.0.0.1 if it is left out; an address of IPv6 is in brackets
    #[arg(short = 'L', value_name = "[BIND:]PORT:HOST:PORT", required_unless_present = "remote")]
    pub local: Vec<Forward>,
    /// Listen on the stack's side, on BIND and PORT, and connect to HOST:PORT by the kernel; repeatable. BIND is every
    /// address of the stack if it is left out
    #[arg(short = 'R', value_name = "[BIND:]PORT:HOST:PORT", id = "remote")]
    pub remote: Vec<Forward>,
    /// Name server for HOST of -L; repeatable [default: what a lease or a router names, or /etc/resolv.conf]
    #[arg(long = "dns", value_name = "ADDR", value_parser = parse_gateway)]
    pub dns: Vec<IpAddr>,
    /// Manners of TCP.
    #[command(flatten)]
    pub tcp: TcpArgs,
    /// On which threads.
    #[command(flatten)]
    pub run: RunArgs,
    /// Where and who.
    #[command(flatten)]
    pub host: HostArgs,
}

/// Where to listen, and where to connect to, as `ssh -L` writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// `None`: what is usual on that side.
    pub bind: Option<IpAddr>,
    /// Where it is listened.
    pub port: u16,
    /// Name or address.
    pub host: String,
    /// Port there.
    pub host_port: u16,
}

impl Forward {
    /// Where the kernel listens, if nothing is said: nobody else's business.
    pub fn kernel_bind(&self) -> IpAddr {
        self.bind.unwrap_or(Ipv4Addr::LOCALHOST.into())
    }
}

impl FromStr for Forward {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let accepted = "[BIND:]PORT:HOST:PORT is accepted, as in 8080:10.0.0.1:80 or [::1]:8080:[fd00::1]:80";
        let mut fields = split(text).ok_or(accepted)?;
        let port = |text: &str| text.parse().ok().filter(|port| *port > 0).ok_or(accepted);
        let host_port = port(&fields.pop().ok_or(accepted)?)?;
        let host = fields.pop().filter(|host| !host.is_empty()).ok_or(accepted)?;
        let listening = port(&fields.pop().ok_or(accepted)?)?;
        let bind = fields.pop().map(|bind| bind.parse().map_err(|_| accepted)).transpose()?;
        if fields.is_empty() { Ok(Self { bind, port: listening, host, host_port }) } else { Err(accepted) }
    }
}

/// What is between colons, but for those in brackets, which are taken off.
fn split(text: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut is_inside = false;
    for letter in text.chars() {
        match letter {
            '[' if !is_inside && fields.last()?.is_empty() => is_inside = true,
            ']' if is_inside => is_inside = false,
            ':' if !is_inside => fields.push(String::new()),
            '[' | ']' => return None,
            letter => fields.last_mut()?.push(letter),
        }
    }
    (!is_inside).then_some(fields)
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bracketed = |text: &str| if text.contains(':') { format!("[{text}]") } else { text.to_owned() };
        if let Some(bind) = self.bind {
            write!(f, "{}:", bracketed(&bind.to_string()))?;
        }
        write!(f, "{}:{}:{}", self.port, bracketed(&self.host), self.host_port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_are_read_as_they_are_written() {
        for text in ["8080:10.0.0.1:80", "127.0.0.1:8080:example.org:80", "[::1]:1:[fd00::1]:65535"] {
            assert_eq!(text.parse::<Forward>().expect("right").to_string(), text);
        }
        let wrong =
            ["", "80", "80:host", "0:host:80", "80:host:0", "80::80", "x:80:host:80", "80:fd00::1:80"];
        let more =
            ["1:2:3:4:5", "[::1:80:host:80", "80:[host:80", "80:ho[st]:80", "65536:host:80", "80:host:http"];
        for text in wrong.into_iter().chain(more) {
            let error = text.parse::<Forward>().expect_err(text);
            assert!(error.contains("[BIND:]PORT:HOST:PORT"), "{error}");
        }
    }
}
