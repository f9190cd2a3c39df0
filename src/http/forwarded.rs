//! Where a request comes from, behind proxies: `X-Forwarded-For`, and `Forwarded` (RFC 7239).
//!
//! Anyone may write these headers, so they count only as far as a trusted proxy vouches for them. Each proxy appends the
//! address it was called from; read from the right, the first that is not trusted is the last one that a trusted proxy has
//! seen itself, and what stands before it is that one's own claim. An entry that is no address ends the reading: the proxy
//! that wrote it counts.
//!
//! A proxy writes one of the two headers and passes the other on, as its client sent it. Which one it writes is not
//! known here; so where both are there they must say the same, or the proxy counts.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use axum::http::{HeaderMap, HeaderName, header};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// In `--trusted-proxies`: whoever comes by the hub's Unix socket.
const UNIX: &str = "unix";

/// The proxies whose word counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Vec<Network>,
    unix: bool,
}

/// An address, or all that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    first: IpAddr,
    bits: u8,
}

impl TrustedProxies {
    /// Reads addresses, networks such as `10.0.0.0/8`, and `unix`; or says what is wrong.
    pub fn new(texts: &[String]) -> Result<TrustedProxies, String> {
        let mut proxies = TrustedProxies::default();
        for text in texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
            match text.parse() {
                _ if text == UNIX => proxies.unix = true,
                Ok(network) => proxies.networks.push(network),
                Err(why) => return Err(format!("--trusted-proxies {text}: {why}")),
            }
        }
        Ok(proxies)
    }

    /// The address from which a request with these headers came to the first trusted proxy, or to the hub.
    pub fn client(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Option<IpAddr> {
        let peer = peer.map(|peer| peer.to_canonical());
        if !self.trusts(peer) {
            return peer;
        }
        let values = |name: &HeaderName| {
            let lines: Vec<_> = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or("?")).collect();
            (!lines.is_empty()).then(|| lines.join(","))
        };
        let x = values(&X_FORWARDED_FOR).map(|list| self.walk(peer, list.rsplit(',').map(address)));
        let standard = values(&header::FORWARDED).map(|list| self.walk(peer, said_for(&list).into_iter().rev()));
        match (x, standard) {
            (Some(one), Some(other)) if one != other => peer,
            (one, other) => one.or(other).unwrap_or(peer),
        }
    }

    fn trusts(&self, peer: Option<IpAddr>) -> bool {
        match peer {
            Some(address) => self.networks.iter().any(|network| network.has(address)),
            None => self.unix,
        }
    }

    /// The first of these that is not trusted, or else the last; `peer` where there is none.
    fn walk(&self, peer: Option<IpAddr>, addresses: impl Iterator<Item = Option<IpAddr>>) -> Option<IpAddr> {
        let mut last = peer;
        for address in addresses {
            let Some(address) = address else { break };
            last = Some(address);
            if !self.trusts(last) {
                break;
            }
        }
        last
    }
}

/// `ADDRESS`, `ADDRESS:PORT` or `[ADDRESS]`.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let with_port = || text.parse::<SocketAddr>().ok().map(|with_port| with_port.ip());
    text.parse().ok().or_else(bracketed).or_else(with_port).map(|address| address.to_canonical())
}

/// What each element of a `Forwarded` says after `for=`. Nothing in quotes separates.
fn said_for(list: &str) -> Vec<Option<IpAddr>> {
    let split = |text: &str, by: char| -> Vec<String> {
        let (mut quoted, mut escaped) = (false, false);
        let separates = |c: char| {
            let was_escaped = escaped;
            escaped = quoted && c == '\\' && !was_escaped;
            quoted ^= c == '"' && !was_escaped;
            c == by && !quoted
        };
        text.split(separates).map(str::to_owned).collect()
    };
    let value = |pair: String| {
        let (name, value) = pair.split_once('=')?;
        let value = value.trim();
        let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        name.trim().eq_ignore_ascii_case("for").then(|| address(bare))
    };
    let of_element = |element: String| split(&element, ';').into_iter().find_map(value).flatten();
    split(list, ',').into_iter().map(of_element).collect()
}

impl Network {
    fn has(&self, address: IpAddr) -> bool {
        self.first.is_ipv4() == address.is_ipv4() && number(address) >> shift(address, self.bits) == self.prefix()
    }

    fn prefix(&self) -> u128 {
        number(self.first) >> shift(self.first, self.bits)
    }
}

