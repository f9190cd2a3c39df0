//! Who calls, and what they may: plain values and total functions, without a clock, a file or a connection.
//!
//! * A [`Principal`] is a caller that is known: its role, the tasks it sees, the rights it has, and by which credential it
//!   came. Everything that the hub does for somebody it does for a principal (`Hub::as_caller`).
//! * A [`Role`] is a word for a set of [`Right`]s. Each route and each message of a socket names the one right that it needs
//!   (`http/routes.rs`, `http/rights.rs`), and this is the only place that says which role has which.
//! * A [`Sight`] is a filter that is AND-ed with each filter of the caller, before anything is looked up. What is outside of it
//!   does not exist for them.
//! * [`AccessRecords`] are what a hub keeps about all this, and say which steps may follow; an [`AuditRow`] says what somebody did.
//!
//! Credentials become principals in two steps, because one of them is pure and the other is not: here stand their texts, digests,
//! signatures and claims; which of them are in force is state of the hub.

mod api_token;
mod audit;
mod hidden;
mod jws;
mod jwt;
mod principal;
mod record;
mod records;
mod redact;
mod role;
mod scoped;
mod token;
mod unauthenticated;
mod verify_key;

pub use api_token::{NewApiToken, NewTokenError, WORKS_LEN_MAX};
pub use audit::{AuditEntry, AuditRow};
pub use hidden::{HIDES_MAX, Hidden, Hide, Part};
pub use jws::{Alg, Jws};
pub use jwt::{JwtRules, LEEWAY_MS};
pub use principal::{Credential, Principal, Scoped, Sight, Signed, Works};
pub use record::{AccessChange, AccessKey, AccessRecord, ApiToken, Revocation, Revoked, SigningKey};
pub use records::{API_TOKENS_MAX, AccessRecords, AccessRefusal};
pub use redact::{redacted, redacted_line, redacted_result};
pub use role::{Right, Rights, Role};
pub use scoped::{
    Allow, Maker, MintError, Minted, NewScoped, SCOPED_MS_DEFAULT, SCOPED_MS_MAX, ScopedClaims, Signer, hides, is_jti,
    is_maker,
};
pub use token::{Fingerprint, SUBPROTOCOL_TOKEN_BYTES_MAX, TOKEN_BYTES_MAX, TokenKind, is_ticket, new_ticket};
pub use unauthenticated::Unauthenticated;
pub use verify_key::{KEYS_MAX, KeySource, VerifyKey, read_keys};
