//! A page for whoever asks, by hyper: `cargo run --example tokio_http eth0 10.0.0.2/24`.

use std::convert::Infallible;
use std::error::Error;
use std::io;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use wirestack::config::parse_cidr;
use wirestack::driver::Launch;
use wirestack::nic::{AfPacket, AfPacketConfig};
use wirestack::shard::ShardConfig;
use wirestack::smoltcp::time::Duration;
use wirestack::tokio::TcpListener;

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
    let listener = TcpListener::bind("[::]:80").await?;
    println!("ready http");
    loop {
        let (stream, _) = listener.accept().await?;
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(page));
        tokio::spawn(connection);
    }
}

async fn page(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = format!("{} {}, over wirestack\n", request.method(), request.uri().path());
    Ok(Response::new(Full::new(text.into())))
}
