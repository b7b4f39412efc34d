//! The client's address: of the connection, or, if a proxy that was named is at its other end, the one that the proxy states.

use std::net::IpAddr;
use std::str::FromStr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName};
use axum::middleware::Next;
use axum::response::Response;
use ipnet::IpNet;

use crate::app::Shared;
use crate::network::Peer;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Proxies that a request may have passed; what lies before them is not believed.
const HOPS: usize = 16;

/// Address of a proxy, or of a network of them, whose `X-Forwarded-For` is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyNetwork(IpNet);

impl FromStr for ProxyNetwork {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let network = network.map_err(|_| {
            format!("{text:?} is neither an address nor a network: write 10.0.0.7, 10.0.0.0/8 or fd00::/8")
        });
        network.map(Self)
    }
}

/// The client of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client(pub(crate) IpAddr);

/// Finds out the client of a request and puts it among its extensions.
pub(crate) async fn find_client(State(app): State<Shared>, mut request: Request, next: Next) -> Response {
    // Requests without a connection are those of tests.
    let peer = request.extensions().get::<Peer>().map_or(IpAddr::from([127, 0, 0, 1]), |peer| peer.0.ip());
    let client = client(peer, request.headers(), &app.config.trusted_proxies);
    request.extensions_mut().insert(Client(client));
    next.run(request).await
}

/// The nearest address that is no trusted proxy's, from the connection backwards. What stands before it in the header was
/// written by an untrusted client, and is ignored.
fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[ProxyNetwork]) -> IpAddr {
    let is_proxy = |ip: IpAddr| trusted.iter().any(|ProxyNetwork(network)| network.contains(&ip));
    let mut nearest = peer.to_canonical();
    if !is_proxy(nearest) {
        return nearest;
    }
    let lines = headers.get_all(FORWARDED_FOR).into_iter().rev();
    let told = lines.flat_map(|line| line.to_str().unwrap_or("?").rsplit(',')).take(HOPS);
    for told in told {
        let Some(ip) = address(told.trim()) else { break };
        nearest = ip;
        if !is_proxy(nearest) {
            break;
        }
    }
    nearest
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    let ip = text.trim_matches(['[', ']']).parse().ok().or_else(with_port)?;
    Some(IpAddr::to_canonical(&ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        forwarded.iter().for_each(|line| {
            headers.append(FORWARDED_FOR, line.parse().unwrap());
        });
        let trusted: Vec<ProxyNetwork> = trusted.iter().map(|text| text.parse().unwrap()).collect();
        client(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn only_named_proxies_are_believed() {
        assert_eq!(of("1.2.3.4", &["9.9.9.9"], &[]), "1.2.3.4");
        assert_eq!(of("1.2.3.4", &["9.9.9.9"], &["10.0.0.0/8"]), "1.2.3.4");
        assert_eq!(of("10.0.0.1", &["9.9.9.9"], &["10.0.0.0/8"]), "9.9.9.9");
        assert_eq!(of("::ffff:10.0.0.1", &["9.9.9.9"], &["10.0.0.1"]), "9.9.9.9");
        // What the client wrote itself stands further left.
        assert_eq!(of("10.0.0.1", &["6.6.6.6, 9.9.9.9"], &["10.0.0.0/8"]), "9.9.9.9");
        assert_eq!(of("10.0.0.1", &["6.6.6.6", "9.9.9.9, 10.0.0.2"], &["10.0.0.0/8"]), "9.9.9.9");
        assert_eq!(of("10.0.0.1", &["nonsense"], &["10.0.0.0/8"]), "10.0.0.1");
        assert_eq!(of("10.0.0.1", &["[2001:db8::1]:443"], &["10.0.0.0/8"]), "2001:db8::1");
        assert_eq!(of("10.0.0.1", &["9.9.9.9:1234"], &["10.0.0.0/8"]), "9.9.9.9");
        assert_eq!(of("10.0.0.1", &[], &["10.0.0.0/8"]), "10.0.0.1");
        assert!("proxy.example".parse::<ProxyNetwork>().is_err());
    }
}
