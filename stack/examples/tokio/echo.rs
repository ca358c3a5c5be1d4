//! Echo (RFC 862) over TCP and UDP, a task for each connection: `cargo run --example tokio_echo eth0 10.0.0.2/24`.

use std::error::Error;
use std::io;

use wirestack::config::parse_cidr;
use wirestack::driver::Launch;
use wirestack::nic::{AfPacket, AfPacketConfig};
use wirestack::shard::ShardConfig;
use wirestack::smoltcp::time::Duration;
use wirestack::tokio::{TcpListener, UdpSocket};

fn main() -> Result<(), Box<dyn Error>> {
    run(&std::env::args().skip(1).collect::<Vec<_>>())
}

/// The program, with its arguments.
pub fn run(args: &[String]) -> Result<(), Box<dyn Error>> {
    let [interface, cidr] = args else { return Err("IFNAME and CIDR are accepted".into()) };
    let (nic, cidr) = (AfPacket::open(interface, AfPacketConfig::default())?, parse_cidr(cidr)?);
    let config = ShardConfig::new(nic.interface().mac).address(cidr);
    let driver = Launch::new(config).start(vec![nic])?;
    wirestack::install(Some(driver.stack().clone()));
    tokio::runtime::Runtime::new()?.block_on(async {
        // Our address is probed first: somebody else may have it.
        driver.stack().wait_for_addresses(&[cidr.address().into()], Duration::from_secs(10)).await?;
        Ok(serve().await?)
    })
}

async fn serve() -> io::Result<()> {
    let (listener, socket) = (TcpListener::bind("[::]:7").await?, UdpSocket::bind("[::]:7").await?);
    println!("ready echo");
    tokio::spawn(datagrams(socket));
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let (mut reader, mut writer) = stream.into_split();
            tokio::io::copy(&mut reader, &mut writer).await
        });
    }
}

async fn datagrams(socket: UdpSocket) -> io::Result<()> {
    let mut room = vec![0; 65_536];
    loop {
        let (len, from) = socket.recv_from(&mut room).await?;
        socket.send_to(&room[..len], from).await?;
    }
}
