//! Which addresses a callback may go to.
//!
//! Who submits a task names a URL, and the hub calls it: from where the hub stands, with what the hub can reach. So that
//! nobody reaches through it what stands beside it (a database without a password, a cloud's metadata), a callback goes to
//! the public internet only, unless the hub is told otherwise. What counts is the address of a connection, not the name in
//! the URL, which may mean another address at each look.
//!
//! Public is what IANA's registries of special-purpose addresses leave over. Of IPv6 that is `2000::/3` alone, less what is
//! set aside in it; so what is assigned in the future is refused until it is known here. Addresses in which an IPv4 address
//! is embedded are refused as such: nobody needs them who has an IPv4 address. One exception: `64:ff9b::/96` is how a network
//! that has only IPv6 reaches IPv4 (NAT64), so there the embedded address is looked at.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// An address that callbacks do not go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotPublic {
    pub address: IpAddr,
    /// What kind of address it is, such as `a loopback address`.
    pub kind: &'static str,
}

impl fmt::Display for NotPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}: callbacks go there only with --callbacks-private", self.address, self.kind)
    }
}

impl std::error::Error for NotPublic {}

/// Networks of IPv4 that are not public.
const V4: &[([u8; 4], u32, &str)] = &[
    ([0, 0, 0, 0], 8, UNSPECIFIED),
    ([10, 0, 0, 0], 8, PRIVATE),
    ([100, 64, 0, 0], 10, "a shared address of a provider (CGNAT)"),
    ([127, 0, 0, 0], 8, LOOPBACK),
    ([169, 254, 0, 0], 16, LINK_LOCAL),
    ([172, 16, 0, 0], 12, PRIVATE),
    ([192, 0, 0, 0], 24, RESERVED),
    ([192, 0, 2, 0], 24, DOCUMENTATION),
    ([192, 88, 99, 0], 24, RESERVED),
    ([192, 168, 0, 0], 16, PRIVATE),
    ([198, 18, 0, 0], 15, "an address for benchmarks"),
    ([198, 51, 100, 0], 24, DOCUMENTATION),
    ([203, 0, 113, 0], 24, DOCUMENTATION),
    ([224, 0, 0, 0], 4, MULTICAST),
    ([240, 0, 0, 0], 4, RESERVED),
];

/// Networks of IPv6 that are not public; the first that fits says what it is.
const V6: &[([u16; 8], u32, &str)] = &[
    ([0; 8], 128, UNSPECIFIED),
    ([0, 0, 0, 0, 0, 0, 0, 1], 128, LOOPBACK),
    ([0, 0, 0, 0, 0, 0xffff, 0, 0], 96, EMBEDDED),
    ([0; 8], 96, EMBEDDED),
    ([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, EMBEDDED),
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, DOCUMENTATION),
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, RESERVED),
    ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, EMBEDDED),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, DOCUMENTATION),
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, PRIVATE),
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, LINK_LOCAL),
    ([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, PRIVATE),
    ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, MULTICAST),
];

