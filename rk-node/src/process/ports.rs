//! Host ports: TCP ports of the node's address that lead to a port of a pod.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

use crate::runtime::{RuntimeError, types::PortMapping};

/// The open host ports of a sandbox; dropping them closes all, with their connections.
pub(super) type HostPorts = Vec<AbortOnDropHandle<()>>;

/// Opens the host ports of a pod.
///
/// # Errors
/// A port is taken, or may not be opened.
pub(super) async fn open(mappings: &[PortMapping], node: IpAddr, pod: IpAddr) -> Result<HostPorts, RuntimeError> {
    let mut open = HostPorts::new();
    for mapping in mappings {
        if mapping.protocol != "TCP" {
            tracing::warn!(port = mapping.host_port, mapping.protocol, "only TCP host ports are forwarded");
            continue;
        }
        let ip = mapping.host_ip.parse::<IpAddr>().ok().filter(|ip| !ip.is_unspecified()).unwrap_or(node);
        let address = SocketAddr::new(ip, mapping.host_port);
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| RuntimeError::io(format!("host port {address}"), &error))?;
        let to = SocketAddr::new(pod, mapping.container_port);
        open.push(AbortOnDropHandle::new(tokio::spawn(forward(listener, to))));
    }
    Ok(open)
}

async fn forward(listener: TcpListener, to: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    connections.spawn(connect(client, to));
                }
                Err(error) => {
                    // Out of descriptors, mostly: a pause lets some come free.
                    tracing::warn!(%to, %error, "host port: accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

async fn connect(mut client: TcpStream, to: SocketAddr) {
    let forwarded: io::Result<_> = async {
        let mut pod = TcpStream::connect(to).await?;
        copy_bidirectional(&mut client, &mut pod).await
    }
    .await;
    if let Err(error) = forwarded {
        tracing::debug!(%to, %error, "host port");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_host_port_leads_to_the_pod_until_it_is_closed() {
        let pod = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let free = TcpListener::bind("127.99.5.1:0").await.unwrap().local_addr().unwrap();
        let mapping = PortMapping {
            protocol: "TCP".to_owned(),
            container_port: pod.local_addr().unwrap().port(),
            host_port: free.port(),
            host_ip: String::new(),
        };
        let ports = open(std::slice::from_ref(&mapping), free.ip(), "127.0.0.1".parse().unwrap()).await.unwrap();
        assert!(open(&[mapping], free.ip(), "127.0.0.1".parse().unwrap()).await.is_err(), "it is taken");
        let mut client = TcpStream::connect(free).await.unwrap();
        client.write_all(b"hi").await.unwrap();
        let (mut inside, _) = pod.accept().await.unwrap();
        let mut got = [0; 2];
        inside.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"hi");
        drop(ports);
        let closed = async { while TcpStream::connect(free).await.is_ok() {} };
        tokio::time::timeout(Duration::from_secs(10), closed).await.unwrap();
    }
}
