//! Tokens, addresses and endpoints: small values that are copied, compared and sent about.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::well_known::WellKnownId;

/// A 128-bit token: names an endpoint, an incarnation, a session.
///
/// ```
/// use moonpool_foundation::UID;
///
/// let base = UID::new(0xCA1C, 0);
/// assert_eq!(base.adjusted(2), UID::new(0xCA1C, 2));
/// assert_eq!(base.to_string().parse(), Ok(base));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UID {
    /// The upper half; `u64::MAX` marks a well-known token.
    pub first: u64,
    /// The lower half.
    pub second: u64,
}

impl UID {
    /// The token that names nothing.
    pub const NIL: Self = Self::new(0, 0);

    /// The token with these halves.
    #[must_use]
    pub const fn new(first: u64, second: u64) -> Self {
        Self { first, second }
    }

    /// A random token from the ambient stream.
    #[must_use]
    pub fn random() -> Self {
        Self::new(crate::ambient::random_u64(), crate::ambient::random_u64())
    }

    /// The token of a well-known receiver: the same number in every process.
    #[must_use]
    pub const fn well_known(id: u32) -> Self {
        Self::new(u64::MAX, id as u64)
    }

    /// The token of one method of an interface that users number themselves.
    ///
    /// # Errors
    /// [`ReservedInterfaceId`] for `u64::MAX`, which marks well-known tokens.
    pub const fn interface(
        interface_id: u64,
        method_index: u64,
    ) -> Result<Self, ReservedInterfaceId> {
        if interface_id == u64::MAX {
            return Err(ReservedInterfaceId);
        }
        Ok(Self::new(interface_id, method_index))
    }

    /// Whether this token is the same number in every process.
    #[must_use]
    pub const fn is_well_known(&self) -> bool {
        self.first == u64::MAX
    }

    /// Whether this token can name anything at all: everything but [`NIL`](Self::NIL).
    #[must_use]
    pub const fn is_valid(&self) -> bool {
        self.first != 0 || self.second != 0
    }

    /// The token `index` further on in the same run: the `index`th method of an interface whose
    /// base this is. Wraps around within the lower half.
    #[must_use]
    pub const fn adjusted(self, index: u64) -> Self {
        Self::new(self.first, self.second.wrapping_add(index))
    }

    /// The 16 bytes that travel: both halves little-endian, `first` in front.
    #[inline]
    #[must_use]
    pub fn to_le_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.first.to_le_bytes());
        bytes[8..].copy_from_slice(&self.second.to_le_bytes());
        bytes
    }

    /// The token whose [`to_le_bytes`](Self::to_le_bytes) these are.
    #[inline]
    #[must_use]
    pub fn from_le_bytes(bytes: [u8; 16]) -> Self {
        let whole = u128::from_le_bytes(bytes);
        Self::new(low_half(whole), low_half(whole >> 64))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the mask leaves 64 bits, and this is where they are taken"
)]
const fn low_half(whole: u128) -> u64 {
    (whole & u64::MAX as u128) as u64
}

impl fmt::Display for UID {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.first, self.second)
    }
}

impl FromStr for UID {
    type Err = ParseUidError;

    /// Reads 32 hexadecimal digits of either case, and nothing else.
    fn from_str(text: &str) -> Result<Self, ParseUidError> {
        // Signs are digits to no one, but `from_str_radix` would take them.
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ParseUidError);
        }
        let Ok(whole) = u128::from_str_radix(text, 16) else {
            return Err(ParseUidError);
        };
        Ok(Self::new(low_half(whole >> 64), low_half(whole)))
    }
}

/// The text is not a token: 32 hexadecimal digits were expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token is 32 hexadecimal digits")]
#[non_exhaustive]
pub struct ParseUidError;

/// `u64::MAX` was given as an interface id; it marks well-known tokens. Choose another id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("interface id u64::MAX is reserved for well-known tokens")]
#[non_exhaustive]
pub struct ReservedInterfaceId;

/// An IP address, a port and flags.
///
/// Shown and read as `ip:port` (`[v6]:port`), followed by `(tls)` and `(public)` where those flags
/// are set.
///
/// ```
/// use moonpool_foundation::NetworkAddress;
///
/// let address: NetworkAddress = "10.0.0.1:4500(tls)".parse()?;
/// assert_eq!(address.flags, NetworkAddress::FLAG_TLS);
/// assert_eq!(address.to_string(), "10.0.0.1:4500(tls)");
/// # Ok::<(), moonpool_foundation::messaging::ParseAddressError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NetworkAddress {
    /// The host.
    pub ip: IpAddr,
    /// The port.
    pub port: u16,
    /// [`FLAG_TLS`](Self::FLAG_TLS), [`FLAG_PUBLIC`](Self::FLAG_PUBLIC).
    pub flags: u16,
}

