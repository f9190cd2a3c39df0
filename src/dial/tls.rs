//! Whom a client believes to be its hub: what the machine trusts, or one file instead.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// Trusts the certificates of this machine (or of `SSL_CERT_FILE`), or only those of `ca_cert`, a file in PEM. Reads files.
pub(super) fn trusting(ca_cert: Option<&Path>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match ca_cert {
        Some(path) => {
            let wrong = |why: String| format!("{}: {why}", path.display());
            let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            for certificate in found.map_err(|why| wrong(why.to_string()))? {
                roots.add(certificate).map_err(|why| wrong(why.to_string()))?;
            }
            if roots.is_empty() {
                return Err(wrong("there is no certificate in it (PEM is expected)".into()));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err("this machine has no certificates to trust: install ca-certificates, or name a file".into());
            }
        }
    }
    Ok(with(roots))
}

/// Trusts nobody: for a hub without TLS.
pub(super) fn trusting_none() -> ClientConfig {
    with(RootCertStore::empty())
}

/// Agrees on one cryptography for the clients that tests make themselves.
#[cfg(test)]
pub(crate) fn agree_in_tests() {
    let _ = default_provider().install_default();
}

fn with(roots: RootCertStore) -> ClientConfig {
    let versions = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let versions = versions.with_safe_default_protocol_versions().expect("ring has the suites of both versions");
    let mut config = versions.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}
