//! Whether a SuperLink's Control interface, which has no authentication, can be reached by others.

use std::net::{IpAddr, Ipv6Addr, ToSocketAddrs as _};

use plugin_api::Level;

use crate::terminal::console::Console;

/// Warns if the server of a run, which needs Control, has reached it at an address of the public network: then others
/// reach it as well.
pub(crate) fn warn_if_public(url: &str, console: &Console) {
    if let Some(address) = public_address(url) {
        let line = format!(
            "the SuperLink can be controlled at the public address {address}: whoever reaches it can start and stop runs; let \
             only /v1/fleet/ be reached from outside, by a proxy"
        );
        console.log(Level::Warn, &line);
    }
}

/// The first public address of a URL's host. None if it has none, or cannot be resolved: then nothing was reached.
fn public_address(url: &str) -> Option<IpAddr> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let port = if scheme == "https" { 443 } else { 80 };
    let known = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let resolved = if known { authority.to_socket_addrs() } else { format!("{authority}:{port}").to_socket_addrs() };
    resolved.ok()?.map(|address| address.ip()).find(is_public)
}

fn is_public(address: &IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            // 100.64.0.0/10 is between providers and their customers (RFC 6598).
            let shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            !(v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_unspecified() || shared)
        }
        IpAddr::V6(v6) => {
            let local = v6.is_unique_local() || v6.is_unicast_link_local();
            !(v6.is_loopback() || v6 == Ipv6Addr::UNSPECIFIED || local)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_strangers_can_reach_are_public() {
        for url in [
            "http://127.0.0.1:8000",
            "http://localhost:8000/x",
            "http://[::1]:8000",
            "http://10.1.2.3",
            "https://192.168.0.7",
            "http://172.20.0.2:8000",
            "http://169.254.1.1",
            "http://100.64.0.1",
            "http://[fd00::1]:8000",
            "http://[fe80::1]",
            "http://[::ffff:10.0.0.1]:8000",
            "http://no.such.host.invalid",
            "no address",
        ] {
            assert_eq!(public_address(url), None, "{url}");
        }
        for url in
            ["http://203.0.113.7:8000", "https://203.0.113.7/", "http://[2001:db8::1]:8000", "http://[2001:db8::1]"]
        {
            assert!(public_address(url).is_some(), "{url}");
        }
    }
}