impl NetworkAddress {
    /// Connections to this address are encrypted.
    pub const FLAG_TLS: u16 = 1;
    /// The address can be dialled from outside its own process group.
    pub const FLAG_PUBLIC: u16 = 2;

    /// The address without flags.
    #[must_use]
    pub const fn new(ip: IpAddr, port: u16) -> Self {
        Self { ip, port, flags: 0 }
    }

    /// The same address with these flags instead of its own.
    #[must_use]
    pub const fn with_flags(self, flags: u16) -> Self {
        Self { flags, ..self }
    }

    /// Whether [`FLAG_TLS`](Self::FLAG_TLS) is set.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        self.flags & Self::FLAG_TLS != 0
    }

    /// Whether [`FLAG_PUBLIC`](Self::FLAG_PUBLIC) is set.
    #[must_use]
    pub const fn is_public(&self) -> bool {
        self.flags & Self::FLAG_PUBLIC != 0
    }

    /// Whether others can reach a process by this address: neither `0.0.0.0` nor `::`, which mean
    /// "every interface" to a listener and nothing to a dialler, and not port 0.
    #[must_use]
    pub const fn is_canonical(&self) -> bool {
        !self.ip.is_unspecified() && self.port != 0
    }

    /// Host and port, as the standard library has them.
    #[must_use]
    pub const fn socket_addr(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }
}

impl From<SocketAddr> for NetworkAddress {
    fn from(addr: SocketAddr) -> Self {
        Self::new(addr.ip(), addr.port())
    }
}

impl From<NetworkAddress> for SocketAddr {
    fn from(address: NetworkAddress) -> Self {
        address.socket_addr()
    }
}

const TLS_SUFFIX: &str = "(tls)";
const PUBLIC_SUFFIX: &str = "(public)";

impl fmt::Display for NetworkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket_addr().fmt(f)?;
        if self.is_tls() {
            f.write_str(TLS_SUFFIX)?;
        }
        if self.is_public() {
            f.write_str(PUBLIC_SUFFIX)?;
        }
        Ok(())
    }
}

impl FromStr for NetworkAddress {
    type Err = ParseAddressError;

    /// Reads what `Display` writes. Host names are not addresses.
    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let mut rest = text;
        let mut flags = 0;
        if let Some(shorter) = rest.strip_suffix(PUBLIC_SUFFIX) {
            rest = shorter;
            flags |= Self::FLAG_PUBLIC;
        }
        if let Some(shorter) = rest.strip_suffix(TLS_SUFFIX) {
            rest = shorter;
            flags |= Self::FLAG_TLS;
        }
        let addr: SocketAddr = rest.parse().map_err(|source| ParseAddressError {
            text: text.to_owned(),
            source,
        })?;
        Ok(Self::from(addr).with_flags(flags))
    }
}

/// The text is not an address: `ip:port` or `[v6]:port` was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an address of the form ip:port")]
#[non_exhaustive]
pub struct ParseAddressError {
    /// What was read.
    pub text: String,
    /// What the standard library said.
    pub source: std::net::AddrParseError,
}

/// Where a message goes: a process's address and a token there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// The process.
    pub address: NetworkAddress,
    /// The receiver in it.
    pub token: UID,
}

impl Endpoint {
    /// The receiver `token` at `address`.
    #[must_use]
    pub const fn new(address: NetworkAddress, token: UID) -> Self {
        Self { address, token }
    }

    /// A well-known receiver at `address`.
    #[must_use]
    pub fn well_known(address: NetworkAddress, id: impl Into<WellKnownId>) -> Self {
        Self::new(address, id.into().token())
    }

    /// The endpoint `index` further on in the same run: see [`UID::adjusted`].
    #[must_use]
    pub const fn adjusted(self, index: u64) -> Self {
        Self::new(self.address, self.token.adjusted(index))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.token, self.address)
    }
}

impl FromStr for Endpoint {
    type Err = ParseEndpointError;

    /// Reads what `Display` writes: a token, `@`, an address.
    fn from_str(text: &str) -> Result<Self, ParseEndpointError> {
        let Some((token, address)) = text.split_once('@') else {
            return Err(ParseEndpointError::NoSeparator {
                text: text.to_owned(),
            });
        };
        Ok(Self::new(address.parse()?, token.parse()?))
    }
}

