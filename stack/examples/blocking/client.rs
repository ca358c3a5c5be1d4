//! Sends a line and prints the answer: `cargo run --example blocking_client eth0 10.0.0.2/24 10.0.0.1:7 hello`.

use std::error::Error;
use std::io::{self, Write};
use std::net::Shutdown;

use wirestack::blocking::{TcpStream, block_on};
use wirestack::config::parse_cidr;
use wirestack::driver::Launch;
use wirestack::nic::{AfPacket, AfPacketConfig};
use wirestack::shard::ShardConfig;
use wirestack::smoltcp::time::Duration;

fn main() -> Result<(), Box<dyn Error>> {
    run(&std::env::args().skip(1).collect::<Vec<_>>())
}

/// The program, with its arguments.
pub fn run(args: &[String]) -> Result<(), Box<dyn Error>> {
    let [interface, cidr, server, line] = args else {
        return Err("IFNAME, CIDR, HOST:PORT and a LINE are accepted".into());
    };
    let (nic, cidr) = (AfPacket::open(interface, AfPacketConfig::default())?, parse_cidr(cidr)?);
    let config = ShardConfig::new(nic.interface().mac).address(cidr);
    let driver = Launch::new(config).start(vec![nic])?;
    // Our address is probed first: somebody else may have it.
    block_on(driver.stack().wait_for_addresses(&[cidr.address().into()], Duration::from_secs(10)))?;
    wirestack::install(Some(driver.stack().clone()));

    let mut stream = TcpStream::connect(server)?;
    stream.write_all(line.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    io::copy(&mut stream, &mut io::stdout())?;
    drop(stream);
    // What the peer has not acknowledged yet still is.
    driver.shutdown(Duration::from_secs(5));
    Ok(())
}
