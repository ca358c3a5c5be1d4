//! What the sockets of every backend are to do, as a server and its client.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

use smoltcp::time::Duration;
use smoltcp::wire::EthernetAddress;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wirestack::IpCidr;
use wirestack::config::{HostConfig, parse_cidr};
use wirestack::nic::loopback::{Loopback, LoopbackConfig};

use super::{Options, Sockets};

/// Echo at one port, both protocols; each connection to its end.
async fn serve<S: Sockets>(sockets: S, address: IpAddr) {
    let local = SocketAddr::new(address, PORT);
    let options = Options { nodelay: true, ..Options::default() };
    let listener = sockets.listen(local, &options).await.expect("free");
    assert_eq!(sockets.listening(&listener).expect("it listens"), [local]);
    let taken = sockets.listen(local, &options).await.err().map(|error| error.kind());
    assert_eq!(taken, Some(ErrorKind::AddrInUse));
    let udp = sockets.udp_bind(local, &Options::default()).await.expect("free");
    let answering = sockets.clone();
    sockets.spawn(async move {
        let mut buffer = vec![0; 2_000];
        while let Ok((len, from)) = answering.udp_recv_from(&udp, &mut buffer).await {
            answering.udp_send_to(&udp, &buffer[..len], from).await.expect("room");
        }
    });
    // Until the wire is gone.
    while let Ok((mut stream, peer)) = sockets.accept(&listener).await {
        assert_eq!(peer.ip().is_ipv4(), address.is_ipv4());
        sockets.spawn(async move {
            let mut buffer = vec![0; 10_000];
            while let Ok(len @ 1..) = stream.read(&mut buffer).await {
                stream.write_all(&buffer[..len]).await.expect("open");
            }
        });
    }
}

async fn ask<S: Sockets>(sockets: S, address: IpAddr) {
    let remote = SocketAddr::new(address, PORT);
    assert_eq!(sockets.resolve(&address.to_string(), PORT).await.expect("an address"), [remote]);
    let options = Options { nodelay: true, congestion: Some("reno".to_owned()), ..Options::default() };
    let data: Vec<u8> = (0..200_000_u32).map(|number| (number % 251) as u8).collect();
    for _ in 0..3 {
        let stream = sockets.connect(remote, &options).await.expect("it listens");
        sockets.set_options(&stream, &options).expect("open");
        assert_ne!(sockets.local_address(&stream).expect("open").port(), 0);
        let (mut reader, mut writer) = tokio::io::split(stream);
        let sent = data.clone();
        sockets.spawn(async move {
            writer.write_all(&sent).await.expect("open");
            writer.shutdown().await.expect("open");
        });
        let mut back = Vec::new();
        reader.read_to_end(&mut back).await.expect("to its end");
        assert!(back == data, "{} bytes", back.len());
    }
    let nobody = sockets.connect(SocketAddr::new(address, PORT + 1), &options).await;
    assert_eq!(nobody.err().map(|error| error.kind()), Some(ErrorKind::ConnectionRefused));
    let odd = Options { congestion: Some("odd".to_owned()), ..Options::default() };
    let refused = sockets.connect(remote, &odd).await.err().map(|error| error.kind());
    assert_eq!(refused, Some(ErrorKind::InvalidInput));
    let any = SocketAddr::new([0, 0, 0, 0].into(), 0);
    let udp = sockets.udp_bind(any, &Options::default()).await.expect("free");
    sockets.udp_connect(&udp, remote).await.expect("a way");
    assert_eq!(sockets.udp_send(&udp, b"datagram").await.expect("room"), 8);
    let mut buffer = [0; 99];
    let len = sockets.udp_recv(&udp, &mut buffer).await.expect("it comes back");
    assert_eq!(&buffer[..len], b"datagram");
    let until = sockets.now() + Duration::from_millis(2);
    sockets.sleep_until(until).await;
    assert!(sockets.now() >= until);
}

fn mac(number: u8) -> EthernetAddress {
    EthernetAddress([2, 0, 0, 0, 0, number])
}

fn cidr(number: u8) -> IpCidr {
    parse_cidr(&format!("10.0.0.{number}/24")).expect("an address")
}

/// A device and a configuration of each end.
fn ends() -> [(Loopback<'static>, HostConfig<'static>); 2] {
    let (left, right) = Loopback::pair(&LoopbackConfig::default()).expect("a wire");
    [(left, 1), (right, 2)].map(|(nic, number)| {
        let config = HostConfig { seed: number.into(), ..HostConfig::new(mac(number)).address(cidr(number)) };
        (nic, config)
    })
}

/// Runs the client, with the server at the other end in another thread until the client has done.
fn exchange<F: Fn(Loopback<'static>, HostConfig<'static>, bool) + Copy + Send + 'static>(run: F) {
    let [(client_nic, client), (server_nic, server)] = ends();
    let thread = std::thread::spawn(move || run(server_nic, server, true));
    run(client_nic, client, false);
    // The client's end of the wire is gone, and with it the server ends.
    thread.join().expect("no panic");
}

#[test]
fn of_smoltcp() {
    exchange(|nic, config, serves| {
        super::smoltcp::on(nic, &config, async |sockets| match serves {
            true => serve(sockets, [10, 0, 0, 2].into()).await,
            false => ask(sockets, [10, 0, 0, 2].into()).await,
        });
    });
}

#[test]
fn of_the_stack() {
    exchange(|nic, config, serves| {
        super::wirestack::on(nic, &config, async |sockets| match serves {
            true => serve(sockets, [10, 0, 0, 2].into()).await,
            false => ask(sockets, [10, 0, 0, 2].into()).await,
        });
    });
}

const PORT: u16 = 5_201;