/// The text is not an endpoint: `token@ip:port` was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseEndpointError {
    /// Nothing separates a token from an address.
    #[error("`{text}` has no `@` between a token and an address")]
    NoSeparator {
        /// What was read.
        text: String,
    },
    /// What precedes the `@` is no token.
    #[error(transparent)]
    Token(#[from] ParseUidError),
    /// What follows the `@` is no address.
    #[error(transparent)]
    Address(#[from] ParseAddressError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::WellKnownToken;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn test_well_known_token() {
        let token = UID::well_known(WellKnownToken::Ping as u32);
        assert!(token.is_well_known());
        assert_eq!(token.first, u64::MAX);
        assert_eq!(token.second, 1);
    }

    #[test]
    fn an_interface_id_that_marks_well_known_tokens_is_refused() {
        assert_eq!(UID::interface(u64::MAX, 3), Err(ReservedInterfaceId));
        assert_eq!(UID::interface(7, 3), Ok(UID::new(7, 3)));
    }

    #[test]
    fn a_token_is_valid_unless_it_is_nil() {
        assert!(!UID::NIL.is_valid());
        assert!(UID::new(0, 1).is_valid() && UID::new(1, 0).is_valid());
    }

    #[test]
    fn tokens_travel_little_endian_with_the_first_half_in_front() {
        let token = UID::new(0x0102_0304_0506_0708, 0x1112_1314_1516_1718);
        assert_eq!(
            token.to_le_bytes(),
            [
                8, 7, 6, 5, 4, 3, 2, 1, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11
            ]
        );
        assert_eq!(token.to_string(), "01020304050607081112131415161718");
    }

    #[test]
    fn text_that_is_no_token_is_refused() {
        for text in [
            "",
            "12",
            "+1020304050607081112131415161718",
            &"g".repeat(32),
            &"0".repeat(33),
        ] {
            assert_eq!(text.parse::<UID>(), Err(ParseUidError), "{text}");
        }
    }

    #[test]
    fn addresses_that_mean_every_interface_are_not_canonical() {
        let unspecified = [
            IpAddr::from(Ipv4Addr::UNSPECIFIED),
            IpAddr::from(Ipv6Addr::UNSPECIFIED),
        ];
        for ip in unspecified {
            assert!(!NetworkAddress::new(ip, 4500).is_canonical());
        }
        let localhost = NetworkAddress::new(IpAddr::from(Ipv4Addr::LOCALHOST), 4500);
        assert!(localhost.is_canonical());
        assert!(
            !NetworkAddress {
                port: 0,
                ..localhost
            }
            .is_canonical()
        );
    }

    #[test]
    fn text_that_is_no_address_is_refused() {
        for text in [
            "",
            "localhost:80",
            "1.2.3.4",
            "1.2.3.4:80(public)(tls)",
            "::1:80(tls",
            "1.2.3.4:65536",
        ] {
            assert!(text.parse::<NetworkAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn text_that_is_no_endpoint_says_which_part_is_wrong() {
        let token = "01020304050607081112131415161718";
        let read = |text: &str| text.parse::<Endpoint>();
        let endpoint = read(&format!("{token}@[::1]:80(tls)")).unwrap();
        assert_eq!(endpoint.token.to_string(), token);
        assert_eq!(endpoint.address.to_string(), "[::1]:80(tls)");
        assert!(matches!(
            read(token),
            Err(ParseEndpointError::NoSeparator { .. })
        ));
        assert!(matches!(
            read("12@[::1]:80"),
            Err(ParseEndpointError::Token(_))
        ));
        let no_address = read(&format!("{token}@here"));
        assert!(matches!(no_address, Err(ParseEndpointError::Address(_))));
    }

    #[test]
    fn an_endpoint_is_adjusted_in_its_token_only() {
        let address: NetworkAddress = "[::1]:1".parse().unwrap();
        let base = Endpoint::new(address, UID::new(9, 0));
        assert_eq!(base.adjusted(4), Endpoint::new(address, UID::new(9, 4)));
        assert_eq!(
            Endpoint::well_known(address, WellKnownToken::Ping).token,
            UID::well_known(1)
        );
    }

    #[test]
    fn tokens_and_endpoints_survive_serde() {
        let endpoint = Endpoint::new("10.0.0.1:80(tls)".parse().unwrap(), UID::new(1, u64::MAX));
        let text = serde_json::to_string(&endpoint).unwrap();
        assert_eq!(serde_json::from_str::<Endpoint>(&text).unwrap(), endpoint);
    }

    proptest! {
        #[test]
        fn a_token_survives_text_and_bytes(first: u64, second: u64) {
            let token = UID::new(first, second);
            prop_assert_eq!(token.to_string().parse(), Ok(token));
            prop_assert_eq!(UID::from_le_bytes(token.to_le_bytes()), token);
        }

        #[test]
        fn an_address_survives_text(ip: IpAddr, port: u16, flags in 0u16..4) {
            let address = NetworkAddress { ip, port, flags };
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }
    }
}
