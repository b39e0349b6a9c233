//! Where `proxy` may lead: by Kubernetes' rule nowhere that only this machine or its link can go.

use std::net::{IpAddr, SocketAddr};

use super::kubelet::dial_error;
use crate::{
    Error,
    server::{
        addresses::{is_global_unicast, is_within},
        outbound::authority,
    },
    status,
};

/// Networks that may be reached besides those that may be anyway.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reach(Vec<(IpAddr, u8)>);

impl Reach {
    pub(crate) fn new(networks: impl IntoIterator<Item = (IpAddr, u8)>) -> Self {
        Self(networks.into_iter().collect())
    }

    fn allows(&self, ip: IpAddr) -> bool {
        is_global_unicast(ip) || self.0.iter().any(|network| is_within(ip, *network))
    }

    /// The address that a text is, if it may be reached.
    ///
    /// # Errors
    /// 400: it is no address, or none that may be reached.
    pub(super) fn check(&self, text: &str) -> Result<IpAddr, Error> {
        let ip = text.parse().ok().filter(|ip| self.allows(*ip));
        ip.ok_or_else(|| status::bad_request("address not allowed").into())
    }

    /// The addresses of a host, all of which may be reached. They are what is to be dialled: its name could lead elsewhere the
    /// next time.
    ///
    /// # Errors
    /// 400: one may not be reached; 500: it has none.
    pub(super) async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
        let found = tokio::net::lookup_host((host, port)).await;
        let found: Vec<_> = found.map_err(|error| dial_error(&authority(host, port), &error))?.collect();
        if !found.iter().all(|address| self.allows(address.ip())) {
            return Err(status::bad_request("address not allowed").into());
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_named_networks_may_be_special() {
        let (closed, open) = (Reach::default(), Reach::new([([127, 80, 0, 0].into(), 17)]));
        assert!(closed.check("10.0.0.1").is_ok() && closed.check("127.80.1.1").is_err());
        assert_eq!(open.check("127.80.1.1").unwrap(), IpAddr::from([127, 80, 1, 1]));
        for text in ["127.80.128.1", "127.0.0.1", "169.254.169.254", "::1", "::ffff:127.80.1.1", "", "localhost"] {
            let error = open.check(text).unwrap_err().to_string();
            assert!(error.contains("address not allowed"), "{text}: {error}");
        }
        assert_eq!(open.resolve("127.80.1.1", 80).await.unwrap(), ["127.80.1.1:80".parse().unwrap()]);
        assert!(open.resolve("127.0.0.1", 80).await.is_err());
        assert!(closed.resolve("localhost", 80).await.unwrap_err().to_string().contains("address not allowed"));
    }
}
