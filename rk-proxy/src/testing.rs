//! The conformance suite for backends (feature `testing`), with real connections.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};

use crate::{
    BackendError, Endpoint, PortKey, Protocol, ProxyBackend, ServiceChange, ServiceKey, ServicePort, Unserved,
};

/// A guarantee that a backend did not keep.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A rule was broken.
    #[error("{0}")]
    Rule(String),
    /// The suite's own servers could not be set up.
    #[error("the suite can't run here: {0}")]
    Setup(#[from] std::io::Error),
    /// The backend failed as a whole.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The backend could not serve what it was told to.
    #[error(transparent)]
    Unserved(#[from] Unserved),
}

/// How the suite gets what it needs.
pub trait Setup {
    /// A new backend that serves nothing yet.
    fn backend(&mut self) -> Arc<dyn ProxyBackend>;

    /// An address that nobody uses, for a service.
    fn service_address(&mut self) -> IpAddr;

    /// An address of this machine, for endpoints.
    fn endpoint_address(&mut self) -> IpAddr;
}

/// Checks the guarantees of [`ProxyBackend`].
///
/// # Errors
/// The first that is not kept.
pub async fn conformance(setup: &mut dyn Setup) -> Result<(), Violation> {
    balances(setup).await?;
    prefers_ready(setup).await?;
    leaves_others_alone(setup).await?;
    keeps_affinity(setup).await?;
    drains(setup).await?;
    forwards_datagrams(setup).await?;
    leaves_nothing_behind(setup).await
}

const PORT: u16 = 8080;

fn check(holds: bool, rule: &str) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation::Rule(rule.to_owned())) }
}

/// A server that greets with its name and then echoes.
async fn server(ip: IpAddr, name: char) -> Result<Endpoint, Violation> {
    let listener = TcpListener::bind((ip, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 256];
                let mut say = stream.write_all(name.to_string().as_bytes()).await;
                while let (Ok(()), Ok(length @ 1..)) = (&say, stream.read(&mut buffer).await) {
                    say = stream.write_all(&buffer[..length]).await;
                }
            });
        }
    });
    Ok(Endpoint { address, ready: true, serving: true, terminating: false, node: None })
}

fn service(name: &str, ip: IpAddr, endpoints: &[&Endpoint]) -> ServicePort {
    ServicePort {
        key: PortKey { service: ServiceKey::new("conformance", name), port: "".into(), protocol: Protocol::Tcp },
        uid: "".into(),
        cluster_ips: vec![ip],
        external_ips: Vec::new(),
        port: PORT,
        node_port: None,
        affinity: None,
        external_local: false,
        internal_local: false,
        endpoints: endpoints.iter().map(|endpoint| (*endpoint).clone()).collect(),
    }
}

async fn set(backend: &dyn ProxyBackend, port: &ServicePort) -> Result<(), Violation> {
    let change = ServiceChange { upserts: vec![Arc::new(port.clone())], removals: Vec::new() };
    match backend.apply(change).await?.into_iter().next() {
        None => Ok(()),
        Some(unserved) => Err(unserved.into()),
    }
}

async fn remove(backend: &dyn ProxyBackend, port: &ServicePort) -> Result<(), Violation> {
    backend.apply(ServiceChange { upserts: Vec::new(), removals: vec![port.key.clone()] }).await?;
    Ok(())
}

/// The name of the server behind a service's address; `None` if it refuses.
async fn who(ip: IpAddr) -> Option<char> {
    let answer = async {
        let mut stream = TcpStream::connect((ip, PORT)).await.ok()?;
        let mut name = [0];
        stream.read_exact(&mut name).await.ok()?;
        Some(char::from(name[0]))
    };
    tokio::time::timeout(Duration::from_secs(5), answer).await.ok().flatten()
}

async fn balances(setup: &mut dyn Setup) -> Result<(), Violation> {
    let (backend, ip) = (setup.backend(), setup.service_address());
    let (a, b) = (server(setup.endpoint_address(), 'a').await?, server(setup.endpoint_address(), 'b').await?);
    set(&*backend, &service("web", ip, &[&a, &b])).await?;
    set(&*backend, &service("web", ip, &[&a, &b])).await?;
    let mut seen = [0, 0];
    for _ in 0..100 {
        match who(ip).await {
            Some('a') => seen[0] += 1,
            Some('b') => seen[1] += 1,
            _ => return Err(Violation::Rule("an upserted port leads to its endpoints".to_owned())),
        }
    }
    check(seen.iter().all(|count| *count >= 25), "connections are spread evenly")?;
    set(&*backend, &service("web", ip, &[&b])).await?;
    check(who(ip).await == Some('b'), "new connections see a change at once")?;
    set(&*backend, &service("web", ip, &[])).await?;
    check(who(ip).await.is_none(), "a port without endpoints refuses")?;
    set(&*backend, &service("web", ip, &[&a])).await?;
    check(who(ip).await == Some('a'), "a port that has endpoints again serves again")?;
    remove(&*backend, &service("web", ip, &[])).await?;
    remove(&*backend, &service("web", ip, &[])).await?;
    check(who(ip).await.is_none(), "a removed port refuses")
}