/// How many bits of an address stand behind its first `bits`; less than 128, for all that is shifted out is zero then.
fn shift(address: IpAddr, bits: u8) -> u32 {
    (if address.is_ipv4() { 32 } else { 128 }) - u32::from(bits)
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        let wrong = || "an address or a network is expected, such as 127.0.0.1 or 10.0.0.0/8, or unix".to_owned();
        let (address, bits) = text.split_once('/').unwrap_or((text, ""));
        let first: IpAddr = address.parse().map_err(|_| wrong())?;
        let all = if first.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            "" if !text.contains('/') => all,
            bits => bits.parse().ok().filter(|bits| (1..=all).contains(bits)).ok_or_else(wrong)?,
        };
        let network = Network { first, bits };
        let rest = number(first) & !(u128::MAX << shift(first, bits));
        if rest != 0 {
            return Err(format!("{first} is not the first address of its network"));
        }
        Ok(network)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn proxies(texts: &[&str]) -> Result<TrustedProxies, String> {
        TrustedProxies::new(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn networks() {
        let has = |network: &str, address: &str| network.parse::<Network>().unwrap().has(address.parse().unwrap());
        assert!(has("10.0.0.0/8", "10.255.0.1") && !has("10.0.0.0/8", "11.0.0.0"));
        assert!(has("127.0.0.1", "127.0.0.1") && !has("127.0.0.1", "127.0.0.2"));
        assert!(has("2001:db8::/32", "2001:db8:ffff::1") && !has("2001:db8::/32", "2001:db9::"));
        assert!(has("::1", "::1") && has("8000::/1", "ffff::") && !has("8000::/1", "::1"));
        assert!(!has("::/96", "10.0.0.1"), "an address of the other kind");
        for wrong in
            ["10.0.0.1/8", "10.0.0.0/33", "0.0.0.0/0", "::/129", "10.0.0.0/", "10.0.0/8", "proxy", "/8", "10.0.0.0/x"]
        {
            assert!(proxies(&[wrong]).is_err(), "{wrong}");
        }
        assert_eq!(proxies(&["", " "]).unwrap(), TrustedProxies::default());
    }

    #[test]
    fn the_last_that_is_not_trusted_counts() {
        let trusted = proxies(&["10.0.0.0/8", "::1", "unix"]).unwrap();
        let check = |peer: &str, headers: &[(&'static str, &str)], expected: &str| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, HeaderValue::from_str(value).unwrap());
            }
            let shown = trusted.client(peer.parse().ok(), &map).map_or("-".to_owned(), |address| address.to_string());
            assert_eq!(shown, expected, "{peer} {headers:?}");
        };
        let (x, standard) = ("x-forwarded-for", "forwarded");
        // Nobody else's word counts.
        check("203.0.113.9", &[(x, "198.51.100.1")], "203.0.113.9");
        check("203.0.113.9", &[(standard, "for=198.51.100.1")], "203.0.113.9");
        check("10.0.0.1", &[], "10.0.0.1");
        check("::ffff:10.0.0.1", &[(x, "198.51.100.1")], "198.51.100.1");
        check("unix", &[(x, "198.51.100.1")], "198.51.100.1");
        check("unix", &[], "-");
        // What the client itself wrote stands further left.
        check("10.0.0.1", &[(x, "1.1.1.1, 198.51.100.1")], "198.51.100.1");
        check("10.0.0.1", &[(x, "1.1.1.1"), (x, "198.51.100.1, 10.0.0.2")], "198.51.100.1");
        check("10.0.0.1", &[(x, "10.0.0.3,10.0.0.2")], "10.0.0.3");
        check("10.0.0.1", &[(x, "2001:db8::1, ::1")], "2001:db8::1");
        check("10.0.0.1", &[(x, "198.51.100.1:4711")], "198.51.100.1");
        check("10.0.0.1", &[(x, "[2001:db8::1]:80")], "2001:db8::1");
        // What is no address ends it.
        for rest in ["unknown", "", "10.0.0.256", "evil\"", "198.51.100.1 x", "_hidden"] {
            check("10.0.0.1", &[(x, &format!("1.1.1.1, {rest}"))], "10.0.0.1");
            check("10.0.0.1", &[(x, &format!("1.1.1.1, {rest}, 10.0.0.7"))], "10.0.0.7");
        }
        check(
            "10.0.0.1",
            &[(standard, "for=1.1.1.1, For=\"[2001:db8::1]:4711\";proto=https;by=10.0.0.1")],
            "2001:db8::1",
        );
        check("10.0.0.1", &[(standard, "proto=http;for=198.51.100.1")], "198.51.100.1");
        check("10.0.0.1", &[(standard, "for=1.1.1.1, proto=http")], "10.0.0.1");
        check("10.0.0.1", &[(standard, "for=\"a,for=1.1.1.1\"")], "10.0.0.1");
        check("10.0.0.1", &[(standard, "for=\"\\\",for=1.1.1.1")], "10.0.0.1");
        check("10.0.0.1", &[(standard, "host=\"a,b\";for=198.51.100.1")], "198.51.100.1");
        // A client's own header beside the proxy's is no way round it.
        check("10.0.0.1", &[(x, "198.51.100.1"), (standard, "for=1.1.1.1")], "10.0.0.1");
        check("10.0.0.1", &[(x, "198.51.100.1"), (standard, "for=198.51.100.1")], "198.51.100.1");
    }
}
