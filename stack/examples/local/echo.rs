//! Echo (RFC 862) over TCP and UDP, with tasks on the thread of their shard: `cargo run --example local_echo eth0 10.0.0.2/24`.

use std::error::Error;
use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wirestack::config::parse_cidr;
use wirestack::local::{Runtime, TcpStream, UdpSocket};
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
    let mut runtime = Runtime::new(nic, config)?;

    // Our address is probed first: somebody else may have it.
    let stack = runtime.stack().clone();
    runtime.block_on(stack.wait_for_addresses(&[cidr.address().into()], Duration::from_secs(10)))??;
    let listener = runtime.stack().listen("[::]:7".parse()?)?;
    let socket = runtime.stack().udp_bind("[::]:7".parse()?)?;
    println!("ready echo");
    let spawner = runtime.spawner().clone();
    spawner.spawn(async move { drop(datagrams(socket).await) });
    let served: io::Result<()> = runtime.block_on(async {
        loop {
            let (stream, _) = listener.accept().await?;
            spawner.spawn(async move { drop(echo(stream).await) });
        }
    })?;
    Ok(served?)
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut room = [0; 16_384];
    loop {
        match stream.read(&mut room).await? {
            0 => return stream.shutdown().await,
            len => stream.write_all(&room[..len]).await?,
        }
    }
}

async fn datagrams(socket: UdpSocket) -> io::Result<()> {
    let mut room = vec![0; 65_536];
    loop {
        let (len, from) = socket.recv_from(&mut room).await?;
        socket.send_to(&room[..len], from).await?;
    }
}