async fn prefers_ready(setup: &mut dyn Setup) -> Result<(), Violation> {
    let (backend, ip) = (setup.backend(), setup.service_address());
    let (a, b) = (server(setup.endpoint_address(), 'a').await?, server(setup.endpoint_address(), 'b').await?);
    let leaving = Endpoint { ready: false, terminating: true, ..a.clone() };
    let silent = Endpoint { serving: false, ..leaving.clone() };
    set(&*backend, &service("web", ip, &[&leaving, &b])).await?;
    for _ in 0..10 {
        check(who(ip).await == Some('b'), "terminating endpoints get nothing while others are ready")?;
    }
    set(&*backend, &service("web", ip, &[&leaving])).await?;
    check(who(ip).await == Some('a'), "terminating endpoints serve where none is ready")?;
    set(&*backend, &service("web", ip, &[&silent])).await?;
    check(who(ip).await.is_none(), "endpoints that don't serve get nothing")
}

async fn leaves_others_alone(setup: &mut dyn Setup) -> Result<(), Violation> {
    let (backend, one, two) = (setup.backend(), setup.service_address(), setup.service_address());
    let (a, b) = (server(setup.endpoint_address(), 'a').await?, server(setup.endpoint_address(), 'b').await?);
    set(&*backend, &service("one", one, &[&a])).await?;
    set(&*backend, &service("two", two, &[&b])).await?;
    remove(&*backend, &service("two", two, &[])).await?;
    check(who(one).await == Some('a') && who(two).await.is_none(), "other ports are not disturbed")
}

async fn keeps_affinity(setup: &mut dyn Setup) -> Result<(), Violation> {
    let (backend, ip) = (setup.backend(), setup.service_address());
    let (a, b) = (server(setup.endpoint_address(), 'a').await?, server(setup.endpoint_address(), 'b').await?);
    let port = ServicePort { affinity: Some(Duration::from_secs(60)), ..service("web", ip, &[&a, &b]) };
    set(&*backend, &port).await?;
    let first = who(ip).await;
    for _ in 0..10 {
        check(first.is_some() && who(ip).await == first, "with affinity a client stays with its endpoint")?;
    }
    Ok(())
}

async fn drains(setup: &mut dyn Setup) -> Result<(), Violation> {
    let (backend, ip) = (setup.backend(), setup.service_address());
    let a = server(setup.endpoint_address(), 'a').await?;
    let port = service("web", ip, &[&a]);
    set(&*backend, &port).await?;
    let mut stream = TcpStream::connect((ip, PORT)).await?;
    let mut buffer = [0; 5];
    stream.read_exact(&mut buffer[..1]).await?;
    remove(&*backend, &port).await?;
    stream.write_all(b"hello").await?;
    let echoed = tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut buffer)).await;
    check(matches!(echoed, Ok(Ok(_))) && &buffer == b"hello", "an open connection outlives the removal of its port")
}

async fn forwards_datagrams(setup: &mut dyn Setup) -> Result<(), Violation> {
    let (backend, ip) = (setup.backend(), setup.service_address());
    let echo = UdpSocket::bind((setup.endpoint_address(), 0)).await?;
    let endpoint = Endpoint { address: echo.local_addr()?, ready: true, serving: true, terminating: false, node: None };
    tokio::spawn(async move {
        let mut buffer = [0; 256];
        while let Ok((length, from)) = echo.recv_from(&mut buffer).await {
            if echo.send_to(&buffer[..length], from).await.is_err() {
                return;
            }
        }
    });
    let mut port = service("dns", ip, &[&endpoint]);
    port.key.protocol = Protocol::Udp;
    set(&*backend, &port).await?;
    let client = UdpSocket::bind((setup.endpoint_address(), 0)).await?;
    client.connect(SocketAddr::new(ip, PORT)).await?;
    client.send(b"hello").await?;
    let mut buffer = [0; 16];
    let answer = tokio::time::timeout(Duration::from_secs(5), client.recv(&mut buffer)).await;
    check(matches!(answer, Ok(Ok(5))) && buffer.starts_with(b"hello"), "datagrams come back from the address asked")
}

async fn leaves_nothing_behind(setup: &mut dyn Setup) -> Result<(), Violation> {
    let (backend, ip) = (setup.backend(), setup.service_address());
    let a = server(setup.endpoint_address(), 'a').await?;
    set(&*backend, &service("web", ip, &[&a])).await?;
    check(who(ip).await == Some('a'), "an upserted port leads to its endpoint")?;
    drop(backend);
    for _ in 0..500 {
        if who(ip).await.is_none() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(Violation::Rule("a dropped backend leaves nothing behind".to_owned()))
}
