//! Asks a device at the other end of a serial cable, as an ordinary user:
//! `cargo run --example blocking_serial /dev/ttyUSB0@115200 10.0.2.15/32 10.0.2.2:7 hello`.

use std::error::Error;
use std::io::{self, Write};
use std::net::Shutdown;

use wirestack::EthernetAddress;
use wirestack::blocking::{TcpStream, block_on};
use wirestack::config::parse_cidr;
use wirestack::driver::Launch;
use wirestack::nic::{SerialSpec, wait};
use wirestack::shard::ShardConfig;
use wirestack::smoltcp::time::Duration;
use wirestack::tcp::line::LineProfile;

fn main() -> Result<(), Box<dyn Error>> {
    run(&std::env::args().skip(1).collect::<Vec<_>>())
}

/// The program, with its arguments.
pub fn run(args: &[String]) -> Result<(), Box<dyn Error>> {
    let [line, cidr, server, text] = args else {
        return Err("LINE, CIDR, HOST:PORT and a TEXT are accepted".into());
    };
    let (spec, cidr) = (line.parse::<SerialSpec>()?, parse_cidr(cidr)?);
    let nic = spec.open(wait::now())?;
    // There are no hardware addresses on a line: any will do.
    let mut config = ShardConfig::new(EthernetAddress([2, 0, 0, 0, 0, 1])).address(cidr);
    // What a slow line wants of TCP: few packets at a time, and patience.
    config.tcp.options = LineProfile::new(spec.bytes_per_second(), spec.mtu).options();
    let driver = Launch::new(config).start(vec![nic])?;
    block_on(driver.stack().wait_for_addresses(&[cidr.address().into()], Duration::from_secs(10)))?;
    wirestack::install(Some(driver.stack().clone()));

    let mut stream = TcpStream::connect(server)?;
    stream.write_all(text.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    io::copy(&mut stream, &mut io::stdout())?;
    drop(stream);
    driver.shutdown(Duration::from_secs(5));
    Ok(())
}
