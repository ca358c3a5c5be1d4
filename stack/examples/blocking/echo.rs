//! Echo (RFC 862) over TCP and UDP, a thread for each connection: `cargo run --example blocking_echo eth0 10.0.0.2/24`.
//! But for the first lines of `run`, this is a program for `std::net`.

use std::error::Error;
use std::io;
use std::thread;

use wirestack::blocking::{TcpListener, UdpSocket, block_on};
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
    let [interface, cidr] = args else { return Err("IFNAME and CIDR are accepted".into()) };
    let (nic, cidr) = (AfPacket::open(interface, AfPacketConfig::default())?, parse_cidr(cidr)?);
    let config = ShardConfig::new(nic.interface().mac).address(cidr);
    let driver = Launch::new(config).start(vec![nic])?;
    // Our address is probed first: somebody else may have it.
    block_on(driver.stack().wait_for_addresses(&[cidr.address().into()], Duration::from_secs(10)))?;
    wirestack::install(Some(driver.stack().clone()));

    let (listener, socket) = (TcpListener::bind("[::]:7")?, UdpSocket::bind("[::]:7")?);
    println!("ready echo");
    thread::spawn(move || datagrams(&socket));
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || io::copy(&mut &stream, &mut &stream));
    }
    Ok(())
}

fn datagrams(socket: &UdpSocket) -> io::Result<()> {
    let mut room = [0; 65_536];
    loop {
        let (len, from) = socket.recv_from(&mut room)?;
        socket.send_to(&room[..len], from)?;
    }
}