/// All that is public of IPv6 is in here.
const GLOBAL: ([u16; 8], u32) = ([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);
/// In the last 32 bits there is an IPv4 address.
const NAT64: ([u16; 8], u32) = ([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);

const UNSPECIFIED: &str = "an unspecified address";
const LOOPBACK: &str = "a loopback address";
const PRIVATE: &str = "a private address";
const LINK_LOCAL: &str = "a link-local address";
const DOCUMENTATION: &str = "an address for documents";
const MULTICAST: &str = "a multicast address";
const EMBEDDED: &str = "an IPv6 address with an IPv4 address in it";
const RESERVED: &str = "a reserved address";

/// Refuses an address that is not public.
pub fn vet(address: IpAddr) -> Result<(), NotPublic> {
    let kind = match address {
        IpAddr::V4(address) => kind_of_v4(address),
        IpAddr::V6(address) => kind_of_v6(address),
    };
    kind.map_or(Ok(()), |kind| Err(NotPublic { address, kind }))
}

/// Refuses a URL that names an address, in whatever spelling, that is not public. What a name means is not asked here.
pub fn vet_literal(url: &Url) -> Result<(), NotPublic> {
    match url.host() {
        Some(Host::Ipv4(address)) => vet(address.into()),
        Some(Host::Ipv6(address)) => vet(address.into()),
        Some(Host::Domain(_)) | None => Ok(()),
    }
}

fn kind_of_v4(address: Ipv4Addr) -> Option<&'static str> {
    let bits = address.to_bits();
    let fits =
        |(network, len, _): &&([u8; 4], u32, &str)| (bits ^ u32::from_be_bytes(*network)).leading_zeros() >= *len;
    V4.iter().find(fits).map(|(_, _, kind)| *kind)
}

fn kind_of_v6(address: Ipv6Addr) -> Option<&'static str> {
    let bits = address.to_bits();
    let is_in = |network: [u16; 8], len: u32| (bits ^ Ipv6Addr::from(network).to_bits()).leading_zeros() >= len;
    if is_in(NAT64.0, NAT64.1) {
        return kind_of_v4(Ipv4Addr::from_bits(bits as u32));
    }
    let known = V6.iter().find(|(network, len, _)| is_in(*network, *len)).map(|(_, _, kind)| *kind);
    known.or((!is_in(GLOBAL.0, GLOBAL.1)).then_some(RESERVED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_network_from_its_first_to_its_last_address() {
        for (text, public) in [
            ("0.0.0.0", false),
            ("0.255.255.255", false),
            ("1.0.0.0", true),
            ("8.8.8.8", true),
            ("9.255.255.255", true),
            ("10.0.0.0", false),
            ("10.255.255.255", false),
            ("11.0.0.0", true),
            ("100.63.255.255", true),
            ("100.64.0.0", false),
            ("100.127.255.255", false),
            ("100.128.0.0", true),
            ("126.255.255.255", true),
            ("127.0.0.0", false),
            ("127.0.0.1", false),
            ("127.255.255.255", false),
            ("128.0.0.0", true),
            ("169.253.255.255", true),
            ("169.254.0.0", false),
            ("169.254.169.254", false),
            ("169.254.255.255", false),
            ("169.255.0.0", true),
            ("172.15.255.255", true),
            ("172.16.0.0", false),
            ("172.31.255.255", false),
            ("172.32.0.0", true),
            ("191.255.255.255", true),
            ("192.0.0.0", false),
            ("192.0.0.255", false),
            ("192.0.1.0", true),
            ("192.0.2.0", false),
            ("192.0.2.255", false),
            ("192.0.3.0", true),
            ("192.88.98.255", true),
            ("192.88.99.1", false),
            ("192.88.100.0", true),
            ("192.167.255.255", true),
            ("192.168.0.0", false),
            ("192.168.255.255", false),
            ("192.169.0.0", true),
            ("198.17.255.255", true),
            ("198.18.0.0", false),
            ("198.19.255.255", false),
            ("198.20.0.0", true),
            ("198.51.99.255", true),
            ("198.51.100.0", false),
            ("198.51.100.255", false),
            ("198.51.101.0", true),
            ("203.0.112.255", true),
            ("203.0.113.0", false),
            ("203.0.113.255", false),
            ("203.0.114.0", true),
            ("223.255.255.255", true),
            ("224.0.0.0", false),
            ("239.255.255.255", false),
            ("240.0.0.0", false),
            ("255.255.255.255", false),
            ("::", false),
            ("::1", false),
            ("::2", false),
            // Compatible with IPv4, and mapped to it: also where that is public.
            ("::7f00:1", false),
            ("::808:808", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:10.0.0.1", false),
            ("::ffff:8.8.8.8", false),
            ("::ffff:0:8.8.8.8", false),
            ("64:ff9b::127.0.0.1", false),
            ("64:ff9b::10.1.2.3", false),
            ("64:ff9b::169.254.169.254", false),
            ("64:ff9b::8.8.8.8", true),
            ("64:ff9b:0:0:0:1:808:808", false),
            ("64:ff9b:1::808:808", false),
            ("64:ff9b:1:ffff::", false),
            ("64:ff9b:2::", false),
            ("100::1", false),
            ("1fff:ffff::", false),
            ("2001::1", false),
            // Teredo, benchmarks, ORCHID.
            ("2001:0:4136:e378:8000:63bf:3fff:fdd2", false),
            ("2001:2::1", false),
            ("2001:20::1", false),
            ("2001:1ff:ffff::", false),
            ("2001:200::", true),
            ("2001:db7:ffff::", true),
            ("2001:db8::", false),
            ("2001:db8:ffff:ffff::", false),
            ("2001:db9::", true),
            ("2001:4860:4860::8888", true),
            ("2002::", false),
            ("2002:7f00:1::", false),
            ("2002:808:808::1", false),
            ("2002:ffff::", false),
            ("2003::", true),
            ("2606:4700:4700::1111", true),
            ("3ffe::", true),
            ("3fff::", false),
            ("3fff:fff:ffff::", false),
            ("3fff:1000::", true),
            ("4000::", false),
            ("5f00::1", false),
            ("fbff::", false),
            ("fc00::", false),
            ("fd00:ec2::254", false),
            ("fdff:ffff::", false),
            ("fe00::", false),
            ("fe80::", false),
            ("fe80::1", false),
            ("febf:ffff::", false),
            ("fec0::", false),
            ("feff:ffff::", false),
            ("ff00::", false),
            ("ff02::1", false),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false),
        ] {
            let vetted = vet(text.parse().unwrap());
            assert_eq!(vetted.is_ok(), public, "{text}: {vetted:?}");
        }
    }

    #[test]
    fn a_refusal_says_what_kind_of_address_it_is() {
        let told = |text: &str| vet(text.parse().unwrap()).unwrap_err().to_string();
        assert_eq!(
            told("127.0.0.1"),
            "127.0.0.1 is a loopback address: callbacks go there only with --callbacks-private"
        );
        for (address, kind) in [
            ("10.0.0.1", PRIVATE),
            ("169.254.169.254", LINK_LOCAL),
            ("0.0.0.0", UNSPECIFIED),
            ("::", UNSPECIFIED),
            ("::1", LOOPBACK),
            ("::ffff:10.0.0.1", EMBEDDED),
            ("64:ff9b::10.0.0.1", PRIVATE),
            ("fd00::1", PRIVATE),
            ("ff02::1", MULTICAST),
            ("2001:db8::1", DOCUMENTATION),
            ("100::1", RESERVED),
        ] {
            assert!(told(address).contains(kind), "{}", told(address));
        }
    }

    #[test]
    fn an_address_in_a_url_is_known_in_every_spelling() {
        for private in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://127.0.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://017700000001/",
            "http://127.0.0.1./",
            "http://%31%32%37.0.0.1/",
            "http://１２７.０.０.１/",
            "http://127。0。0。1/",
            "http://0/",
            "http://[::1]/",
            "http://[0:0:0:0:0:0:0:1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[2002:7f00:1::]/",
            "http:\\\\127.0.0.1\\",
            "http:127.0.0.1",
            "https://169.254.169.254/latest/meta-data/",
        ] {
            let url = Url::parse(private).unwrap();
            assert!(vet_literal(&url).is_err(), "{private} is {url}");
        }
        for other in
            ["http://8.8.8.8/", "http://[2606:4700:4700::1111]/", "http://localhost/", "http://127.0.0.1.example/"]
        {
            assert_eq!(vet_literal(&Url::parse(other).unwrap()), Ok(()), "{other}");
        }
    }
}
